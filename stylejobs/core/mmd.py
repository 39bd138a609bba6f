"""Style as a distance between two sets of images: kernel MMD on descriptors from random networks.

Describe each image once, build the kernels of a panel once, and every resample is a product of matrices:

    networks = build_networks()
    style_SMD = describe(networks, style_BCHW)          # the reference half of the style set
    held_SHD = describe(networks, held_out_BCHW)        # the other half: what a perfect result would score
    content_SND = describe(networks, content_BCHW)
    kernel = RbfKernel.fit(content_SND, style_SMD)
    identity, target = kernel.between(content_SND, style_SMD), kernel.between(held_SHD, style_SMD)
    candidate = kernel.between(describe(networks, stylized_BCHW), style_SMD)
    style_score(candidate, identity, target)            # Interval: 0 for unchanged contents, 1 for real style images

Do it twice: on the images as they are (raw) and on `colour_free` ones. A colour transfer alone wins the raw score, and
neither sees that the content is gone: read both beside `metrics.edge_cosine`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from stylejobs.core.backbone import Backbone, build_random_backbone
from stylejobs.core.bootstrap import Interval, bootstrap_interval, count_draws, mean_of_pairs
from stylejobs.core.luma import luma

_GREY_STD = 0.5
_MIN_STD = 1.0 / 127.5  # one grey level: a flatter image has no texture to stretch, only rounding
_BATCH = 32
# Without it, 32 of 500 panels of 250 images called two equal models different where 25 were promised; with it, 25. Of
# 200 panels of 500 images it is 9, and models a tenth apart are told in 183; with 1.1 in 175 only (tests/bench).
_WIDENING = 1.06


def build_networks(num_networks: int = 3) -> tuple[Backbone, ...]:
    """The random networks of this measure, seeds 0, 1, ...: the same weights everywhere.

    Distances on one random network depend on its seed, so three are averaged. Numbers of other networks, or of another
    number of them, cannot be compared.
    """
    return tuple(build_random_backbone(seed) for seed in range(num_networks))


def colour_free(image_BCHW: Tensor) -> Tensor:
    """Images without colour, brightness or contrast: luma, moved to mean 0 and standard deviation 0.5 each.

    Args:
        image_BCHW: float, RGB, [-1, 1].

    Returns:
        grey_BCHW, three equal channels, not clamped; an image flatter than one grey level stays nearly flat.
    """
    luma_B1HW = luma(image_BCHW)
    centred_B1HW = luma_B1HW - luma_B1HW.mean(dim=(2, 3), keepdim=True)
    std_B111 = centred_B1HW.square().mean(dim=(2, 3), keepdim=True).sqrt()
    return (centred_B1HW * (_GREY_STD / std_B111.clamp_min(_MIN_STD))).expand_as(image_BCHW)


@torch.no_grad()
def describe(networks: tuple[Backbone, ...], image_BCHW: Tensor) -> Tensor:
    """Style descriptors: means and standard deviations over places of every channel of the style layers.

    Args:
        networks: from `build_networks`, S of them, on the images' device.
        image_BCHW: float, [-1, 1] or `colour_free`, at least 32 px; sizes must agree within what is compared.

    Returns:
        descriptors_SBD, float64. Batches join along dim 1.
    """
    of_networks = []
    for network in networks:
        batches = []
        for part_BCHW in image_BCHW.split(_BATCH):
            part_BCHW = part_BCHW.contiguous(memory_format=torch.channels_last)  # twice as fast on CPUs
            features = network(part_BCHW, network.style_layers).values()
            pairs = [torch.std_mean(map_BCHW.double(), dim=(2, 3), correction=0) for map_BCHW in features]
            batches.append(torch.cat([moment_BC for pair in pairs for moment_BC in pair], dim=1))
        of_networks.append(torch.cat(batches))
    return torch.stack(of_networks)


class Kernels(NamedTuple):
    """Kernel values within and between two sets x (N images) and y (M images), float64."""

    xx_NN: Tensor
    xy_NM: Tensor
    yy_MM: Tensor


class RbfKernel(NamedTuple):
    """k(x, y) = mean over networks of exp(-|x - y|^2 / (2 width^2)) on standardised descriptors.

    A mean of kernels is a kernel, so one matrix stands for all networks. Means, deviations and widths are of one
    panel's contents and styles, never of a candidate: all candidates of a panel are measured with the same ruler.
    """

    mean_S1D: Tensor
    std_S1D: Tensor
    width_S11: Tensor

    @classmethod
    def fit(cls, content_SND: Tensor, style_SMD: Tensor) -> "RbfKernel":
        """The panel's ruler: every number of a descriptor has variance 1, the width is the median distance.

        Source: Gretton, Borgwardt, Rasch, Scholkopf & Smola 2012, JMLR 13, section 8 (median heuristic).
        """
        both_SND = torch.cat([content_SND, style_SMD], dim=1)
        std_S1D, mean_S1D = torch.std_mean(both_SND, dim=1, keepdim=True, correction=0)
        # A number that never moves says nothing; dividing by its rounding would say it very loudly.
        std_S1D = torch.where(std_S1D > 1e-9, std_S1D, torch.inf)
        widths = [torch.pdist(set_ND).median() for set_ND in (both_SND - mean_S1D) / std_S1D]
        width_S11 = torch.stack(widths)[:, None, None]
        if not (width_S11 > 0).all():
            raise ValueError("more than half of the panel's images are equal: give contents and styles that differ")
        return cls(mean_S1D, std_S1D, width_S11)

    def between(self, x_SND: Tensor, y_SMD: Tensor) -> Kernels:
        """Kernels of two sets of descriptors of the same networks."""
        if x_SND.shape[::2] != y_SMD.shape[::2] or x_SND.shape[::2] != self.mean_S1D.shape[::2]:
            raise ValueError(
                f"wanted descriptors of the {len(self.mean_S1D)} networks of length {self.mean_S1D.shape[-1]} that "
                f"this kernel was fitted on; got {list(x_SND.shape)} and {list(y_SMD.shape)}"
            )
        x_SND, y_SMD = ((set_SND - self.mean_S1D) / self.std_S1D for set_SND in (x_SND, y_SMD))
        return Kernels(self._of(x_SND, x_SND), self._of(x_SND, y_SMD), self._of(y_SMD, y_SMD))

    def _of(self, x_SND: Tensor, y_SMD: Tensor) -> Tensor:
        squared_SNM = torch.cdist(x_SND, y_SMD).square()
        return torch.exp(-squared_SNM / (2.0 * self.width_S11.square())).mean(dim=0)


def mmd2(kernels: Kernels, x_RN: Tensor | None = None, y_RM: Tensor | None = None) -> Tensor:
    """Unbiased squared maximum mean discrepancy: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), x' not x, y' not y.

    0 on average for two draws from one distribution, hence also below 0.

    Args:
        kernels: of the sets x and y.
        x_RN: int64, rows of x for each of R resamples; all rows once by default.
        y_RM: the same for y.

    Returns:
        mmd2_R, float64 (R = 1 without resamples).

    Differs from paper: in a resample, two draws of one image are no pair; otherwise each repeated image would look
    like a tight cluster and every resample would be biased upwards.
    Source: Gretton et al. 2012, JMLR 13:723-773, equation 3.
    """
    if min(kernels.xy_NM.shape) < 2:
        raise ValueError(f"wanted at least 2 images on both sides; got {list(kernels.xy_NM.shape)}")
    x_RN, y_RM = (
        count_draws(rows, len(kernel)).to(kernel) for rows, kernel in ((x_RN, kernels.xx_NN), (y_RM, kernels.yy_MM))
    )
    within_R = mean_of_pairs(kernels.xx_NN, x_RN, alone=1.0) + mean_of_pairs(kernels.yy_MM, y_RM, alone=1.0)
    between_R = ((x_RN @ kernels.xy_NM) * y_RM).sum(dim=1) / (x_RN.sum(dim=1) * y_RM.sum(dim=1))
    return within_R - 2.0 * between_R


def rebase(value: Tensor, identity: Tensor, target: Tensor) -> Tensor:
    """A distance as the share of the gap that it closes: (identity - value) / (identity - target).

    0 for the panel's contents left alone, 1 for real style images, below 0 for what moved away. Zero must be the
    identity of the same panel: other photographs can score half of the colour-free gap by chance.

    Raises:
        ValueError: contents are no farther from the style set than other style images are: there is no gap to close.

    >>> rebase(torch.tensor(0.1), torch.tensor(0.4), torch.tensor(0.0)).item()
    0.75
    """
    if not (identity > target).all():
        raise ValueError(
            f"contents are no farther from the style set ({identity.min().item():.4g}) than real style images are "
            f"({target.max().item():.4g}): give more images, or a style set that differs in this measure"
        )
    return (identity - value) / (identity - target)


def style_score(
    candidate: Kernels, identity: Kernels, target: Kernels, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The rebased distance of a candidate, with its bootstrap interval; higher is nearer to the style set.

    `style_gain` over the identity: see there.
    """
    return style_gain(candidate, identity, identity, target, seed, confidence)


def style_gain(
    candidate: Kernels,
    baseline: Kernels,
    identity: Kernels,
    target: Kernels,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """How much of the gap a candidate closes beyond a baseline: (baseline - candidate) / (identity - target).

    Paired: candidate and baseline are resampled together, over contents and over reference style images (1,000
    resamples). So the interval answers "is it better than the baseline?" far more sharply than two scores do.
    The gap is the whole panel's in every resample: it is the unit, common to all candidates, and a small one would
    make ratios that mean nothing.

    Differs from the percentile bootstrap by `_WIDENING`, which holds its promise where panels are a few hundred images.

    Args:
        candidate: stylized contents against the style set, rows in the contents' order.
        baseline: the same contents stylized otherwise, against the same style set.
        identity: the contents themselves, against the same style set.
        target: other real style images, against the same style set.
        seed: of the draws; the same seed and panel for every candidate.
        confidence: in (0, 1).

    Raises:
        ValueError: not one panel, or no gap (see `rebase`).
    """
    shape = tuple(candidate.xy_NM.shape)
    others = [tuple(kernels.xy_NM.shape) for kernels in (baseline, identity, target)]
    if others[0] != shape or others[1] != shape or others[2][1] != shape[1]:
        raise ValueError(
            "wanted candidate, baseline and identity of the same contents, and all against the same style images; "
            f"got {shape}, {others[0]}, {others[1]} and target {others[2]}"
        )
    whole, floor = mmd2(identity), mmd2(target)
    return bootstrap_interval(
        lambda x_RN, y_RM: rebase(whole + mmd2(candidate, x_RN, y_RM) - mmd2(baseline, x_RN, y_RM), whole, floor),
        shape,
        confidence,
        seed=seed,
    ).widened(_WIDENING)
