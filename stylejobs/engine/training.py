"""The training loop: batches -> turns -> steps, with averaged weights, repairs, measures, checkpoints and logs.

Knows no Ray. A Ray Train worker runs it (`train_loop.py`); benchmarks and tests run it in their own process. What it
remembers is in `train_state.py`, what it leaves behind in `train_package.py`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from stylejobs.core.best import BestSoFar
from stylejobs.core.draws import Draws
from stylejobs.core.ema import Ema
from stylejobs.core.methods import Method, Step, Taken, moment_at, take_step
from stylejobs.core.repair import DiversityWatch, Repairer, RepairOptions, pull_to
from stylejobs.engine.checkpointing import Keeper, Restored
from stylejobs.engine.datasets import TrainingBatch
from stylejobs.engine.evaluation import Evaluation
from stylejobs.engine.group import Group
from stylejobs.engine.memory import is_out_of_memory, memory_metrics
from stylejobs.engine.train_package import TrainedPackage
from stylejobs.engine.train_settings import TrainSettings
from stylejobs.engine.train_state import Standing, own_state, restore, shared_state
from stylejobs.errors import TrainingError, UsageError
from stylejobs.records.lineage import draw_seed

_FULL_RATE_BATCH = 8
_REPAIRS_IN_A_ROW = 3
"""Steps without a finite gradient that the repairer may answer before the training gives up."""


class Watch:
    """Where the first rank tells what happens; this one is silent."""

    def log(self, step: int, metrics: Mapping[str, float], images_seen: int, phase: str) -> None:
        """Numbers of a step."""

    def event(self, step: int, text: str, metrics: Mapping[str, float]) -> None:
        """Something that people should know, with its numbers."""

    def sample(self, step: int, make_rows: Callable[[], list]) -> None:
        """Rows of pictures; `make_rows` is only called where they are wanted."""

    def undelivered(self) -> list:
        """Numbers that were told and have not arrived, as plain values."""
        return []

    def tell_again(self, numbers: list) -> None:
        """Numbers that were `undelivered` when the process ended that was told them."""


class Training:
    """One worker's training, from its first step to its package.

    Args:
        networks: those of the method, wrapped for several workers where there are several.
        watch: of the first rank; others are silent.
        keeper: writes checkpoints; None writes none.
    """

    def __init__(
        self,
        settings: TrainSettings,
        method: Method,
        networks: Mapping[str, nn.Module],
        device: torch.device,
        watch: Watch,
        keeper: Keeper | None = None,
    ):
        self._s, self._method, self._networks, self._device = settings, method, networks, device
        self._watch, self._keeper = watch, keeper
        self._group = Group(device)
        global_batch = self._group.num_workers * settings.crops.batch
        self._optimizers = method.build_optimizers(networks, math.sqrt(max(1.0, global_batch / _FULL_RATE_BATCH)))
        self._rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()}
        self._standing = Standing(
            Ema(method.generator, settings.ema_decay),
            DiversityWatch(),
            Repairer(RepairOptions(**settings.repair)) if settings.repair is not None else None,
            BestSoFar(settings.evaluation.patience, settings.evaluation.min_gain) if settings.evaluation else None,
        )
        self._package = TrainedPackage(settings, method, self._standing.average, device)
        self._evaluation = _build_evaluation(settings, device) if self._group.is_first else None
        self._logged = (0.0, 0)

    @property
    def images_seen(self) -> int:
        """By all workers."""
        return self._standing.images_seen

    @property
    def step(self) -> int:
        """Optimizer steps that were taken."""
        return self._standing.step

    def restore(self, restored: Restored) -> None:
        """Goes on from a checkpoint; of another number of workers it takes the pools and deals them anew."""
        restore(restored, self._method, self._optimizers, self._standing, self._group, self._device)
        self._watch.tell_again(restored.shared.get("undelivered") or [])
        before, now = restored.checkpoint.num_workers, self._group.num_workers
        if before != now:
            text = f"{before} workers became {now}: image pools and places in the data were dealt anew"
            self._watch.event(self.step, text, {"workers": float(now)})

    def run(self, batches: Iterator[TrainingBatch]) -> None:
        """Takes steps until `num_images` have been seen, or the measure has stopped to improve.

        Raises:
            TrainingError: a gradient is not finite, and the repairer is off or has tried; or memory ran out.
            StorageError: a checkpoint could not be written.
        """
        standing, started = self._standing, time.monotonic() - self._standing.seconds
        self._logged = (time.monotonic(), standing.images_seen)
        try:
            while standing.images_seen < self._s.num_images and not standing.stopped:
                self.take_step(next(batches))
                standing.seconds = time.monotonic() - started
            if self._keeper is not None:
                self._keeper.finish()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"step {standing.step + 1}: out of memory ({str(error).splitlines()[0] if str(error) else 'host'}); "
                f"lower batch (now {self._s.crops.batch}), size_px (now {self._s.crops.view.size_px}) or "
                "generator.width, or set precision=bf16"
            ) from error

    def take_step(self, batch: TrainingBatch) -> None:
        """One step and all that is due behind it; for `run`, and for those who measure or watch single steps."""
        s, method, standing = self._s, self._method, self._standing
        number = standing.step + 1
        tensors = {name: self._to_device(tensor) for name, tensor in batch.tensors.items()}
        augment = standing.repairer.augment if standing.repairer else 0.0
        rng = torch.Generator().manual_seed(draw_seed(s.seed, "turns", number))
        draws = Draws(rng, self._group.rank, self._group.num_workers)
        moment = moment_at(method.phases, number, standing.images_seen, s.num_images, draws, augment, self._group.mean)
        self._set_rates(moment.share)
        step = Step(tensors, moment)
        taken = take_step(method, self._networks, self._optimizers, step, s.precision, s.clip_norm)
        if taken.non_finite is None:
            standing.average.update(method.generator)
            standing.repairs_in_a_row = 0
        self._repair(number, step, taken, batch)
        standing.step, standing.cursors = number, batch.cursors
        before = standing.images_seen
        standing.images_seen += self._group.num_workers * tensors["content"].shape[0]
        last = standing.images_seen >= s.num_images
        if number % s.log_every == 0 or last:
            self._log(number, taken, moment.phase.name)
        if method.makes_pictures and (number % s.sample_every == 0 or last):
            self._watch.sample(number, self._package.sample_rows)
        if taken.non_finite is None:
            self._measure_and_keep(number, before, last)

    def _to_device(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self._device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _set_rates(self, share: float) -> None:
        standing = self._standing
        slowed = standing.repairer.critic_rate if standing.repairer else 1.0
        for name, optimizer in self._optimizers.items():
            player = self._method.players[name]
            factor = player.schedule.at(share, standing.images_seen) * (slowed if player.is_critic else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor

    def _repair(self, number: int, step: Step, taken: Taken, batch: TrainingBatch) -> None:
        """Lets the repairer see the step and carries out what it decides; without one, such a gradient ends it all."""
        standing = self._standing
        if taken.non_finite is not None:
            standing.repairs_in_a_row += 1
            if standing.repairer is None or standing.repairs_in_a_row > _REPAIRS_IN_A_ROW:
                raise TrainingError(self._what_broke(number, taken, batch))
        if standing.repairer is None:
            return
        accuracies = [value.float() for name, value in taken.signals.items() if name.startswith("accuracy")]
        accuracy = float(self._group.mean(torch.stack(accuracies).mean())) if accuracies else None
        diversity, finite = None, taken.non_finite is None
        # What is not a number would stay in the window, and be repaired again at every step until it is forgotten.
        if finite and "stylized" in step.kept:
            content_BCHW = step.batch["content"]
            # Of methods that also paint invented styles the first rows count, one for each content image.
            diversity = standing.diversity.add(content_BCHW, step.kept["stylized"][: len(content_BCHW)])
            diversity = self._group.mean_of_known(diversity)
        for event in standing.repairer.observe(standing.images_seen, accuracy, diversity, finite):
            pull_to(self._method.generator, standing.average.state_dict(), event.pull)
            text = f"repair: {event.cause} at {event.value:.4g} (limit {event.threshold:.4g})"
            names = ("value", "pull", "critic_rate", "augment")
            self._watch.event(number, text, {f"repair/{name}": getattr(event, name) for name in names})

    def _what_broke(self, number: int, taken: Taken, batch: TrainingBatch) -> str:
        keys = self._group.gather([key for some in batch.keys.values() for key in some])
        losses = ", ".join(f"{name} {float(value):.4g}" for name, value in taken.losses.items())
        last_good = self._keeper.last_good if self._keeper is not None else None
        return (
            f"step {number}: the gradient of the {taken.non_finite} is not finite ({losses}); the batch held "
            f"{', '.join(keys)}; last good checkpoint: {last_good or 'none yet'}; lower optim.lr, clip gradients "
            "with optim.clip_norm, or leave these images out"
        )

    def _measure_and_keep(self, number: int, before: int, last: bool) -> None:
        """The measure where it is due, then a checkpoint where one is due or the model is the best so far."""
        s, standing = self._s, self._standing
        score, improved = None, False
        if s.evaluation and (
            last or before // s.evaluation.every_images < self.images_seen // s.evaluation.every_images
        ):
            score, improved = self._measure(number)
        if self._keeper is None:
            return
        self._keeper.check()
        if number % self._keeper.every == 0 or last or improved or standing.stopped:
            shared = shared_state(self._method, self._optimizers, standing) if self._group.is_first else {}
            # The steps until here are not taken again, so that nobody else could tell of them.
            shared["undelivered"] = self._watch.undelivered()
            self._keeper.keep(number, self.images_seen, score, shared, own_state(self._method, standing, self._device))

    def _measure(self, number: int) -> tuple[float, bool]:
        """(the score, whether it is the best so far); the first worker measures while the others wait for it."""
        standing, score = self._standing, math.nan
        if self._evaluation is not None:
            with self._package.averaged() as generator:
                measures = self._evaluation.measure(generator, self._method.styles())
            score = measures[self._s.evaluation.measure]
            numbers = {f"evaluation/{name}": value for name, value in measures.items()}
            self._watch.log(number, numbers, self.images_seen, "")
        score = self._group.from_first(score)
        verdict = standing.best.observe(self.images_seen, score)
        standing.stopped = verdict.stop
        if verdict.stop:
            since = standing.best.evaluations_since
            text = f"stopped: {self._s.evaluation.measure} has not improved for {since} evaluations"
            self._watch.event(number, text, {})
        return score, verdict.improved

    def _log(self, number: int, taken: Taken, phase: str) -> None:
        standing = self._standing
        standing.losses = {name: float(value) for name, value in taken.losses.items()}
        metrics = {f"loss/{name}": value for name, value in standing.losses.items()}
        metrics |= {f"signal/{name}": float(value) for name, value in taken.signals.items()}
        if standing.repairer is not None:
            watched = {"critic_accuracy": standing.repairer.accuracy, "diversity": standing.repairer.diversity}
            metrics |= {f"repair/{name}": value for name, value in watched.items()}
        metrics |= {f"gradient_norm/{name}": float(value) for name, value in taken.gradient_norms.items()}
        metrics |= {f"lr/{name}": opt.param_groups[0]["lr"] for name, opt in self._optimizers.items()}
        metrics |= {"images_per_second": self._rate(), "images_seen": float(standing.images_seen)}
        metrics |= {f"memory/{name}": value for name, value in memory_metrics(self._device).items()}
        self._watch.log(number, metrics, standing.images_seen, phase)

    def _rate(self) -> float:
        """Images a second since the last log."""
        now = time.monotonic()
        (then, seen), self._logged = self._logged, (now, self.images_seen)
        return (self.images_seen - seen) / max(1e-9, now - then)

    def save(self) -> None:
        """Writes the model package, the last raw weights beside it; the first rank does."""
        if self._group.is_first:
            self._package.save(self._standing, self._keeper is not None and self._s.evaluation is not None)

    def summary(self) -> dict:
        """What became of it, over all workers: images seen, steps, seconds, rate, last logged losses, best score."""
        standing = self._standing
        return {
            "images_seen": standing.images_seen,
            "steps": standing.step,
            "seconds": standing.seconds,
            "images_per_second": standing.images_seen / max(1e-9, standing.seconds),
            "losses": standing.losses,
            "best": standing.best.state_dict() if standing.best is not None else None,
            "stopped_early": standing.stopped,
        }


def _build_evaluation(settings: TrainSettings, device: torch.device) -> Evaluation | None:
    if settings.evaluation is None:
        return None
    e, crops = settings.evaluation, settings.crops
    side_px, load_px = crops.view.size_px, crops.view.load_px
    try:
        return Evaluation(
            e.content_images, e.style_images, side_px, crops.limits, device, load_px, settings.style_size_px
        )
    except ValueError as error:
        raise UsageError(f"evaluation: {error}") from error
