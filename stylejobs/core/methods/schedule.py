"""Phases, weights and rates as data. They count images seen, so that the number of workers does not change a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from types import MappingProxyType

from stylejobs.core.draws import Draws, Mean, mean_of_one


@dataclass(frozen=True)
class Curve:
    """A factor that is piecewise linear in the share of a training, or of a phase, that is done.

    Args:
        points: (share in [0, 1], value), shares rising; constant before the first and after the last.

    >>> linear_decay(0.5).at(0.75)
    0.5
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.points]
        if not shares or any(not 0.0 <= share <= 1.0 for share in shares) or any(a >= b for a, b in pairwise(shares)):
            raise ValueError(f"wanted points with rising shares in [0, 1]; got {self.points}")

    def at(self, share: float, images_seen: int = 0) -> float:
        """The value at a share in [0, 1]; the number of images does not matter."""
        first, last = self.points[0], self.points[-1]
        if share <= first[0] or share >= last[0]:
            return first[1] if share <= first[0] else last[1]
        (x0, y0), (x1, y1) = next(pair for pair in pairwise(self.points) if share <= pair[1][0])
        return y0 + (y1 - y0) * (share - x0) / (x1 - x0)


@dataclass(frozen=True)
class InverseDecay:
    """The factor 1 / (1 + per_image * images_seen), whatever the length of the training.

    Source: Huang & Belongie 2017, arXiv:1703.06868 (their code: 1 / (1 + 5e-5 * step) at batch 8).
    """

    per_image: float

    def at(self, share: float, images_seen: int = 0) -> float:
        """The value after `images_seen` images; the share does not matter."""
        return 1.0 / (1.0 + self.per_image * images_seen)


CONSTANT = Curve(((0.0, 1.0),))


def linear_decay(start: float) -> Curve:
    """1 until the share `start`, then linearly to 0 at the end."""
    return Curve(((start, 1.0), (1.0, 0.0)))


@dataclass(frozen=True)
class Phase:
    """A stretch of a training: who moves, and for what.

    Args:
        name: for logs.
        share: of the training's images; those of all phases add up to 1.
        players: who moves, in the order of their turns within a step. All other networks are frozen.
        weights: of loss terms, where they differ from the method's own; a Curve runs over the phase.
        every: player -> it moves only in every n-th step (1 where not named).
    """

    name: str
    share: float
    players: tuple[str, ...]
    weights: Mapping[str, float | Curve] = field(default_factory=lambda: MappingProxyType({}))
    every: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Moment:
    """Where a training stands when a step is taken.

    Attributes:
        step: counts from 1.
        images_seen: by all workers, before this step; of `num_images` in all.
        share: of the training that is done, in [0, 1].
        weights: of the loss terms that this phase changes.
        draws: every draw of the step, from one generator that is the same on all workers.
        augment: strength of the critics' differentiable augmentation, in [0, 1].
        mean: over all workers, for what is no mean over rows; a turn calls it on every worker or on none.
    """

    step: int
    images_seen: int
    num_images: int
    phase: Phase
    weights: Mapping[str, float]
    draws: Draws
    augment: float = 0.0
    mean: Mean = mean_of_one

    @property
    def share(self) -> float:
        return min(1.0, self.images_seen / self.num_images)

    def moves(self, player: str) -> bool:
        """Whether it is one of the player's steps."""
        return self.step % self.phase.every.get(player, 1) == 0


def moment_at(
    phases: tuple[Phase, ...],
    step: int,
    images_seen: int,
    num_images: int,
    draws: Draws,
    augment: float = 0.0,
    mean: Mean = mean_of_one,
) -> Moment:
    """The moment of a training of `num_images` images; see `Moment` for the arguments.

    Raises:
        ValueError: the shares of the phases do not add up to 1.
    """
    ends = list(accumulate(phase.share for phase in phases))
    if not ends or abs(ends[-1] - 1.0) > 1e-6:
        raise ValueError(f"wanted phases whose shares add up to 1; got {[phase.share for phase in phases]}")
    done = images_seen / num_images
    index = next((index for index, end in enumerate(ends) if done < end - 1e-9), len(phases) - 1)
    phase = phases[index]
    phase_done = (done - ends[index] + phase.share) / phase.share
    weights = {
        name: weight.at(phase_done) if isinstance(weight, Curve) else weight for name, weight in phase.weights.items()
    }
    return Moment(step, images_seen, num_images, phase, weights, draws, augment, mean)
