"""Measures that need trained weights, which come in as state dicts: LPIPS, Frechet distances, ArtFID. No downloads."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stylejobs.core.backbone import Backbone, build_backbone
from stylejobs.core.bootstrap import Interval, bootstrap_interval
from stylejobs.core.choices import choose

# trunk, by torchvision's name -> the layers that are compared, from shallow to deep
_LPIPS_LAYERS = {
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}
_BATCH = 16
_EPSILON = 1e-10  # added to norms, as in the authors' code


class Lpips(nn.Module):
    """Learned perceptual distance: sum over layers of the mean over places of sum_c w_c (a_c / |a| - b_c / |b|)^2.

    a and b are the features of two images at one place, the norm is over channels. Built by `build_lpips`.

    Source: Zhang, Isola, Efros, Shechtman & Wang 2018, arXiv:1801.03924, equation 1; weights of version 0.1, called
    "lin".
    """

    def __init__(self, trunk: Backbone, heads: list[Tensor]):
        super().__init__()
        self._trunk, self._layers = trunk, _LPIPS_LAYERS[trunk.architecture]
        self._heads = nn.ParameterList(nn.Parameter(head_1C11, requires_grad=False) for head_1C11 in heads)

    @torch.no_grad()
    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """How different two images look, row by row.

        Args:
            a_BCHW: float, RGB, [-1, 1], at least 32 px.
            b_BCHW: same shape.

        Returns:
            distance_B, float32, >= 0; 0 for equal images.
        """
        if a_BCHW.shape != b_BCHW.shape:
            raise ValueError(f"wanted two batches of one shape; got {list(a_BCHW.shape)} and {list(b_BCHW.shape)}")
        rows = zip(a_BCHW.split(_BATCH), b_BCHW.split(_BATCH), strict=True)
        return torch.cat([self._compare(a_part, b_part) for a_part, b_part in rows])

    def _compare(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        features = self._trunk(torch.cat([a_BCHW, b_BCHW]).float(), self._layers)
        distance_B = a_BCHW.new_zeros(len(a_BCHW), dtype=torch.float32)
        for head_1C11, layer in zip(self._heads, self._layers, strict=True):
            norm_2B1HW = torch.linalg.vector_norm(features[layer], dim=1, keepdim=True)
            unit_a, unit_b = (features[layer] / (norm_2B1HW + _EPSILON)).chunk(2)
            distance_B += ((unit_a - unit_b).square() * head_1C11).sum(dim=1).mean(dim=(1, 2))
        return distance_B


def build_lpips(trunk: str, trunk_weights: Mapping[str, Tensor], head_weights: Mapping[str, Tensor]) -> Lpips:
    """LPIPS of a trunk's and its heads' weights.

    Args:
        trunk: "alexnet", the paper's default for judging, or "vgg16".
        trunk_weights: torchvision's ImageNet weights of it; with others the number is not LPIPS.
        head_weights: the `lpips` package's file of version 0.1 for this trunk: `lin0.model.1.weight` to `lin4...`.

    Raises:
        ValueError: no such trunk, or weights that are not the trunk's or not its heads'.
    """
    layers = choose("trunk of LPIPS", _LPIPS_LAYERS, trunk)
    backbone = build_backbone(trunk, trunk_weights, wide_layers=False)
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 32, 32), layers)
    heads, problems = [], []
    for number, layer in enumerate(layers):
        key, shape = f"lin{number}.model.1.weight", (1, maps[layer].shape[1], 1, 1)
        found = head_weights.get(key)
        if found is None or tuple(found.shape) != shape:
            problems.append(f"{key} {list(shape)}: {'missing' if found is None else f'got {list(found.shape)}'}")
        else:
            heads.append(found.detach().to(torch.float32, copy=True))
    if problems:
        raise ValueError(
            f"wanted the {len(layers)} linear heads of LPIPS 0.1 for {trunk}; {'; '.join(problems)}; give the lpips "
            "package's file for this trunk"
        )
    return Lpips(backbone, heads)


def frechet_distance(x_ND: Tensor, y_MD: Tensor, x_RN: Tensor | None = None, y_RM: Tensor | None = None) -> Tensor:
    """Squared 2-Wasserstein distance of the Gaussians of two sets: |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2).

    FID if the features are those of the Inception network of Heusel 2017; over another network its name belongs to the
    number. It falls with the number of images, by more than models differ: compare equal numbers only, for resamples
    are farther apart than the sets.

    The root: with centred features A / sqrt(n - 1), one an image and row, S_x = A^T A, and the trace of (S_x S_y)^1/2
    is the sum of the singular values of A B^T: no root of a matrix, and few images make it cheap. Float64.

    Args:
        x_ND: features, N >= 2.
        y_MD: of the other set.
        x_RN: int64, rows of x for each of R resamples; all rows once by default.
        y_RM: the same for y.

    Returns:
        distance_R, float64; at equal sets 0 up to rounding, which may be negative.

    Raises:
        ValueError: fewer than two images, or features of another length.

    Source: Heusel, Ramsauer, Unterthiner, Nessler & Hochreiter 2017, arXiv:1706.08500; Dowson & Landau
    1982, doi:10.1016/0047-259X(82)90077-X.
    """
    if x_ND.ndim != 2 or y_MD.ndim != 2 or min(len(x_ND), len(y_MD)) < 2 or x_ND.shape[1] != y_MD.shape[1]:
        raise ValueError(
            f"wanted features [N >= 2, D] and [M >= 2, D] of one network; got {list(x_ND.shape)}, {list(y_MD.shape)}"
        )
    x_ND, y_MD = x_ND.double(), y_MD.double()
    x_RN = torch.arange(len(x_ND))[None] if x_RN is None else x_RN
    y_RM = torch.arange(len(y_MD))[None] if y_RM is None else y_RM
    return torch.stack([_frechet(x_ND[x_N], y_MD[y_M]) for x_N, y_M in zip(x_RN, y_RM, strict=True)])


def _frechet(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    squared, factors = (x_ND.mean(dim=0) - y_MD.mean(dim=0)).square().sum(), []
    for set_ND in (x_ND, y_MD):
        centred_ND = (set_ND - set_ND.mean(dim=0)) / (len(set_ND) - 1) ** 0.5
        squared = squared + centred_ND.square().sum()
        if centred_ND.shape[0] > centred_ND.shape[1]:  # the triangle of QR has the same covariance, in fewer rows
            centred_ND = torch.linalg.qr(centred_ND, mode="r").R
        factors.append(centred_ND)
    return squared - 2.0 * torch.linalg.svdvals(factors[0] @ factors[1].T).sum()


def frechet_interval(
    made_ND: Tensor, style_MD: Tensor, confidence: float = 0.95, num_resamples: int = 200, seed: int = 0
) -> Interval:
    """Interval of `frechet_distance`, both sets resampled, centred: see `bootstrap_interval`."""
    return bootstrap_interval(
        lambda x_RN, y_RM: frechet_distance(made_ND, style_MD, x_RN, y_RM),
        (len(made_ND), len(style_MD)),
        confidence,
        num_resamples,
        seed,
        centred=True,
    )


def frechet_gain(
    made_ND: Tensor,
    baseline_ND: Tensor,
    style_MD: Tensor,
    confidence: float = 0.95,
    num_resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """Interval of distance(baseline) - distance(made), of the same contents, centred: above 0 is better."""

    def gain(x_RN: Tensor, y_RM: Tensor) -> Tensor:
        other_R, own_R = (frechet_distance(set_ND, style_MD, x_RN, y_RM) for set_ND in (baseline_ND, made_ND))
        return other_R - own_R

    return bootstrap_interval(gain, (len(made_ND), len(style_MD)), confidence, num_resamples, seed, centred=True)


def artfid(lpips: Tensor, frechet: Tensor) -> Tensor:
    """(1 + LPIPS) * (1 + FID): lost content and missed style in one number, 1 at best.

    Args:
        lpips: mean over images of `Lpips` between sources and results.
        frechet: `frechet_distance` of results and style set.

    Source: Wright & Ommer 2022, arXiv:2207.12280.
    Differs from paper: theirs is of an Inception trained on artworks; with another network its name belongs to the
    number.

    >>> artfid(torch.tensor(0.5), torch.tensor(1.0)).item()
    3.0
    """
    return (1.0 + lpips) * (1.0 + frechet)


def artfid_interval(
    lpips_N: Tensor,
    made_ND: Tensor,
    style_MD: Tensor,
    confidence: float = 0.95,
    num_resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """Interval of `artfid`: results are resampled with their LPIPS, style images apart, centred."""
    if len(lpips_N) != len(made_ND):
        raise ValueError(f"wanted LPIPS and features of the same results; got {len(lpips_N)} and {len(made_ND)}")
    lpips_N = lpips_N.to("cpu", torch.float64)
    return bootstrap_interval(
        lambda x_RN, y_RM: artfid(lpips_N[x_RN].mean(dim=1), frechet_distance(made_ND, style_MD, x_RN, y_RM)),
        (len(made_ND), len(style_MD)),
        confidence,
        num_resamples,
        seed,
        centred=True,
    )
