"""The training loop: batches -> turns -> steps, with averaged weights, repairs, logs and samples. Knows no Ray.

A Ray Train worker runs it (`train_loop.py`); benchmarks and tests run it in their own process.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from stylejobs.core.ema import Ema
from stylejobs.core.match import Match, fit_match, style_target
from stylejobs.core.methods import Method, Step, Taken, moment_at, take_step
from stylejobs.core.pixels import to_uint8
from stylejobs.core.repair import DiversityWatch, Repairer, RepairOptions, pull_to
from stylejobs.engine.datasets import TrainingBatch
from stylejobs.engine.train_settings import TrainSettings, read_picture
from stylejobs.errors import TrainingError
from stylejobs.records.lineage import draw_seed
from stylejobs.storage import locations
from stylejobs.storage.packages import save_package

_NUM_SAMPLES = 4
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


class Training:
    """One worker's training, from its first step to its package.

    Args:
        networks: those of the method, wrapped for several workers where there are several.
        watch: of the first rank; others are silent.
    """

    def __init__(
        self,
        settings: TrainSettings,
        method: Method,
        networks: Mapping[str, nn.Module],
        device: torch.device,
        watch: Watch,
    ):
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._world_size = torch.distributed.get_world_size() if distributed else 1
        self._rank = torch.distributed.get_rank() if distributed else 0
        self._s, self._method, self._networks, self._device, self._watch = settings, method, networks, device, watch
        self._optimizers = method.build_optimizers(networks, settings.rate_scale)
        self._rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()}
        self._ema = Ema(method.generator, settings.ema_decay)
        self._rng = torch.Generator().manual_seed(draw_seed(settings.seed, f"turns of rank {self._rank}", 0))
        self._repairer = Repairer(RepairOptions(**settings.repair)) if settings.repair is not None else None
        self._diversity = DiversityWatch()
        self._repairs_in_a_row = 0
        self._losses: dict[str, float] = {}
        self._last_good = ""
        self.images_seen = 0
        self.seconds = 0.0

    def run(self, batches: Iterator[TrainingBatch]) -> None:
        """Takes steps until `num_images` have been seen.

        Raises:
            TrainingError: a gradient is not finite, and the repairer is off or has tried.
        """
        started = time.monotonic()
        for number in itertools.count(1):
            if self.images_seen >= self._s.num_images:
                break
            self._one_step(number, next(batches))
            self.seconds = time.monotonic() - started

    def _one_step(self, number: int, batch: TrainingBatch) -> None:
        s, method = self._s, self._method
        tensors = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.tensors.items()}
        augment = self._repairer.augment if self._repairer else 0.0
        moment = moment_at(method.phases, number, self.images_seen, s.num_images, self._rng, augment)
        self._set_rates(moment.share)
        step = Step(tensors, moment)
        taken = take_step(method, self._networks, self._optimizers, step, s.precision, s.clip_norm)
        if taken.non_finite is None:
            self._ema.update(method.generator)
            self._repairs_in_a_row = 0
        self._repair(number, step, taken, batch)
        self.images_seen += self._world_size * tensors["content"].shape[0]
        last = self.images_seen >= s.num_images
        if number % s.log_every == 0 or last:
            self._log(number, taken, moment.phase.name)
        if number % s.sample_every == 0 and not last and taken.non_finite is None:
            self._last_good = self._keep_good(number)
        if number % s.sample_every == 0 or last:
            self._watch.sample(number, self.sample_rows)

    def _set_rates(self, share: float) -> None:
        slowed = self._repairer.critic_rate if self._repairer else 1.0
        for name, optimizer in self._optimizers.items():
            player = self._method.players[name]
            factor = player.schedule.at(share, self.images_seen) * (slowed if player.is_critic else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self._rates[name] * factor

    def _repair(self, number: int, step: Step, taken: Taken, batch: TrainingBatch) -> None:
        """Lets the repairer see the step and carries out what it decides; without one, such a gradient ends it all."""
        if taken.non_finite is not None:
            self._repairs_in_a_row += 1
            if self._repairer is None or self._repairs_in_a_row > _REPAIRS_IN_A_ROW:
                raise TrainingError(self._what_broke(number, taken, batch))
        if self._repairer is None:
            return
        accuracies = [value.float() for name, value in taken.signals.items() if name.startswith("accuracy")]
        accuracy = self._agree(torch.stack(accuracies).mean()) if accuracies else None
        diversity, finite = None, taken.non_finite is None
        # What is not a number would stay in the window, and be repaired again at every step until it is forgotten.
        if finite and "stylized" in step.kept:
            diversity = self._diversity.add(step.batch["content"], step.kept["stylized"])
            diversity = None if diversity is None else self._agree(torch.tensor(diversity))
        for event in self._repairer.observe(self.images_seen, accuracy, diversity, finite):
            pull_to(self._method.generator, self._ema.state_dict(), event.pull)
            numbers = {"pull": event.pull, "critic_rate": event.critic_rate, "augment": event.augment}
            text = f"repair: {event.cause} at {event.value:.4g} (limit {event.threshold:.4g})"
            self._watch.event(number, text, {"value": event.value, **numbers})

    def _agree(self, value: Tensor) -> float:
        """The mean over all ranks, so that all of them repair alike."""
        if self._world_size > 1:
            value = value.to(self._device)
            torch.distributed.all_reduce(value)
            value = value / self._world_size
        return float(value)

    def _what_broke(self, number: int, taken: Taken, batch: TrainingBatch) -> str:
        keys = [key for some in batch.keys.values() for key in some]
        if self._world_size > 1:
            everyones: list = [None] * self._world_size
            torch.distributed.all_gather_object(everyones, keys)
            keys = [key for some in everyones for key in some]
        losses = ", ".join(f"{name} {float(value):.4g}" for name, value in taken.losses.items())
        return (
            f"step {number}: the gradient of the {taken.non_finite} is not finite ({losses}); the batch held "
            f"{', '.join(keys)}; last good checkpoint: {self._last_good or 'none yet'}; lower optim.lr, clip gradients "
            "with optim.clip_norm, or leave these images out"
        )

    def _log(self, number: int, taken: Taken, phase: str) -> None:
        self._losses = {name: float(value) for name, value in taken.losses.items()}
        metrics = {f"loss/{name}": value for name, value in self._losses.items()}
        metrics |= {f"signal/{name}": float(value) for name, value in taken.signals.items()}
        if self._repairer is not None:
            watched = {"critic_accuracy": self._repairer.accuracy, "diversity": self._repairer.diversity}
            metrics |= {f"repair/{name}": value for name, value in watched.items()}
        metrics |= {f"gradient_norm/{name}": float(value) for name, value in taken.gradient_norms.items()}
        metrics |= {f"lr/{name}": opt.param_groups[0]["lr"] for name, opt in self._optimizers.items()}
        metrics |= {"images_per_second": self.images_seen / max(1e-9, self.seconds)}
        metrics |= {"images_seen": float(self.images_seen)}
        self._watch.log(number, metrics, self.images_seen, phase)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The generator with its averaged weights, in evaluation mode; inside the block nothing is trained."""
        generator = self._method.generator
        kept = {name: value.clone() for name, value in generator.state_dict().items()}
        generator.load_state_dict(self._ema.state_dict())
        generator.eval()
        try:
            with torch.no_grad():
                yield generator
        finally:
            generator.load_state_dict(kept)
            generator.train()

    def sample_rows(self) -> list:
        """Rows of the sample grid: content, what the averaged generator makes of it, and a picture of the style."""
        s, rows = self._s, []
        with self.averaged() as generator:
            styles = itertools.cycle(self._method.styles().items())
            any_picture = itertools.cycle(s.style_images.values())
            for data in s.content_images[:_NUM_SAMPLES]:
                content_BCHW = read_picture(data, s, s.crops.whole_px)
                name, code_D = next(styles)
                stylized_BCHW = generator(content_BCHW.to(self._device), code_D[None].to(self._device))
                picture = s.style_images.get(name) or next(any_picture)
                pictures = (content_BCHW, stylized_BCHW, read_picture(picture, s, s.crops.whole_px))
                rows.append([to_uint8(picture_BCHW.cpu())[0].numpy() for picture_BCHW in pictures])
        return rows

    def save(self) -> None:
        """Writes the averaged generator as a model package, the last raw weights beside it; the first rank does."""
        if self._rank == 0:
            styles, averaged = self._averaged_state()
            match = self._match(tuple(styles))
            self._write(self._s.package_uri, averaged, styles, match)
            raw = self._method.generator.state_dict()
            self._write(locations.join(self._s.package_uri, "raw"), raw, styles, match)

    def _keep_good(self, number: int) -> str:
        """Writes the package that a training which breaks later can name; returns its place and step."""
        place = locations.join(self._s.package_uri, "last_good")
        if self._rank == 0:
            styles, averaged = self._averaged_state()
            self._write(place, averaged, styles, None)
        return f"{place} (step {number})"

    def _averaged_state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The averaged generator's style codes and weights."""
        with self.averaged() as generator:
            styles = {name: code_D.cpu() for name, code_D in self._method.styles().items()}
            return styles, {name: value.clone() for name, value in generator.state_dict().items()}

    def _write(self, place: str, weights: dict[str, Tensor], styles: dict[str, Tensor], match: Match | None) -> None:
        method, training = self._method, {**self._s.training, "images_seen": self.images_seen, "losses": self._losses}
        save_package(place, method.generator_name, method.generator_options, weights, styles, training, match)

    def _match(self, styles: tuple[str, ...]) -> Match | None:
        """What `strength=auto` compares: embeddings of content and style images; None where there are too few."""
        s = self._s
        content = [read_picture(data, s, s.crops.whole_px) for data in s.content_images]
        pictures = {name: read_picture(data, s, s.crops.whole_px) for name, data in s.style_images.items()}
        if len(content) < 2 or not pictures:
            return None
        match = fit_match(content, {name: [pictures[name]] for name in styles if name in pictures})
        if others := [name for name in styles if name not in pictures]:
            whole_D = style_target(match, pictures.values())
            match = match.with_targets({**match.targets, **dict.fromkeys(others, whole_D)})
        return match

    def summary(self) -> dict[str, Any]:
        """{"images_seen", "seconds", "images_per_second", "losses"}: over all workers; the last logged losses."""
        rate = self.images_seen / max(1e-9, self.seconds)
        return {
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "images_per_second": rate,
            "losses": self._losses,
        }
