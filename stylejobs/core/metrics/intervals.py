"""Intervals of the measures that are no plain mean or share: those are `mean_interval` and `share_interval`.

A name that ends in `_gain` or `_ratio` is paired: both models saw the same images, and are resampled together.
"""

import torch
from torch import Tensor

from stylejobs.core.bootstrap import Interval, bootstrap_interval, count_draws, mean_of_pairs
from stylejobs.core.metrics.diversity import pairwise_distance
from stylejobs.core.metrics.sliced import sliced_wasserstein


def quantile_interval(values_N: Tensor, quantile: float = 0.05, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of a quantile over images, such as the worst twentieth.

    Args:
        values_N: one number an image.
        quantile: in [0, 1].
        confidence: in (0, 1).
        seed: of the draws.
    """
    values_N = values_N.to("cpu", torch.float64)
    return bootstrap_interval(
        lambda rows_RN: values_N[rows_RN].quantile(quantile, dim=1), (len(values_N),), confidence, seed=seed
    )


def quantile_gain(
    values_N: Tensor, baseline_N: Tensor, quantile: float = 0.05, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of quantile(values) - quantile(baseline), both of the same images."""
    pair_2N = _pair(values_N, baseline_N)

    def gain(rows_RN: Tensor) -> Tensor:
        own_R, other_R = pair_2N[:, rows_RN].quantile(quantile, dim=2)
        return own_R - other_R

    return bootstrap_interval(gain, (pair_2N.shape[1],), confidence, seed=seed)


def ratio_interval(values_N: Tensor, reference_M: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of mean(values) / mean(reference), of two independent sets of images.

    Args:
        values_N: one number an image, such as `nyquist_energy` of results.
        reference_M: the same of the style set; its mean is not 0.
        confidence: in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: a reference that is 0 on average: there is nothing to compare with.
    """
    values_N, reference_M = (values.to("cpu", torch.float64) for values in (values_N, reference_M))
    return bootstrap_interval(
        lambda x_RN, y_RM: values_N[x_RN].mean(dim=1) / reference_M[y_RM].mean(dim=1),
        (len(values_N), len(reference_M)),
        confidence,
        seed=seed,
    )


def paired_ratio(values_N: Tensor, baseline_N: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of mean(values) / mean(baseline), both of the same images."""
    pair_2N = _pair(values_N, baseline_N)

    def ratio(rows_RN: Tensor) -> Tensor:
        own_R, other_R = pair_2N[:, rows_RN].mean(dim=2)
        return own_R / other_R

    return bootstrap_interval(ratio, (pair_2N.shape[1],), confidence, seed=seed)


def sliced_interval(made_NE: Tensor, reference_ME: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of `sliced_wasserstein`, results and reference images resampled, centred: see `bootstrap_interval`."""
    return bootstrap_interval(
        lambda x_RN, y_RM: sliced_wasserstein(made_NE, reference_ME, x_RN, y_RM),
        (len(made_NE), len(reference_ME)),
        confidence,
        seed=seed,
        centred=True,
    )


def sliced_gain(
    made_NE: Tensor, baseline_NE: Tensor, reference_ME: Tensor, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of distance(baseline) - distance(made), centred: how much nearer to the reference; above 0 is better."""

    def gain(x_RN: Tensor, y_RM: Tensor) -> Tensor:
        other_R, own_R = (sliced_wasserstein(set_NE, reference_ME, x_RN, y_RM) for set_NE in (baseline_NE, made_NE))
        return other_R - own_R

    return bootstrap_interval(gain, _sizes(made_NE, baseline_NE, reference_ME), confidence, seed=seed, centred=True)


def sliced_ratio(
    made_NE: Tensor, baseline_NE: Tensor, reference_ME: Tensor, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of distance(made) / distance(baseline), centred; below 1 is better.

    What resamples add to both distances draws their ratio towards 1: without the shift, a gate from above would be
    passed by that alone.
    """

    def ratio(x_RN: Tensor, y_RM: Tensor) -> Tensor:
        own_R, other_R = (sliced_wasserstein(set_NE, reference_ME, x_RN, y_RM) for set_NE in (made_NE, baseline_NE))
        return own_R / other_R

    return bootstrap_interval(ratio, _sizes(made_NE, baseline_NE, reference_ME), confidence, seed=seed, centred=True)


def pairwise_interval(made_ND: Tensor, style_MD: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of `pairwise_distance` of results as a ratio to the style set's: 1 is as various, 0 is collapse."""
    made_NN, style_MM = (_distances(set_ND) for set_ND in (made_ND, style_MD))

    def ratio(x_RN: Tensor, y_RM: Tensor) -> Tensor:
        own_R, other_R = (
            mean_of_pairs(distance_NN, count_draws(rows_RN, len(distance_NN)))
            for distance_NN, rows_RN in ((made_NN, x_RN), (style_MM, y_RM))
        )
        return own_R / other_R

    return bootstrap_interval(ratio, (len(made_NN), len(style_MM)), confidence, seed=seed)


def pairwise_gain(
    made_ND: Tensor, baseline_ND: Tensor, style_MD: Tensor, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of (pairwise(made) - pairwise(baseline)) / pairwise(style): above 0 is more various."""
    _sizes(made_ND, baseline_ND, style_MD)
    made_NN, baseline_NN = (_distances(set_ND) for set_ND in (made_ND, baseline_ND))
    unit = pairwise_distance(style_MD).cpu()

    def gain(rows_RN: Tensor) -> Tensor:
        # The mean over pairs is linear in the distances, so the difference of two sets is one mean.
        return mean_of_pairs(made_NN - baseline_NN, count_draws(rows_RN, len(made_NN))) / unit

    return bootstrap_interval(gain, (len(made_NN),), confidence, seed=seed)


def _distances(set_ND: Tensor) -> Tensor:
    return torch.cdist(set_ND, set_ND).cpu()


def _pair(values_N: Tensor, baseline_N: Tensor) -> Tensor:
    """Both as float64 [2, N]."""
    if values_N.shape != baseline_N.shape or values_N.ndim != 1:
        raise ValueError(
            f"wanted a number for each of the same images; got {list(values_N.shape)} and {list(baseline_N.shape)}"
        )
    return torch.stack([values_N, baseline_N]).to("cpu", torch.float64)


def _sizes(made_ND: Tensor, baseline_ND: Tensor, reference_MD: Tensor) -> tuple[int, int]:
    if made_ND.shape != baseline_ND.shape or made_ND.shape[1:] != reference_MD.shape[1:]:
        raise ValueError(
            "wanted both models' results of the same images, described as the reference is; "
            f"got {list(made_ND.shape)}, {list(baseline_ND.shape)} and {list(reference_MD.shape)}"
        )
    return len(made_ND), len(reference_MD)
