"""Intervals of measures: how far a number could move had other images been drawn. Resampling, not formulas."""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

_MAX_DRAWS = 2**22  # indices held at once: 32 MB


class Interval(NamedTuple):
    """A measure on the panel itself and the ends of its confidence interval.

    >>> Interval(0.5, 0.4, 0.6).low
    0.4
    """

    value: float
    low: float
    high: float

    def widened(self, factor: float) -> "Interval":
        """The same value and middle, `factor` times as wide.

        >>> Interval(0.5, 0.25, 0.75).widened(2.0)
        Interval(value=0.5, low=0.0, high=1.0)
        """
        more = 0.5 * (factor - 1.0) * (self.high - self.low)
        return Interval(self.value, self.low - more, self.high + more)


def bootstrap_interval(
    statistic: Callable[..., Tensor],
    sizes: Sequence[int],
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    centred: bool = False,
) -> Interval:
    """Percentile bootstrap: draw images with replacement, take the statistic again, keep the middle of its values.

    One call of the statistic sees one draw, so a difference of two models on one panel is paired: take it inside the
    statistic. Its interval is then much narrower than the two intervals suggest.

    Args:
        statistic: takes one indices tensor int64 [R, n] for each of `sizes` and returns [R] numbers, one a resample.
            It must be vectorised over R: called a few times in all.
        sizes: number of images of each sample, such as (num_contents, num_styles); they are drawn independently.
        confidence: in (0, 1).
        num_resamples: at least 100.
        seed: of the draws; the same seed and sizes draw the same images.
        centred: move the interval until the median of the resamples lies on the value. For distances of two sets,
            which resamples make larger: it then is about what such sets have on average, and may reach below 0.

    Returns:
        value (on the samples as they are), low, high.

    Raises:
        ValueError: an argument out of range, or a statistic that is not a number on some resample.

    Differs from paper: no bias correction (BCa); for means and kernel distances of 50 images and more the coverage
    that tests find is within two points of the nominal one.
    Source: Efron 1979, doi:10.1214/aos/1176344552; Efron & Tibshirani 1993, chapter 13.

    >>> values_N = torch.arange(100.0)
    >>> interval = bootstrap_interval(lambda rows_RN: values_N[rows_RN].mean(dim=1), (100,))
    >>> interval.value, interval.low < 49.5 < interval.high
    (49.5, True)
    """
    if not sizes or min(sizes) < 2 or not 0.0 < confidence < 1.0 or num_resamples < 100:
        raise ValueError(
            "wanted samples of at least 2 images, confidence in (0, 1) and at least 100 resamples; "
            f"got {list(sizes)}, {confidence} and {num_resamples}"
        )
    value = statistic(*(torch.arange(size)[None] for size in sizes))
    resampled_R = _resample(statistic, sizes, num_resamples, seed)
    _check_numbers(value, resampled_R, num_resamples)
    tail = (1.0 - confidence) / 2.0
    low, middle, high = torch.quantile(resampled_R, torch.tensor([tail, 0.5, 1.0 - tail], dtype=torch.float64)).tolist()
    shift = value.item() - middle if centred else 0.0
    return Interval(value.item(), low + shift, high + shift)


def _check_numbers(value: Tensor, resampled_R: Tensor, num_resamples: int) -> None:
    if value.shape != (1,) or resampled_R.shape != (num_resamples,):
        raise ValueError(f"wanted one number a resample; for one the statistic gave {list(value.shape)}: reduce to [R]")
    if not (resampled_R.isfinite().all() and value.isfinite().all()):
        raise ValueError("the statistic is not a number on some resamples: does it divide by something that can be 0?")


def _resample(statistic: Callable[..., Tensor], sizes: Sequence[int], num_resamples: int, seed: int) -> Tensor:
    """The statistic of `num_resamples` draws, as many at once as memory allows: [num_resamples], float64."""
    rng = torch.Generator().manual_seed(seed)
    at_once = max(1, _MAX_DRAWS // sum(sizes))
    parts = []
    for first in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - first)
        parts.append(statistic(*(torch.randint(size, (count, size), generator=rng) for size in sizes)))
    return torch.cat(parts).to("cpu", torch.float64)


def mean_interval(values_SN: Tensor, confidence: float = 0.95, num_resamples: int = 1000, seed: int = 0) -> Interval:
    """Interval of a mean over images, or over training seeds and images.

    Images are resampled, the same ones in every seed: the seeds saw one panel, and an image that is hard is hard for
    all of them. The interval says how far the mean over these S trainings could move on another panel. It does not
    say what another training would give: three seeds are too few to resample, so report their spread beside it.

    Args:
        values_SN: float, one number an image [N], or one a training seed and image [S, N], columns the same images.
        confidence: in (0, 1).
        num_resamples: at least 100.
        seed: of the draws.

    Returns:
        value, low, high.

    >>> mean_interval(torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])).value
    1.5
    """
    if values_SN.ndim not in (1, 2):
        raise ValueError(f"wanted values [N], or [S, N] for S training seeds; got {list(values_SN.shape)}")
    values_N = values_SN.to("cpu", torch.float64).reshape(-1, values_SN.shape[-1]).mean(dim=0)
    return bootstrap_interval(
        lambda rows_RN: values_N[rows_RN].mean(dim=1), (len(values_N),), confidence, num_resamples, seed
    )


def share_interval(hits_N: Tensor, confidence: float = 0.95) -> Interval:
    """Interval of a share of images: Wilson's score, (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).

    A bootstrap of 64 hits out of 64 would claim exactly 1; this says 0.94 to 1.

    Args:
        hits_N: bool [N], whether each image passed.
        confidence: in (0, 1).

    Returns:
        value, low, high, all in [0, 1].

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    >>> [round(number, 2) for number in share_interval(torch.ones(64, dtype=torch.bool))]
    [1.0, 0.94, 1.0]
    """
    if hits_N.dtype != torch.bool or hits_N.ndim != 1 or len(hits_N) < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(
            f"wanted bool [N >= 1] and confidence in (0, 1); got {hits_N.dtype} {list(hits_N.shape)}, {confidence}"
        )
    num, share = len(hits_N), hits_N.double().mean().item()
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * (share * (1 - share) / num + z**2 / (4 * num**2)) ** 0.5 / (1 + z**2 / num)
    # Exactly, the ends enclose the share; rounding may put 4e-19 above 0.
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def count_draws(rows_RN: Tensor | None, num_images: int) -> Tensor:
    """How often each resample draws each image: the weights that turn a statistic into a product of matrices.

    Args:
        rows_RN: int64, rows of R resamples; None for one in which every image is drawn once.
        num_images: N.

    Returns:
        counts_RN, float64, where the rows are.

    >>> count_draws(torch.tensor([[0, 2, 2]]), 3).tolist()
    [[1.0, 0.0, 2.0]]
    """
    if rows_RN is None:
        return torch.ones((1, num_images), dtype=torch.float64)
    counts_RN = torch.zeros((len(rows_RN), num_images), dtype=torch.float64, device=rows_RN.device)
    return counts_RN.scatter_add_(1, rows_RN, counts_RN.new_ones(()).expand(rows_RN.shape))


def mean_of_pairs(value_NN: Tensor, counts_RN: Tensor, alone: float = 0.0) -> Tensor:
    """Mean of a symmetric function of two images over pairs of different images, resample by resample.

    Two draws of one image are no pair: otherwise each repeated image would look like a tight cluster, and every
    resample would be biased.

    Args:
        value_NN: the function of each two images, float64.
        counts_RN: of `count_draws`.
        alone: of a resample that is one image alone.

    Returns:
        mean_R, float64.
    """
    counts_RN = counts_RN.to(value_NN)
    squared_RN = counts_RN.square()
    pairs_R = counts_RN.sum(dim=1).square() - squared_RN.sum(dim=1)
    total_R = ((counts_RN @ value_NN) * counts_RN).sum(dim=1) - (squared_RN @ value_NN.diagonal())
    return torch.where(pairs_R > 0, total_R / pairs_R.clamp_min(1.0), alone)
