"""The 15 corruptions of ImageNet-C by name, five severities each: what a classifier may meet and was not trained on.

`corrupt` is the way in. The functions behind it take and return floats in [0, 1], a severity and a generator of random
numbers; some draw nothing. They live in noise.py, blur.py, weather.py and digital.py.

Source: Hendrycks & Dietterich 2019, arXiv:1903.12261; the numbers of their code at 224 px.
Differs from paper: lengths in pixels are scaled by the short side of the image over 224, so that a small image is not
blurred away; shares of the side and levels of brightness are the paper's. Results are floats, not rounded to bytes.

    glass_blur         pixels are drawn from around, in place of a walk that swaps them one after another
    snow, frost, fog   grains are drawn for 224 px and scaled; ice is drawn where the paper cuts it out of photographs;
                       clouds are octaves of noise in place of diamond-square
    elastic_transform  severities 3 to 5 are the paper's; the first two are weaker ripples, in place of wide warps which
                       move more pixels than the third, so that a higher severity is a larger change
    pixelate           shares of the side, as in the paper: a small image keeps fewer pixels, mixed at edges
    jpeg_compression   computed, no file is written: the same loss within a level or two of what libjpeg keeps
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stylejobs.core.choices import choose
from stylejobs.core.corruptions import blur, digital, noise, weather

__all__ = ["CORRUPTIONS", "FEWEST_PX", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
FEWEST_PX = 16
CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}


@torch.no_grad()
def corrupt(image_BCHW: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """A batch of images, each corrupted in its own way.

    Args:
        image_BCHW: float, RGB, [-1, 1], sides of at least 16 px.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: of every draw, in [0, 2^63); the same batch and seed give the same bits.

    Returns:
        corrupted_BCHW, of the same shape and dtype, clamped to [-1, 1]; computed in float32.

    Raises:
        ValueError: no such corruption or severity, or not such images.
    """
    if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
        raise ValueError(f"wanted float images [B, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    if min(image_BCHW.shape[-2:]) < FEWEST_PX or severity not in SEVERITIES:
        raise ValueError(
            f"wanted sides of at least {FEWEST_PX} px, a severity of 1 to 5; got {list(image_BCHW.shape)}, {severity}"
        )
    change = choose("corruption", CORRUPTIONS, name)
    unit_BCHW = image_BCHW.float().add(1.0).div_(2.0)
    changed_BCHW = change(unit_BCHW, severity, torch.Generator().manual_seed(seed))
    return changed_BCHW.clamp(0.0, 1.0).mul_(2.0).sub_(1.0).to(image_BCHW.dtype)
