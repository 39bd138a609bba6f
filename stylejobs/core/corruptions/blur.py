"""Corruptions by blur: defocus, frosted glass, motion and zoom; and the filters that weather and warps use too.

Lengths are those of the paper's images, whose short side has 224 px; `scale_of` turns them into pixels of any image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PAPER_SIDE_PX = 224
DEFOCUS = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))
"""Radius of the disk, sigma of the Gaussian that softens its edge."""
GLASS = ((0.7, 1.0, 2), (0.9, 2.0, 1), (1.0, 2.0, 3), (1.1, 3.0, 2), (1.5, 4.0, 2))
"""Sigma of the blur before and after, farthest shift along each axis, rounds."""
MOTION = ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0))
"""Radius, sigma along the way."""
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""End (not reached) and step of the magnifications from 1 on."""
_REACH_SIGMAS = 3.0


def scale_of(image_BCHW: Tensor) -> float:
    """Pixels of these images to one pixel of an image whose short side has 224 px."""
    return min(image_BCHW.shape[-2:]) / PAPER_SIDE_PX


def gaussian_blur(image_BCHW: Tensor, sigma_px: float) -> Tensor:
    """Gaussian mean with a mirrored border; the kernel ends at three sigma, or at the size of the image."""
    down_HH, across_WW = (_gaussian_matrix(side_px, sigma_px).to(image_BCHW) for side_px in image_BCHW.shape[-2:])
    return down_HH @ image_BCHW @ across_WW.T


def _gaussian_matrix(side_px: int, sigma_px: float) -> Tensor:
    """The matrix that blurs a column of pixels: row i holds the weights of the mean around pixel i."""
    reach_px = min(math.ceil(_REACH_SIGMAS * sigma_px), side_px - 1)
    offsets = torch.arange(-reach_px, reach_px + 1, dtype=torch.float64)
    kernel = torch.exp(-offsets.square() / (2.0 * max(sigma_px, 1e-6) ** 2))
    unit_N1W = F.pad(torch.eye(side_px, dtype=torch.float64).unsqueeze(1), (reach_px, reach_px), mode="reflect")
    return F.conv1d(unit_N1W, (kernel / kernel.sum()).reshape(1, 1, -1)).squeeze(1).T


def defocus_blur(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Mean over a disk: a lens that is out of focus. Draws nothing."""
    radius, sigma = (length * scale_of(unit_BCHW) for length in DEFOCUS[severity - 1])
    reach_px = min(math.ceil(radius), min(unit_BCHW.shape[-2:]) - 1)
    offsets = torch.arange(-reach_px, reach_px + 1, dtype=torch.float32)
    # The pixel that the edge goes through counts in part, so that radii need not be whole pixels.
    disk_HW = (radius + 0.5 - torch.hypot(offsets[:, None], offsets[None])).clamp(0.0, 1.0)
    disk_1HW = (disk_HW / disk_HW.sum())[None].expand(len(unit_BCHW), -1, -1)
    return gaussian_blur(convolve(unit_BCHW, disk_1HW.to(unit_BCHW.device)), sigma)


def glass_blur(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Blurred, every pixel taken from a place nearby that is drawn for it, several rounds, and blurred again."""
    sigma, farthest, rounds = GLASS[severity - 1]
    scale, (height, width) = scale_of(unit_BCHW), unit_BCHW.shape[-2:]
    image_BCHW = gaussian_blur(unit_BCHW, sigma * scale)
    for _ in range(rounds):
        shift_BHW2 = torch.rand((len(unit_BCHW), height, width, 2), generator=rng).to(unit_BCHW.device)
        image_BCHW = move(image_BCHW, (2.0 * shift_BHW2 - 1.0) * farthest * scale)
    return gaussian_blur(image_BCHW, sigma * scale)


def motion_blur(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Weighted mean along a way of a drawn direction, within 45 degrees of the horizontal: a camera that moved."""
    radius, sigma = MOTION[severity - 1]
    degrees_B = torch.rand(len(unit_BCHW), generator=rng) * 90.0 - 45.0
    return smear(unit_BCHW, radius * scale_of(unit_BCHW), sigma * scale_of(unit_BCHW), degrees_B)


def zoom_blur(unit_BCHW: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Mean of the image and of magnifications of its middle: a camera that came closer. Draws nothing."""
    end, step = ZOOM[severity - 1]
    magnifications = torch.arange(1.0, end - 1e-6, step).tolist()
    total_BCHW = unit_BCHW.clone()
    for magnification in magnifications:
        matrix_123 = unit_BCHW.new_tensor([[[1 / magnification, 0.0, 0.0], [0.0, 1 / magnification, 0.0]]])
        grid_1HW2 = F.affine_grid(matrix_123, [1, 3, *unit_BCHW.shape[-2:]], align_corners=False)
        grid_BHW2 = grid_1HW2.expand(len(unit_BCHW), -1, -1, -1)
        total_BCHW += F.grid_sample(unit_BCHW, grid_BHW2, "bilinear", "reflection", align_corners=False)
    return total_BCHW / (len(magnifications) + 1)


def smear(image_BCHW: Tensor, radius_px: float, sigma_px: float, degrees_B: Tensor) -> Tensor:
    """Mean along a straight way of 2 * radius that begins at the pixel, weights exp(-t^2 / 2 sigma^2) at distance t.

    Args:
        degrees_B: direction of each image's way, 0 to the right, 90 down.
    """
    length_px = min(2.0 * radius_px, min(image_BCHW.shape[-2:]) - 2.0)
    steps_T = torch.linspace(0.0, length_px, 1 + 2 * math.ceil(length_px))
    weights_T = torch.exp(-steps_T.square() / (2.0 * sigma_px**2))
    reach_px = math.ceil(length_px) + 1
    side_px = 2 * reach_px + 1
    kernel_BHW = torch.zeros(len(degrees_B), side_px * side_px)
    down_BT, across_BT = (
        turn(torch.deg2rad(degrees_B))[:, None] * steps_T + reach_px for turn in (torch.sin, torch.cos)
    )
    # Each point of the way is shared among the four cells around it.
    top_BT, left_BT = down_BT.floor(), across_BT.floor()
    for row in (0, 1):
        for column in (0, 1):
            share_BT = (1 - (down_BT - top_BT - row).abs()) * (1 - (across_BT - left_BT - column).abs())
            cell_BT = ((top_BT + row) * side_px + left_BT + column).long().clamp_(0, side_px * side_px - 1)
            kernel_BHW.scatter_add_(1, cell_BT, share_BT * weights_T)
    kernel_BHW = (kernel_BHW / kernel_BHW.sum(dim=1, keepdim=True)).reshape(-1, side_px, side_px)
    return convolve(image_BCHW, kernel_BHW.to(image_BCHW.device))


def convolve(image_BCHW: Tensor, kernel_BHW: Tensor) -> Tensor:
    """Each image with its own odd, square kernel, the border mirrored; through frequencies, for kernels are wide."""
    side_px = kernel_BHW.shape[-1]
    padded_BCHW = F.pad(image_BCHW, (side_px // 2,) * 4, mode="reflect")
    size = padded_BCHW.shape[-2:]
    spectrum_BCHW = torch.fft.rfft2(padded_BCHW) * torch.fft.rfft2(kernel_BHW, s=size)[:, None]
    return torch.fft.irfft2(spectrum_BCHW, s=size)[..., side_px - 1 :, side_px - 1 :]


def move(image_BCHW: Tensor, shift_BHW2: Tensor) -> Tensor:
    """Each pixel from the place (across, down) px from it; bilinear between pixels, mirrored beyond the border."""
    height, width = image_BCHW.shape[-2:]
    grid_1HW2 = F.affine_grid(torch.eye(2, 3)[None], [1, 3, height, width], align_corners=False).to(image_BCHW.device)
    # The grid spans 2 over the whole side.
    grid_BHW2 = grid_1HW2 + shift_BHW2 * (2.0 / shift_BHW2.new_tensor([width, height]))
    return F.grid_sample(image_BCHW, grid_BHW2, "bilinear", "reflection", align_corners=False)
