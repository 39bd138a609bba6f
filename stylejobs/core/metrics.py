"""Measures of results: numbers for people and gates, per image, without gradients."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.backbone import Backbone
from stylejobs.core.losses.style import gram_matrix
from stylejobs.core.luma import luma

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX = 11
_WINDOW_SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_EDGE_SCALES = 3
_EDGE_MIN_PX = 8
_FLAT = 1e-9  # mean square of an edge map below which an image has no edges, only rounding


@torch.no_grad()
def ms_ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Multi-scale structural similarity: l_M^w_M * product over scales j of cs_j^w_j, mean over channels.

    cs_j is the mean over pixels of contrast times structure at scale j, l_M * cs_M the mean of the whole index at the
    coarsest scale; windows are Gaussian (11 px, sigma 1.5 px, inside the image only), scales halve by 2x2 means.
    Computed in float64: variances are differences of near numbers.

    Args:
        a_BCHW: float, [-1, 1].
        b_BCHW: same shape.

    Returns:
        similarity_B, float64: 1 for equal images; unrelated photographs come near 0.2.

    Differs from paper: images below 176 px have fewer scales (as many as leave 11 px at the coarsest), with the first
    weights rescaled to sum 1; a side below 11 px shrinks the window to the largest odd size that fits; negative means
    count as 0 (a power of them is not real); luminance enters as the mean of l * cs, as in the authors' code.
    Source: Wang, Simoncelli & Bovik 2003, doi:10.1109/ACSSC.2003.1292216, equation 7.
    """
    if a_BCHW.shape != b_BCHW.shape or a_BCHW.ndim != 4:
        raise ValueError(
            f"wanted two batches [B, C, H, W] of one shape; got {list(a_BCHW.shape)}, {list(b_BCHW.shape)}"
        )
    a_BCHW, b_BCHW = (image.to(torch.float64).add(1.0).div(2.0) for image in (a_BCHW, b_BCHW))
    side = min(a_BCHW.shape[-2:])
    num_scales = next((n for n in range(len(_SCALE_WEIGHTS), 1, -1) if side >> (n - 1) >= _WINDOW_PX), 1)
    weights = torch.tensor(_SCALE_WEIGHTS[:num_scales], dtype=torch.float64)
    weights = (weights / weights.sum()).tolist()
    similarity_BC = torch.ones(a_BCHW.shape[:2], dtype=torch.float64, device=a_BCHW.device)
    for scale, weight in enumerate(weights):
        index_BC, contrast_structure_BC = _ssim(a_BCHW, b_BCHW)
        last = scale == num_scales - 1
        similarity_BC = similarity_BC * (index_BC if last else contrast_structure_BC).clamp_min(0.0) ** weight
        if not last:
            a_BCHW, b_BCHW = F.avg_pool2d(a_BCHW, 2), F.avg_pool2d(b_BCHW, 2)
    return similarity_BC.mean(dim=1)


@torch.no_grad()
def style_distance(backbone: Backbone, a_BCHW: Tensor, b_BCHW: Tensor, layers: Sequence[str] | None = None) -> Tensor:
    """Gram distance: mean over layers of |G_a - G_b|^2 / (|G_a| * |G_b|), Frobenius norms.

    Dividing makes layers and backbones comparable. A one-line colour transfer closes most of it and it does not see
    lost content: never judge by it alone.

    Args:
        backbone: whose features; the number is only comparable with numbers of the same backbone.
        a_BCHW: float, [-1, 1], at least 32 px.
        b_BCHW: float, [-1, 1], any size of at least 32 px; a batch of one is compared with every row.
        layers: names of layers; the backbone's style layers by default.

    Returns:
        distance_B, float32, >= 0; 0 for equal statistics.
    """
    layers = tuple(layers or backbone.style_layers)
    grams_a = {layer: gram_matrix(features) for layer, features in backbone(a_BCHW, layers).items()}
    grams_b = {layer: gram_matrix(features) for layer, features in backbone(b_BCHW, layers).items()}
    distances = []
    for layer in layers:
        squared_B = (grams_a[layer] - grams_b[layer]).square().sum(dim=(1, 2))
        norms_B = grams_a[layer].norm(dim=(1, 2)) * grams_b[layer].norm(dim=(1, 2))
        distances.append(squared_B / norms_B.clamp_min(1e-12))
    return torch.stack(distances).mean(dim=0)


@torch.no_grad()
def edge_cosine(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Whether edges lie in the same places: mean over scales of cos(e_a, e_b).

    e is the gradient magnitude of luma, blurred by a Gaussian of sigma 1 px, less its mean over the quarter of each
    side around: without that, any two photographs with a subject in the middle are alike. Scales halve by 2x2 means.
    Brightness, contrast and inversion leave it alone, as style may; unlike structural similarity it has no floor:
    unrelated images score about 0. Computed in float64.

    Args:
        a_BCHW: float, RGB, [-1, 1].
        b_BCHW: same shape.

    Returns:
        cosine_B, float64, in [-1, 1]: 1 for equal edges. Where neither image has an edge it is 1, where only one has
        none it is 0.
    """
    if a_BCHW.shape != b_BCHW.shape or a_BCHW.ndim != 4 or a_BCHW.shape[1] != 3:
        raise ValueError(
            f"wanted two batches [B, 3, H, W] of one shape; got {list(a_BCHW.shape)}, {list(b_BCHW.shape)}"
        )
    a_BHW, b_BHW = luma(a_BCHW.double())[:, 0], luma(b_BCHW.double())[:, 0]
    cosines = []
    for scale in range(_EDGE_SCALES):
        if scale:
            if min(a_BHW.shape[-2:]) < 2 * _EDGE_MIN_PX:
                break
            a_BHW, b_BHW = F.avg_pool2d(a_BHW, 2), F.avg_pool2d(b_BHW, 2)
        edges_a, edges_b = _edges(a_BHW), _edges(b_BHW)
        cosine_B = (edges_a * edges_b).mean(dim=(1, 2))
        square_a, square_b = (edges.square().mean(dim=(1, 2)) for edges in (edges_a, edges_b))
        cosine_B = cosine_B / (square_a * square_b).sqrt().clamp_min(_FLAT)
        flat_a, flat_b = square_a < _FLAT, square_b < _FLAT
        cosines.append(torch.where(flat_a | flat_b, (flat_a & flat_b).double(), cosine_B))
    return torch.stack(cosines).mean(dim=0)


def _edges(luma_BHW: Tensor) -> Tensor:
    """Blurred gradient magnitude less its local mean; the border repeats, so every size works."""
    padded = F.pad(luma_BHW[:, None], (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    edges_B1HW = _blur((across.square() + down.square()).sqrt(), window_px=5, sigma_px=1.0)
    local_mean_B1HW = edges_B1HW
    for window in ((max(3, edges_B1HW.shape[2] // 4 | 1), 1), (1, max(3, edges_B1HW.shape[3] // 4 | 1))):
        around = (window[0] // 2, window[1] // 2)
        local_mean_B1HW = F.avg_pool2d(local_mean_B1HW, window, 1, around, count_include_pad=False)
    return (edges_B1HW - local_mean_B1HW)[:, 0]


def _ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Means over pixels of the whole index and of contrast times structure (C3 = C2 / 2), each [B, C]."""
    mean_a, mean_b = _blur(a_BCHW), _blur(b_BCHW)
    variance_a = _blur(a_BCHW.square()) - mean_a.square()
    variance_b = _blur(b_BCHW.square()) - mean_b.square()
    covariance = _blur(a_BCHW * b_BCHW) - mean_a * mean_b
    contrast_structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    return (luminance * contrast_structure).mean(dim=(2, 3)), contrast_structure.mean(dim=(2, 3))


def _blur(image_BCHW: Tensor, window_px: int = _WINDOW_PX, sigma_px: float = _WINDOW_SIGMA_PX) -> Tensor:
    """Gaussian mean inside the image only; a window longer than a side shrinks to the largest odd size that fits."""
    channels = image_BCHW.shape[1]
    for axis in (2, 3):
        side = image_BCHW.shape[axis]
        fitting_px = min(window_px, side - 1 + side % 2)
        offsets = torch.arange(fitting_px, dtype=image_BCHW.dtype, device=image_BCHW.device) - fitting_px // 2
        window = torch.exp(-offsets.square() / (2 * sigma_px**2))
        kernel = (window / window.sum()).reshape((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
        image_BCHW = F.conv2d(image_BCHW, kernel.expand(channels, -1, -1, -1), groups=channels)
    return image_BCHW
