"""Content match: how much of a style an image already has, and so how strongly it should be stylized.

    strength = clip(1 - cos(s(x), s_Y), 0, 1)

s is a style embedding: statistics of colour and texture that forget where things are, computed without a network and
measured from the mean of the content domain in units of its spread. s_Y is the mean embedding of the style domain. A
typical content image is as likely to lie on either side of s_Y, so its cosine is near 0 and its strength near 1; an
image that already looks like the style has a cosine towards 1 and is left alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EMBEDDING_LENGTH = 33
"""D of `embed`."""

_SIDE_PX = 96
_NUM_SCALES = 4
_MIN_STD = 1e-2
_MIN_BAND_STD = 1e-3
_MAX_DEVIATION = 3.0


@dataclass(frozen=True)
class Match:
    """A fitted content match.

    Attributes:
        origin_D: mean embedding of the content domain, float32.
        whitening_DD: symmetric, float32: (e - origin) @ whitening has about unit variance and no correlations on the
            content domain.
        targets: s_Y of each style, whitened, float32 [D].
    """

    origin_D: Tensor
    whitening_DD: Tensor
    targets: dict[str, Tensor]

    def __post_init__(self) -> None:
        length = EMBEDDING_LENGTH
        shapes = [self.origin_D.shape == (length,), self.whitening_DD.shape == (length, length)]
        shapes += [target_D.shape == (length,) for target_D in self.targets.values()]
        if not all(shapes):
            raise ValueError(f"wanted an origin and targets of {length} numbers, and a square whitening")

    def whitened(self, embedding_BD: Tensor) -> Tensor:
        """s(x) of embeddings: [B, D], float32."""
        return (embedding_BD.float() - self.origin_D) @ self.whitening_DD

    def strength(self, embedding_BD: Tensor, style: str) -> Tensor:
        """clip(1 - cos(s(x), s_Y), 0, 1) of each row: strength_B, float32. KeyError: no such target."""
        cosine_B = F.cosine_similarity(self.whitened(embedding_BD), self.targets[style][None], dim=1)
        return (1.0 - cosine_B).clamp(0.0, 1.0)

    def with_targets(self, targets: Mapping[str, Tensor]) -> "Match":
        """The same content domain with other styles."""
        return Match(self.origin_D, self.whitening_DD, dict(targets))


@torch.no_grad()
def fit_match(content: Iterable[Tensor], styles: Mapping[str, Iterable[Tensor]]) -> Match:
    """Fits the content match to a content domain and to style domains.

    The covariance of the content domain's embeddings, scaled to unit variances, is shrunk towards the identity:
    C = (1 - a) corr + a I, a = D / (D + n), so that few images give plain division by the spread, many give whitening.

    Args:
        content: batches image_BCHW, float, [-1, 1], of any sizes; a hundred images or more in all, two at least. Whole
            images, not crops: a crop has other statistics.
        styles: name -> batches of the style domain's images, one image at least.

    Raises:
        ValueError: too few images, or an embedding that is not finite.
    """
    content_ND = _embed_all("the content domain", content, 2).double()
    origin_D = content_ND.mean(dim=0)
    num_images, length = content_ND.shape
    scale_D = content_ND.std(dim=0).clamp_min(1e-3)
    standard_ND = (content_ND - origin_D) / scale_D
    share = length / (length + num_images)
    correlation_DD = (1.0 - share) * standard_ND.T @ standard_ND / (num_images - 1)
    values_D, vectors_DD = torch.linalg.eigh(correlation_DD + share * torch.eye(length, dtype=torch.float64))
    root_DD = vectors_DD @ torch.diag(values_D.rsqrt()) @ vectors_DD.T
    bare = Match(origin_D.float(), (root_DD / scale_D[:, None]).float().contiguous(), {})
    return bare.with_targets({name: style_target(bare, images, name) for name, images in styles.items()})


@torch.no_grad()
def style_target(match: Match, style: Iterable[Tensor], name: str = "style") -> Tensor:
    """s_Y: the mean of s over the images of a style domain, float32 [D]. Raises ValueError when there are none."""
    return match.whitened(_embed_all(f"style {name!r}", style, 1)).mean(dim=0)


@torch.no_grad()
def embed(image_BCHW: Tensor) -> Tensor:
    """Style embedding: 33 statistics of colour and texture, the same for every size of a picture, about.

    The picture is scaled to a short side of 96 px and to opponent colours: grey (R + G + B) / 3, red-green (R - G) / 2,
    blue-yellow (R + G - 2B) / 4. Then:

        means, log deviations, correlations and skewness of the channels      12
        mean log colourfulness                                                 1
        four octaves, each: log deviation of the band-pass part of every
        channel relative to the channel's; mean |band| / deviation of grey
        (sparse edges or even texture); coherence of the local orientation
        of grey (long strokes or grain)                                       20

    Args:
        image_BCHW: float, RGB, [-1, 1], any H, W >= 1. Detail finer than 1/96 of the short side has no influence, and
            a smaller picture has none to give.

    Returns:
        embedding_BD, float32, D = 33; a row depends on that row alone.

    Source: Reinhard, Ashikhmin, Gooch & Shirley 2001, doi:10.1109/38.946629 (colour moments); Portilla & Simoncelli
    2000, doi:10.1023/A:1026553619983 (statistics of bands for texture); Bigun & Granlund 1987 (coherence).
    Differs from papers: a Laplacian pyramid in place of a steerable one, and few of its statistics: enough to tell
    paintings from photographs, not to make them.

    >>> embed(torch.zeros(2, 3, 5, 7)).shape
    torch.Size([2, 33])
    """
    if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
        raise ValueError(f"wanted a float batch [B, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    opponent_BCHW = _to_opponent(_to_reference_size(image_BCHW.float()))
    mean_BC = opponent_BCHW.mean(dim=(2, 3))
    std_BC = _std(opponent_BCHW, _MIN_STD)
    statistics = [mean_BC, std_BC.log(), *_colour(opponent_BCHW, mean_BC, std_BC)]
    for _ in range(_NUM_SCALES):
        smooth_BCHW = _smooth(opponent_BCHW)
        band_BCHW = opponent_BCHW - smooth_BCHW
        band_std_BC = _std(band_BCHW, _MIN_BAND_STD)
        statistics += [
            band_std_BC.log() - std_BC.log(),
            band_BCHW[:, :1].abs().mean(dim=(2, 3)) / band_std_BC[:, :1],
            _coherence(opponent_BCHW[:, :1]),
        ]
        opponent_BCHW = smooth_BCHW[..., ::2, ::2]
    return torch.cat(statistics, dim=1)


def _embed_all(place: str, batches: Iterable[Tensor], at_least: int) -> Tensor:
    embeddings = [embed(image_BCHW.cpu()) for image_BCHW in batches]
    num_images = sum(len(embedding_BD) for embedding_BD in embeddings)
    if num_images < at_least:
        raise ValueError(f"{place}: wanted {at_least} image(s) or more to fit a content match; got {num_images}")
    embedding_ND = torch.cat(embeddings)
    if not embedding_ND.isfinite().all():
        raise ValueError(f"{place}: an image holds NaN or infinity; wanted values in [-1, 1]")
    return embedding_ND


def _to_reference_size(image_BCHW: Tensor) -> Tensor:
    height, width = image_BCHW.shape[-2:]
    factor = _SIDE_PX / min(height, width)
    size = (round(height * factor), round(width * factor))
    return F.interpolate(image_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)


def _to_opponent(image_BCHW: Tensor) -> Tensor:
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(dim=1)
    grey_BHW = (red_BHW + green_BHW + blue_BHW) / 3.0
    return torch.stack([grey_BHW, (red_BHW - green_BHW) / 2.0, (red_BHW + green_BHW - 2.0 * blue_BHW) / 4.0], dim=1)


def _colour(opponent_BCHW: Tensor, mean_BC: Tensor, std_BC: Tensor) -> list[Tensor]:
    """Correlations, skewness (of deviations cut at 3, so that one lamp does not decide) and colourfulness."""
    standard_BCHW = (opponent_BCHW - mean_BC[..., None, None]) / std_BC[..., None, None]
    grey_BHW, red_green_BHW, blue_yellow_BHW = standard_BCHW.unbind(dim=1)
    pairs = [(grey_BHW, red_green_BHW), (grey_BHW, blue_yellow_BHW), (red_green_BHW, blue_yellow_BHW)]
    correlation_BC = torch.stack([(a_BHW * b_BHW).mean(dim=(1, 2)) for a_BHW, b_BHW in pairs], dim=1)
    skewness_BC = standard_BCHW.clamp(-_MAX_DEVIATION, _MAX_DEVIATION).pow(3).mean(dim=(2, 3))
    chroma_BHW = (opponent_BCHW[:, 1:].square().sum(dim=1) + _MIN_STD**2).sqrt()
    return [correlation_BC, skewness_BC, chroma_BHW.log().mean(dim=(1, 2))[:, None]]


def _std(image_BCHW: Tensor, floor: float) -> Tensor:
    """Standard deviation over the pixels, [B, C]; the floor keeps flat pictures finite."""
    return (image_BCHW.var(dim=(2, 3), correction=0) + floor**2).sqrt()


def _coherence(grey_B1HW: Tensor) -> Tensor:
    """Mean of (l1 - l2) / (l1 + l2) of the structure tensor's eigenvalues, [B, 1]: 0 no direction, 1 all parallel."""
    padded_B1HW = F.pad(grey_B1HW, (1, 1, 1, 1), mode="replicate")
    dx_B1HW = padded_B1HW[..., 1:-1, 2:] - padded_B1HW[..., 1:-1, :-2]
    dy_B1HW = padded_B1HW[..., 2:, 1:-1] - padded_B1HW[..., :-2, 1:-1]
    tensor_BCHW = torch.cat([dx_B1HW.square(), dy_B1HW.square(), dx_B1HW * dy_B1HW], dim=1)
    xx_BHW, yy_BHW, xy_BHW = _smooth(_smooth(tensor_BCHW)).unbind(dim=1)
    difference_BHW = ((xx_BHW - yy_BHW).square() + 4.0 * xy_BHW.square()).sqrt()
    return (difference_BHW / (xx_BHW + yy_BHW + _MIN_STD**2)).mean(dim=(1, 2))[:, None]


def _smooth(image_BCHW: Tensor) -> Tensor:
    """Binomial low pass [1 4 6 4 1] / 16 along both axes, edges repeated; slices are faster than a grouped conv."""
    for _ in range(2):
        padded_BCHW = F.pad(image_BCHW, (1, 1, 1, 1), mode="replicate")
        rows_BCHW = padded_BCHW[..., :-2, :] + 2.0 * padded_BCHW[..., 1:-1, :] + padded_BCHW[..., 2:, :]
        image_BCHW = (rows_BCHW[..., :-2] + 2.0 * rows_BCHW[..., 1:-1] + rows_BCHW[..., 2:]) / 16.0
    return image_BCHW
