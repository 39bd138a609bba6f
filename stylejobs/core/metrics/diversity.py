"""Whether results are as various as the style set: how much of it they cover, and how far apart they are.

Of sets of descriptors, for instance `mmd.describe`'s. What a generator's single batches look like: core/diversity.py.
"""

import torch
from torch import Tensor

from stylejobs.core.bootstrap import count_draws, mean_of_pairs
from stylejobs.core.mmd import RbfKernel


def panel_descriptors(kernel: RbfKernel, described_SND: Tensor) -> Tensor:
    """Descriptors of all networks side by side, every number standardised as the panel's kernel does.

    Args:
        kernel: fitted on the panel.
        described_SND: of `mmd.describe`.

    Returns:
        descriptors_ND, float64.
    """
    standard_SND = (described_SND - kernel.mean_S1D) / kernel.std_S1D
    return standard_SND.transpose(0, 1).flatten(1)


def coverage(candidate_ND: Tensor, reference_MD: Tensor, k: int = 5) -> Tensor:
    """Which reference images have a result in their neighbourhood: min over n of |r_m - c_n| <= radius of r_m.

    The radius is the distance of the reference image to its k-th nearest in the reference set, so a candidate does not
    move the ruler, and an outlier among the results covers nothing. The share of covered images is the measure. It
    grows with the number of results: compare sets of one size.

    Args:
        candidate_ND: descriptors of results.
        reference_MD: of real style images, M > k.
        k: neighbours.

    Returns:
        covered_M, bool.

    Raises:
        ValueError: too few reference images, or descriptors of another length.

    Source: Naeem, Oh, Uh, Choi & Yoo 2020, arXiv:2002.09797.
    """
    if candidate_ND.ndim != 2 or not 1 <= k < len(reference_MD) or candidate_ND.shape[1:] != reference_MD.shape[1:]:
        raise ValueError(
            f"wanted descriptors [N, D] and more than {k} references [M, D]; "
            f"got {list(candidate_ND.shape)} and {list(reference_MD.shape)}"
        )
    own_MM = torch.cdist(reference_MD, reference_MD).fill_diagonal_(torch.inf)
    radius_M = own_MM.kthvalue(k, dim=1).values
    return torch.cdist(reference_MD, candidate_ND).amin(dim=1) <= radius_M


def pairwise_distance(set_ND: Tensor, rows_RN: Tensor | None = None) -> Tensor:
    """Mean distance over pairs of different images; next to 0 for one image repeated.

    Args:
        set_ND: descriptors, N >= 2.
        rows_RN: int64, rows of R resamples, in which two draws of one image are no pair; all rows once by default.

    Returns:
        distance_R (R = 1 without resamples).
    """
    if set_ND.ndim != 2 or len(set_ND) < 2:
        raise ValueError(f"wanted descriptors [N >= 2, D], because distance is about pairs; got {list(set_ND.shape)}")
    return mean_of_pairs(torch.cdist(set_ND, set_ND), count_draws(rows_RN, len(set_ND)))
