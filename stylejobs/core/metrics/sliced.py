"""Textures scale by scale: sliced Wasserstein distance between patches of two sets of images, per Laplacian level.

Workers describe images, any machine its own; one joins them:

    patches = laplacian_patches(image_BCHW)                       # a tuple, level 0 is the finest
    described = [project_patches(patches_BKD) for patches_BKD in patches]
    ruler = SlicedRuler.fit(content_NKP, style_MKP)               # of one level
    made, real = ruler.embed(candidate_NKP), ruler.embed(style_MKP)
    sliced_wasserstein(made, real)                                # and of resamples: bootstrap_interval
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.bootstrap import count_draws

_PATCH_PX = 7
_COARSEST_PX = 16
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
_BINS = 64
_DIRECTIONS = 64


@torch.no_grad()
def laplacian_patches(image_BCHW: Tensor, seed: int = 0, num_patches: int = 64) -> tuple[Tensor, ...]:
    """Patches of 7x7 px out of each level of a Laplacian pyramid.

    A level is an image less its blurred, halved and enlarged self, the coarsest one is what is left; there are as many
    as leave 16 px (4 of an image of 128 px, 5 of 256 px). The filter is the binomial one of 5 px, mirrored at borders.

    Args:
        image_BCHW: float, RGB, [-1, 1], at least 16 px; sizes must agree within what is compared.
        seed: of the places, the same in every image: one seed for all sets that are compared.
        num_patches: K, patches an image and level.

    Returns:
        patches_BKD of each level from the finest on, float32, D = 3 * 7 * 7.

    Raises:
        ValueError: images that are too small.

    Source: Burt & Adelson 1983, doi:10.1109/TCOM.1983.1095851; Karras, Aila, Laine & Lehtinen 2018, arXiv:1710.10196,
    section 5.
    Differs from paper: places are the same in every image, not drawn for each; colours are not normalised, since a
    set that is normalised by itself hides a lost contrast.
    """
    if image_BCHW.ndim != 4 or min(image_BCHW.shape[-2:]) < _COARSEST_PX or num_patches < 1:
        raise ValueError(
            f"wanted images [B, C, H, W] of at least {_COARSEST_PX} px and at least one patch; "
            f"got {list(image_BCHW.shape)} and {num_patches}"
        )
    rng = torch.Generator().manual_seed(seed)
    levels = []
    rest_BCHW = image_BCHW.float()
    while min(rest_BCHW.shape[-2:]) >= 2 * _COARSEST_PX:
        smaller_BCHW = _smooth(rest_BCHW)[:, :, ::2, ::2]
        levels.append(_take(rest_BCHW - _enlarge(smaller_BCHW, rest_BCHW.shape), num_patches, rng))
        rest_BCHW = smaller_BCHW
    return (*levels, _take(rest_BCHW, num_patches, rng))


@torch.no_grad()
def project_patches(patches_BKD: Tensor, seed: int = 0) -> Tensor:
    """Patches on 64 random directions, uniform on the sphere: what is left of them for `SlicedRuler`, half the bytes.

    Args:
        patches_BKD: float.
        seed: of the directions: one for all sets that are compared.

    Returns:
        projected_BKP, float32, P = 64.

    Source: Rabin, Peyre, Delon & Bernot 2011, doi:10.1007/978-3-642-24785-9_37.
    """
    rng = torch.Generator().manual_seed(seed)
    directions_DP = F.normalize(torch.randn(patches_BKD.shape[-1], _DIRECTIONS, generator=rng), dim=0)
    return patches_BKD.float() @ directions_DP.to(patches_BKD.device)


class SlicedRuler(NamedTuple):
    """Turns each image's projected patches into a vector, so that a mean of vectors stands for a set.

    On a line, W_1 = integral of |F_x(t) - F_y(t)| dt, and F of a set is the mean of its images' F. An image's vector
    holds the integrals of its F over bins; W_1 is then the L_1 distance of two sets' mean vectors, exactly, up to bins
    inside which F_x - F_y changes its sign: it is too small by less than a hundredth of what photographs and paintings
    differ by. A resample costs a product of matrices in place of a sort.

    Bins, and the unit, are of one panel's contents and styles, never of a candidate: one ruler for all candidates.
    """

    edges_EP: Tensor
    unit: float

    @classmethod
    def fit(cls, content_NKP: Tensor, style_MKP: Tensor) -> "SlicedRuler":
        """64 bins of equal mass in both sets together for each direction; the unit is the styles' standard deviation.

        Raises:
            ValueError: style images of one colour, which have no unit.
        """
        style_KP = style_MKP.flatten(0, 1)
        sorted_KP = torch.cat([content_NKP.flatten(0, 1), style_KP]).sort(dim=0).values
        places = torch.linspace(0, len(sorted_KP) - 1, _BINS + 1).round().long()[1:-1]
        unit = style_KP.double().var(dim=0, correction=0).mean().sqrt().item()
        if not unit > 0.0:
            raise ValueError("the style images' patches are all equal: give a style set with textures")
        return cls(sorted_KP[places.to(sorted_KP.device)], unit)

    def embed(self, projected_NKP: Tensor) -> Tensor:
        """A vector for each image: [N, 64 P], float32; what `sliced_wasserstein` compares."""
        if projected_NKP.ndim != 3 or projected_NKP.shape[-1] != self.edges_EP.shape[-1]:
            raise ValueError(
                f"wanted projected patches [N, K, {self.edges_EP.shape[-1]}]; got {list(projected_NKP.shape)}"
            )
        # The integral over [a, b] of 1[z <= t] is b - a - (clamp(z, a, b) - a); what is common to all images goes.
        bins = [(projected_NKP.minimum(self.edges_EP[0]) - self.edges_EP[0]).mean(dim=1)]
        for low_P, high_P in zip(self.edges_EP[:-1], self.edges_EP[1:], strict=True):
            bins.append((projected_NKP.maximum(low_P).minimum(high_P) - low_P).mean(dim=1))
        bins.append((projected_NKP.maximum(self.edges_EP[-1]) - self.edges_EP[-1]).mean(dim=1))
        return torch.cat(bins, dim=1) / (self.unit * projected_NKP.shape[2])


def sliced_wasserstein(x_NE: Tensor, y_ME: Tensor, x_RN: Tensor | None = None, y_RM: Tensor | None = None) -> Tensor:
    """Sliced 1-Wasserstein distance of the patches of two sets: mean over directions of W_1, in the ruler's unit.

    Args:
        x_NE: `SlicedRuler.embed` of one set.
        y_ME: of the other, by the same ruler.
        x_RN: int64, rows of x for each of R resamples; all rows once by default.
        y_RM: the same for y.

    Returns:
        distance_R, float32, >= 0 (R = 1 without resamples). 0 for equal sets; other images of the same kind have some
        too, which falls with the number of images, and resamples have more of it than the sets themselves.

    Source: Rabin et al. 2011, doi:10.1007/978-3-642-24785-9_37; Karras et al. 2018, arXiv:1710.10196, section 5.
    Differs from paper: integrals over 64 bins (see `SlicedRuler`); the unit is the styles' standard deviation.
    """
    if x_NE.ndim != 2 or y_ME.ndim != 2 or x_NE.shape[1] != y_ME.shape[1]:
        raise ValueError(f"wanted images embedded by one ruler; got {list(x_NE.shape)} and {list(y_ME.shape)}")
    means = (
        (count_draws(rows, len(set_NE)).to(set_NE) / len(set_NE)) @ set_NE
        for rows, set_NE in ((x_RN, x_NE), (y_RM, y_ME))
    )
    x_RE, y_RE = means
    return (x_RE - y_RE).abs().sum(dim=1)


def _take(level_BCHW: Tensor, num_patches: int, rng: torch.Generator) -> Tensor:
    """Patches at random places, the same in each image: [B, K, C * 7 * 7]."""
    tops_K, lefts_K = (
        torch.randint(side - _PATCH_PX + 1, (num_patches,), generator=rng).to(level_BCHW.device)
        for side in level_BCHW.shape[-2:]
    )
    windows_BCHWhw = level_BCHW.unfold(2, _PATCH_PX, 1).unfold(3, _PATCH_PX, 1)
    return windows_BCHWhw[:, :, tops_K, lefts_K].transpose(1, 2).flatten(2)


def _smooth(image_BCHW: Tensor, gain: float = 1.0) -> Tensor:
    channels = image_BCHW.shape[1]
    window = image_BCHW.new_tensor(_BINOMIAL) * (gain**0.5 / 16.0)
    padded_BCHW = F.pad(image_BCHW, (2, 2, 2, 2), mode="reflect")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padded_BCHW = F.conv2d(padded_BCHW, window.reshape(shape).expand(channels, -1, -1, -1), groups=channels)
    return padded_BCHW


def _enlarge(image_BCHW: Tensor, shape: torch.Size) -> Tensor:
    """Twice the size: zeros between the pixels, then the filter, which has to fill three of four."""
    spread_BCHW = image_BCHW.new_zeros(shape)
    spread_BCHW[:, :, ::2, ::2] = image_BCHW
    return _smooth(spread_BCHW, gain=4.0)
