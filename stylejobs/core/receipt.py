"""The downstream receipt in numbers: what stylized training images did for a classifier, clean and corrupted.

Two arms are compared: classifiers trained on originals, and on originals with stylized copies, in equal numbers of
steps, a few seeds each, asked about the same test images as they are and under every corruption and severity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stylejobs.core.bootstrap import Interval, bootstrap_interval, mean_interval

MOST_CLEAN_LOSS = 0.01
"""What clean accuracy may fall by: a point."""


@dataclass(frozen=True)
class Hits:
    """Which answers of an arm were right.

    Attributes:
        clean_SN: bool, of each seed and test image.
        corrupted_SCVN: bool, of each seed, corruption, severity and test image.
    """

    clean_SN: Tensor
    corrupted_SCVN: Tensor

    def __post_init__(self) -> None:
        seeds, images = self.clean_SN.shape
        shape = self.corrupted_SCVN.shape
        if len(shape) != 4 or (shape[0], shape[3]) != (seeds, images) or min(seeds, images) < 2:
            raise ValueError(
                "wanted clean [S, N] and corrupted [S, C, V, N] of the same 2 or more seeds and images; "
                f"got {list(self.clean_SN.shape)} and {list(shape)}"
            )


@dataclass(frozen=True)
class ArmReceipt:
    """Accuracies of an arm, shares of images: means over its seeds with intervals over images; and of each seed."""

    clean: Interval
    corrupted: Interval
    clean_by_seed: tuple[float, ...]
    corrupted_by_seed: tuple[float, ...]
    by_corruption: dict[str, float]


@dataclass(frozen=True)
class Receipt:
    """What stylized copies did.

    Attributes:
        originals, mixed: the arms: without and with stylized copies.
        clean_gain, corrupted_gain: mixed less originals, in accuracy, see `gain_interval`.
        error_ratio: mean over corruptions of the error of mixed over that of originals, both means over severities;
            like the paper's mCE, but relative to the other arm where that is relative to AlexNet. Below 1 is better.
        num_images: test images.
    """

    originals: ArmReceipt
    mixed: ArmReceipt
    clean_gain: Interval
    corrupted_gain: Interval
    error_ratio: float
    num_images: int
    confidence: float


def gain_interval(before_SN: Tensor, after_SN: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of mean(after) - mean(before), resampling the test images and the seeds of both arms.

    Images are common to all trainings, so a draw of images is one for all; seeds of the arms are drawn apart, because
    two trainings of one seed on different data have no more in common than any two.

    What three seeds can show: that a gain is larger than trainings and images happen to differ. What they cannot: how
    far a single training may fall. A bootstrap of S seeds also takes their variance for (S - 1) / S of what it is, two
    thirds of it with three, so that the part of the interval that is due to seeds is about a fifth too narrow: a gain
    whose interval ends near 0 wants more seeds.

    Args:
        before_SN: float, of each seed and image, of one arm; `after_SN` of the other, columns the same images.
        confidence: in (0, 1).
        seed: of the draws.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13; the factor: section 5.3.

    >>> gain_interval(torch.zeros(3, 4), torch.ones(3, 4))
    Interval(value=1.0, low=1.0, high=1.0)
    """
    if before_SN.ndim != 2 or after_SN.ndim != 2 or before_SN.shape[1] != after_SN.shape[1]:
        raise ValueError(f"wanted [S, N] of the same images; got {list(before_SN.shape)}, {list(after_SN.shape)}")
    before_SN, after_SN = before_SN.double(), after_SN.double()

    def gain(before_RS: Tensor, after_RS: Tensor, image_RN: Tensor) -> Tensor:
        # Means over the drawn seeds first: [R, N], then over the drawn images.
        gain_RN = _mean_of(after_SN, after_RS) - _mean_of(before_SN, before_RS)
        return gain_RN.gather(1, image_RN).mean(dim=1)

    return bootstrap_interval(gain, (len(before_SN), len(after_SN), before_SN.shape[1]), confidence, seed=seed)


def _mean_of(value_SN: Tensor, drawn_RS: Tensor) -> Tensor:
    """For each resample, the mean over its draw of seeds: [R, N]."""
    count_RS = torch.nn.functional.one_hot(drawn_RS, len(value_SN)).sum(dim=1)
    return count_RS.to(value_SN) @ value_SN / drawn_RS.shape[1]


def compare_arms(
    originals: Hits, mixed: Hits, corruptions: Sequence[str], confidence: float = 0.95, seed: int = 0
) -> Receipt:
    """The receipt of two arms that answered the same questions.

    Args:
        corruptions: names, in the order of `corrupted_SCVN`.

    Raises:
        ValueError: not the same questions, or not as many names as corruptions.
    """
    shapes = [list(hits.corrupted_SCVN.shape[1:]) for hits in (originals, mixed)]
    if shapes[0] != shapes[1] or len(corruptions) != shapes[0][0]:
        raise ValueError(f"wanted two arms with one answer [C, V, N] and C names; got {shapes}, {len(corruptions)}")
    before, after = (_arm(hits, corruptions, confidence, seed) for hits in (originals, mixed))
    errors = [(1.0 - after.by_corruption[name], 1.0 - before.by_corruption[name]) for name in corruptions]
    clean_pair = originals.clean_SN.double(), mixed.clean_SN.double()
    corrupted_pair = tuple(hits.corrupted_SCVN.double().mean(dim=(1, 2)) for hits in (originals, mixed))
    return Receipt(
        originals=before,
        mixed=after,
        clean_gain=gain_interval(*clean_pair, confidence, seed),
        corrupted_gain=gain_interval(*corrupted_pair, confidence, seed),
        # Of a corruption that nobody errs under there is nothing to gain.
        error_ratio=sum(now / max(then, 1e-9) if now or then else 1.0 for now, then in errors) / len(errors),
        num_images=originals.clean_SN.shape[1],
        confidence=confidence,
    )


def _arm(hits: Hits, corruptions: Sequence[str], confidence: float, seed: int) -> ArmReceipt:
    clean_SN, corrupted_SN = hits.clean_SN.double(), hits.corrupted_SCVN.double().mean(dim=(1, 2))
    by_corruption_C = hits.corrupted_SCVN.double().mean(dim=(0, 2, 3))
    return ArmReceipt(
        clean=mean_interval(clean_SN, confidence, seed=seed),
        corrupted=mean_interval(corrupted_SN, confidence, seed=seed),
        clean_by_seed=tuple(clean_SN.mean(dim=1).tolist()),
        corrupted_by_seed=tuple(corrupted_SN.mean(dim=1).tolist()),
        by_corruption=dict(zip(corruptions, by_corruption_C.tolist(), strict=True)),
    )


def read_receipt(receipt: Receipt) -> list[str]:
    """What the numbers say, and what they do not, in sentences for a person."""
    gain, clean = receipt.corrupted_gain, receipt.clean_gain
    seeds = len(receipt.mixed.clean_by_seed)
    if gain.low > 0.0:
        verdict = "The stylized images help under corruption: the whole interval of the gain is above 0."
    elif gain.high < 0.0:
        verdict = "The stylized images hurt under corruption: the whole interval of the gain is below 0."
    else:
        verdict = "No gain under corruption is shown: 0 is inside the interval. That is not the same as none."
    if clean.value < -MOST_CLEAN_LOSS:
        cost = f"Clean accuracy fell by {-100 * clean.value:.1f} points, more than the one that may be lost"
        cost += "." if clean.high < -MOST_CLEAN_LOSS else ", though its interval does not exclude less."
    elif clean.low < -MOST_CLEAN_LOSS:
        cost = "Clean accuracy did not fall by a point, but its interval does not exclude that."
    else:
        cost = "Clean accuracy did not fall by a point, with its whole interval."
    return [
        verdict,
        cost,
        f"{seeds} seeds an arm and {receipt.num_images} test images: the intervals cover other images and, from few, "
        "other trainings of this recipe; not another classifier, size or data set.",
    ]
