"""Random views of training images. Every draw comes from the generator that is passed in, never from global state."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop_flip(image_HWC: Tensor, size_px: int, rng: torch.Generator) -> Tensor:
    """A square view at a random place, mirrored half of the time.

    An image whose short side is smaller than `size_px` is first scaled up to it (bilinear, antialiased). Three numbers
    are drawn for every image, whatever its size, so that one odd image does not shift the draws of those after it.

    Args:
        image_HWC: uint8, any H, W >= 1.
        size_px: side of the view.
        rng: a CPU generator.

    Returns:
        view_HWC, uint8, `size_px` x `size_px`, contiguous.
    """
    if image_HWC.dtype != torch.uint8 or image_HWC.ndim != 3 or size_px < 1:
        raise ValueError(
            f"wanted uint8 [H, W, C] and size_px >= 1; got {image_HWC.dtype} {list(image_HWC.shape)}, {size_px}"
        )
    draw_top, draw_left, draw_flip = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
    image_HWC = _scale_up(image_HWC, size_px)
    height, width = image_HWC.shape[:2]
    top = int(draw_top * (height - size_px + 1))
    left = int(draw_left * (width - size_px + 1))
    view_HWC = image_HWC[top : top + size_px, left : left + size_px]
    return (view_HWC.flip(1) if draw_flip < 0.5 else view_HWC).contiguous()


def _scale_up(image_HWC: Tensor, size_px: int) -> Tensor:
    height, width = image_HWC.shape[:2]
    if min(height, width) >= size_px:
        return image_HWC
    scale = size_px / min(height, width)
    # Rounding a short side could land one pixel below the size that was asked for.
    size = (max(size_px, math.floor(height * scale)), max(size_px, math.floor(width * scale)))
    image_1CHW = image_HWC.permute(2, 0, 1)[None].to(torch.float32)
    scaled_1CHW = F.interpolate(image_1CHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return scaled_1CHW[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
