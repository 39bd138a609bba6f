"""Whether a result still shows what its source shows: structural similarity, edges, and whose result it is."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.luma import luma

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW_PX = 11
_WINDOW_SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_EDGE_SCALES = 3
_EDGE_MIN_PX = 8
_FLAT = 1e-9  # mean square of an edge map below which an image has no edges, only rounding
_TIE = 1e-5  # cosines of float32 descriptors that are nearer than this are equal


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
    cosines = []
    for edges_a, edges_b in zip(_edge_maps(a_BCHW), _edge_maps(b_BCHW), strict=True):
        cosine_B = (edges_a * edges_b).mean(dim=(1, 2))
        square_a, square_b = (edges.square().mean(dim=(1, 2)) for edges in (edges_a, edges_b))
        cosine_B = cosine_B / (square_a * square_b).sqrt().clamp_min(_FLAT)
        flat_a, flat_b = square_a < _FLAT, square_b < _FLAT
        cosines.append(torch.where(flat_a | flat_b, (flat_a & flat_b).double(), cosine_B))
    return torch.stack(cosines).mean(dim=0)


@torch.no_grad()
def describe_edges(image_BCHW: Tensor) -> Tensor:
    """Where the edges of each image are: the dot product of two descriptors is the images' `edge_cosine`.

    So N x N comparisons are one product of matrices. At a scale without edges (only of one colour, or not-a-number)
    the descriptor is 0, and such an image is like no other, where `edge_cosine` calls two of them equal.

    Args:
        image_BCHW: float, RGB, [-1, 1]; sizes must agree within what is compared.

    Returns:
        edges_BD, float32, of norm 1 where all scales have edges. D is 1.3 times the number of pixels.
    """
    scales = []
    for edges_BHW in _edge_maps(image_BCHW):
        edges_BN = edges_BHW.flatten(1)
        has_edges_B1 = edges_BN.square().mean(dim=1, keepdim=True) >= _FLAT
        scales.append(torch.where(has_edges_B1, F.normalize(edges_BN, dim=1), 0.0))
    return (torch.cat(scales, dim=1) / len(scales) ** 0.5).float()


@torch.no_grad()
def identify(made_ND: Tensor, source_ND: Tensor) -> Tensor:
    """Whether each result is more like its own source than like any other's: top-1 among N.

    Args:
        made_ND: `describe_edges` of the results, N >= 2.
        source_ND: of their sources, row by row.

    Returns:
        hits_N, bool. A tie is a miss: of two equal sources neither is found, nor is one without edges. Chance is 1 / N.

    Raises:
        ValueError: not one source for each result, or fewer than two.
    """
    if made_ND.shape != source_ND.shape or made_ND.ndim != 2 or len(made_ND) < 2:
        raise ValueError(
            "wanted descriptors [N >= 2, D] of results and as many of their sources, all of images of one size; "
            f"got {list(made_ND.shape)} and {list(source_ND.shape)}"
        )
    similarity_NN = made_ND @ source_ND.T
    own_N = similarity_NN.diagonal().clone()
    return own_N > similarity_NN.fill_diagonal_(-torch.inf).amax(dim=1) + _TIE


def _edge_maps(image_BCHW: Tensor) -> Iterator[Tensor]:
    """Edge maps [B, H, W], float64, from the finest scale on."""
    luma_BHW = luma(image_BCHW.double())[:, 0]
    yield _edges(luma_BHW)
    for _ in range(1, _EDGE_SCALES):
        if min(luma_BHW.shape[-2:]) < 2 * _EDGE_MIN_PX:
            return
        luma_BHW = F.avg_pool2d(luma_BHW, 2)
        yield _edges(luma_BHW)


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
    for axis in (2, 3):
        side = image_BCHW.shape[axis]
        fitting_px = min(window_px, side - 1 + side % 2)
        offsets = torch.arange(fitting_px, dtype=image_BCHW.dtype, device=image_BCHW.device) - fitting_px // 2
        window = torch.exp(-offsets.square() / (2 * sigma_px**2))
        # Shifted images in a sum: a convolution in float64 takes 1.6 times as long for 11 px, and as long for 5 px.
        weights, inside = (window / window.sum()).tolist(), side - fitting_px + 1
        blurred_BCHW = image_BCHW.narrow(axis, 0, inside) * weights[0]
        for shift, weight in enumerate(weights[1:], start=1):
            blurred_BCHW.add_(image_BCHW.narrow(axis, shift, inside), alpha=weight)
        image_BCHW = blurred_BCHW
    return image_BCHW
