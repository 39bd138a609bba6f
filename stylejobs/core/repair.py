"""Mode drift: noticing that a critic has won or that a generator repeats itself, and saying how much to repair.

`Repairer` decides and owns no network; the training loop measures (`critic_accuracy`, `DiversityWatch`), asks it after
every step, and carries the numbers out (`pull_to`, the critics' learning rates, `augment.diff_augment`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylejobs.core.diversity import DiversityWatch, diversity

__all__ = ["CAUSES", "DiversityWatch", "RepairEvent", "RepairOptions", "Repairer", "diversity", "pull_to"]

CAUSES = ("non_finite", "diversity", "accuracy")


@dataclass(frozen=True)
class RepairOptions:
    """When to repair and how much. Spans are in images seen by all workers, so world size does not change a recipe.

    Args:
        accuracy_trip: a running critic accuracy above it is saturated.
        accuracy_release: the running accuracy below which that is over.
        diversity_trip: a running diversity below it is a collapse.
        diversity_release: the running diversity above which that is over.
        window_images: memory of the running averages [images].
        warmup_images: no repair of accuracy or diversity before: untrained generators are grey, not collapsed [images].
        cool_down_images: a cause that does not go away trips again after so many [images].
        recovery_images: health needed to undo one cut of the critic's rate and one step of augmentation [images].
        pull: share of the way from the generator's weights to their average, in [0, 1].
        critic_cut: factor of the critics' learning rate at a repair, in (0, 1].
        critic_floor: the least factor that cuts can lead to, in (0, 1].
        augment_step: added to the strength of augmentation at a repair.
        augment_ceiling: the greatest strength that steps can lead to, in [0, 1].
    """

    accuracy_trip: float = 0.95
    accuracy_release: float = 0.85
    diversity_trip: float = 0.3
    diversity_release: float = 0.5
    window_images: int = 500
    warmup_images: int = 1000
    cool_down_images: int = 2000
    recovery_images: int = 5000
    pull: float = 0.5
    critic_cut: float = 0.5
    critic_floor: float = 1 / 16
    augment_step: float = 0.2
    augment_ceiling: float = 0.8

    def __post_init__(self) -> None:
        if not 0.0 < self.accuracy_release <= self.accuracy_trip <= 1.0:
            raise ValueError(
                f"wanted 0 < accuracy_release <= accuracy_trip <= 1; got {self.accuracy_release}, {self.accuracy_trip}"
            )
        if not 0.0 <= self.diversity_trip <= self.diversity_release:
            raise ValueError(
                f"wanted 0 <= diversity_trip <= diversity_release; got {self.diversity_trip}, {self.diversity_release}"
            )
        if not (0.0 <= self.pull <= 1.0 and self.augment_step >= 0.0 and 0.0 <= self.augment_ceiling <= 1.0):
            raise ValueError(
                f"wanted pull and augment_ceiling in [0, 1] and augment_step >= 0; got {self.pull}, "
                f"{self.augment_ceiling}, {self.augment_step}"
            )
        if not (0.0 < self.critic_cut <= 1.0 and 0.0 < self.critic_floor <= 1.0):
            raise ValueError(f"wanted critic_cut, critic_floor in (0, 1]; got {self.critic_cut}, {self.critic_floor}")
        if min(self.window_images, self.recovery_images) < 1 or min(self.warmup_images, self.cool_down_images) < 0:
            raise ValueError("wanted window_images, recovery_images >= 1 and warmup_images, cool_down_images >= 0")


@dataclass(frozen=True)
class RepairEvent:
    """One repair, with the numbers that led to it and those to go on with.

    Attributes:
        images_seen: when, by all workers.
        cause: one of `CAUSES`.
        value: what was measured (the running average); 1 for a non-finite loss.
        threshold: what it was held against; 0 for a non-finite loss.
        pull: share of the way to the averaged weights to go now, for `pull_to`; 0 in further events of one moment.
        critic_rate: factor of the critics' scheduled learning rate from now on.
        augment: strength of `diff_augment` from now on.
    """

    images_seen: int
    cause: str
    value: float
    threshold: float
    pull: float
    critic_rate: float
    augment: float


class Repairer:
    """Watches two running averages and repairs with hysteresis.

    An average moves by 1 - exp(-n / window_images) for n new images and starts out healthy (accuracy 1/2, diversity 1).
    A cause trips when its average passes the trip level, and again only once it was past the release level in between
    or `cool_down_images` later. A non-finite loss trips at once, and again only after a finite one or the cool-down.
    Each moment with a cause is repaired once: the generator goes `pull` of the way to its average (all the way for a
    non-finite loss), the critics' rate is cut, augmentation goes up a step. While all is released, `recovery_images`
    double the rate (by 1 / critic_cut, to be exact) up to 1 and take one step of augmentation back, little by little.

    It is pure: no clock, no chance, no tensors. Workers that observe the same numbers decide alike, so all of them must
    be given the means over the workers.

    Attributes:
        critic_rate: factor for the critics' learning rate, now; it also moves between events.
        augment: strength for `diff_augment`, now.

    Differs from paper: no paper has the whole; augmentation that follows the critic's overfitting is from Karras et al.
    2020, arXiv:2006.06676, with one threshold in place of their control loop.
    """

    def __init__(self, options: RepairOptions | None = None):
        self.options = options or RepairOptions()
        self.critic_rate, self.augment = 1.0, 0.0
        self._accuracy, self._diversity = 0.5, 1.0
        self._started: int | None = None
        self._images_seen = 0
        self._tripped: dict[str, int] = {}  # cause -> images seen when it last tripped, while it is not released

    @property
    def accuracy(self) -> float:
        """The running average of the critic's accuracy."""
        return self._accuracy

    @property
    def diversity(self) -> float:
        """The running average of the diversity."""
        return self._diversity

    def observe(
        self, images_seen: int, critic_accuracy: float | None, diversity: float | None, finite: bool = True
    ) -> list[RepairEvent]:
        """Takes in one step's measures, means over all workers.

        Args:
            images_seen: by all workers since training began; never falls.
            critic_accuracy: in [0, 1]; None where there is no critic.
            diversity: of the outputs, as a ratio to that of their sources; None where it is not known yet.
            finite: whether every loss of the step was finite on every worker. A measure that is not finite counts as
                a loss that is not, and leaves its average alone.

        Returns:
            What was repaired just now; most often nothing. All events of one moment say the same rate and strength.
        """
        if self._started is None:
            self._started = self._images_seen = images_seen
        new_images = images_seen - self._images_seen
        if new_images < 0:
            raise ValueError(f"wanted images_seen that never falls; got {images_seen} after {self._images_seen}")
        self._images_seen = images_seen
        measures = [value for value in (critic_accuracy, diversity) if value is not None]
        finite = finite and all(math.isfinite(value) for value in measures)
        if finite:
            share = -math.expm1(-new_images / self.options.window_images)
            self._accuracy += share * (
                (self._accuracy if critic_accuracy is None else critic_accuracy) - self._accuracy
            )
            self._diversity += share * ((self._diversity if diversity is None else diversity) - self._diversity)
        self._release(finite)
        causes = [cause for cause in CAUSES if self._trips(cause, finite)]
        if causes:
            return self._repair(causes)
        if finite and not self._tripped:
            self._recover(new_images)
        return []

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, fit for JSON; with them `load_state_dict` goes on exactly."""
        return {
            "critic_rate": self.critic_rate,
            "augment": self.augment,
            "accuracy": self._accuracy,
            "diversity": self._diversity,
            "started": self._started,
            "images_seen": self._images_seen,
            "tripped": dict(self._tripped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        missing = sorted(set(self.state_dict()) ^ set(state))
        if missing:
            raise ValueError(f"wanted the state of a repairer; these keys are only on one side: {missing}")
        self.critic_rate, self.augment = float(state["critic_rate"]), float(state["augment"])
        self._accuracy, self._diversity = float(state["accuracy"]), float(state["diversity"])
        self._started, self._images_seen = state["started"], int(state["images_seen"])
        self._tripped = {str(cause): int(images) for cause, images in state["tripped"].items()}

    def _release(self, finite: bool) -> None:
        released = {
            "non_finite": finite,
            "diversity": self._diversity > self.options.diversity_release,
            "accuracy": self._accuracy < self.options.accuracy_release,
        }
        self._tripped = {cause: images for cause, images in self._tripped.items() if not released[cause]}

    def _trips(self, cause: str, finite: bool) -> bool:
        options = self.options
        since_start = self._images_seen - (self._started or 0)
        bad = {
            "non_finite": not finite,
            "diversity": since_start >= options.warmup_images and self._diversity < options.diversity_trip,
            "accuracy": since_start >= options.warmup_images and self._accuracy > options.accuracy_trip,
        }[cause]
        last = self._tripped.get(cause)
        return bad and (last is None or self._images_seen - last >= options.cool_down_images)

    def _repair(self, causes: list[str]) -> list[RepairEvent]:
        options = self.options
        # A limit stops a step, it never undoes one: options may have changed since the state was saved.
        self.critic_rate = min(self.critic_rate, max(options.critic_floor, self.critic_rate * options.critic_cut))
        self.augment = max(self.augment, min(options.augment_ceiling, self.augment + options.augment_step))
        measured = {
            "non_finite": (1.0, 0.0, 1.0),
            "diversity": (self._diversity, options.diversity_trip, options.pull),
            "accuracy": (self._accuracy, options.accuracy_trip, options.pull),
        }
        events = []
        for cause in causes:
            self._tripped[cause] = self._images_seen
            value, threshold, pull = measured[cause]
            events.append(
                RepairEvent(
                    images_seen=self._images_seen,
                    cause=cause,
                    value=value,
                    threshold=threshold,
                    pull=0.0 if events else pull,
                    critic_rate=self.critic_rate,
                    augment=self.augment,
                )
            )
        return events

    def _recover(self, new_images: int) -> None:
        steps = new_images / self.options.recovery_images
        self.critic_rate = min(1.0, self.critic_rate * self.options.critic_cut**-steps)
        self.augment = max(0.0, self.augment - steps * self.options.augment_step)


@torch.no_grad()
def pull_to(module: nn.Module, average_state: Mapping[str, Tensor], share: float) -> None:
    """Moves weights towards their average, in place: w = w + share * (a - w); at share 1 they become the average.

    Floating-point tensors move; others (counters) are taken over at share 1 alone. Whatever was not finite is healed
    at share 1 only, if the average never took it in. The moments of the optimizer are the caller's.

    Args:
        module: the network, not its DDP wrapper; on every worker alike.
        average_state: `Ema.state_dict()` of that network.
        share: in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"wanted share in [0, 1]; got {share}")
    weights = module.state_dict()
    if set(weights) != set(average_state):
        different = sorted(set(weights) ^ set(average_state))
        raise ValueError(f"wanted the names of this module's weights; these are only on one side: {different}")
    for name, weight in weights.items():
        average = average_state[name].to(weight.device, weight.dtype)
        if share == 1.0:
            weight.copy_(average)
        elif weight.is_floating_point():
            weight.lerp_(average, share)
