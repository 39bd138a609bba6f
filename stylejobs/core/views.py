"""Views of training images: crop, flip, rotation, scale, colour and patch mosaic, drawn anew each time one is shown.

Here lives what is done to one decoded image, uint8 in and out, next to the training step. Not here: what critics see
and mosaics of whole batches (augment.py), decoding and batches (the engine).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.augment import patch_mosaic
from stylejobs.core.luma import luma

_BOUNDS = {
    "flip": (0.0, 1.0),
    "rotation_degrees": (0.0, 180.0),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "hue": (0.0, 0.5),
}
_SMALLEST_SCALE, _LARGEST_SCALE = 0.25, 4.0


@dataclass(frozen=True)
class ViewOptions:
    """What a view may look like; by default a crop that is mirrored half of the time, no pixel changed.

    Whatever is drawn is drawn evenly from its range.

    Attributes:
        size_px: side of the view.
        load_px: short side that the image is scaled to first; None enlarges what is smaller than the view, no more.
            How much of a picture a view shows is size_px / load_px of its short side.
        flip: share of the views that are mirrored, [0, 1].
        rotation_degrees: angles are in [-it, it); [0, 180].
        scale: lowest and highest magnification, of [0.25, 4]; 2 shows half as much, twice as large.
        brightness, contrast, saturation: factors are in [1 - it, 1 + it); [0, 1].
        hue: turns of the colour wheel are in [-it, it); [0, 0.5].
        mosaic: patches along each side that change places; 1 leaves them.

    Raises:
        ValueError: a number out of its range, or a view too small for patches of 4 px.
    """

    size_px: int
    load_px: int | None = None
    flip: float = 0.5
    rotation_degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    mosaic: int = 1

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ValueError(f"wanted size_px >= 1; got {self.size_px}")
        if self.load_px is not None and self.load_px < self.size_px:
            raise ValueError(f"wanted load_px of at least size_px ({self.size_px}); got {self.load_px}")
        for name, (lowest, highest) in _BOUNDS.items():
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(f"wanted {name} in [{lowest:g}, {highest:g}]; got {getattr(self, name)}")
        if len(self.scale) != 2 or not _SMALLEST_SCALE <= self.scale[0] <= self.scale[1] <= _LARGEST_SCALE:
            raise ValueError(
                f"wanted scale as (low, high), {_SMALLEST_SCALE:g} <= low <= high <= {_LARGEST_SCALE:g}; "
                f"got {self.scale}"
            )
        most = max(1, self.size_px // 4)
        if not 1 <= self.mosaic <= most:
            raise ValueError(f"wanted mosaic in [1, {most}], patches of {self.size_px} px views; got {self.mosaic}")

    @cached_property
    def is_plain(self) -> bool:
        """Whether views are copies of pixels, mirrored at most."""
        return not self.is_resampled and not self.is_recoloured and self.mosaic == 1

    @property
    def is_resampled(self) -> bool:
        """Whether views are turned or magnified, and so interpolated."""
        return self.rotation_degrees > 0.0 or tuple(self.scale) != (1.0, 1.0)

    @cached_property
    def is_recoloured(self) -> bool:
        """Whether colours of views change."""
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0.0


def random_view(image_HWC: Tensor, options: ViewOptions, rng: torch.Generator) -> Tensor:
    """A square view at a random place, in this order:

        load        scaled so that the short side has `load_px` pixels (bilinear, antialiased)
        crop        at any place; without rotation and scale a copy of pixels
        geometry    rotation and scale in one bilinear resampling about the centre of the crop, which is as much larger
                    as they need: what is outside of the view moves in, and where the image ends, its mirror image
        flip        left to right
        brightness  b * x
        contrast    m + c * (x - m),  m the mean of the view's luma
        saturation  y + s * (x - y),  y the luma of each pixel
        hue         turned by h in HSV
        mosaic      the patches of the view change places, `augment.patch_mosaic` of a batch of one

    Each step of colour is clamped to [0, 255]; values are rounded after the last one. Three numbers are drawn from
    `rng` for every image, whatever its size and the options, so that neither an odd image nor a setting shifts the
    draws of those after it. They are the place and the flip. All others come from a generator that the third one
    seeds, and all of them are drawn if one is needed, so that a setting changes nothing but its own step.

    Args:
        image_HWC: uint8, any H, W >= 1; RGB where colours change, else any C.
        rng: a CPU generator.

    Returns:
        view_HWC, uint8, `size_px` x `size_px`, contiguous.

    Source: brightness to hue are ColorJitter of torchvision, and ImageEnhance of Pillow. Differs from it: the order is
    always the same, and nothing is rounded between the steps.
    """
    if image_HWC.dtype != torch.uint8 or image_HWC.ndim != 3:
        raise ValueError(f"wanted uint8 [H, W, C]; got {image_HWC.dtype} {list(image_HWC.shape)}")
    height, width, channels = image_HWC.shape
    short_px = min(height, width)
    if short_px < 1 or (options.is_recoloured and channels != 3):
        raise ValueError(f"wanted H, W >= 1, and C of 3 where colours change; got {list(image_HWC.shape)}")
    *place, draw_flip = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
    wanted_px = options.load_px or max(options.size_px, short_px)
    if short_px != wanted_px:
        image_HWC = _scale(image_HWC, wanted_px)
    if not options.is_plain:
        return _changed_view(image_HWC, options, place, draw_flip)
    view_HWC = _window(image_HWC, options.size_px, place)
    return (view_HWC.flip(1) if draw_flip < options.flip else view_HWC).contiguous()


def _changed_view(image_HWC: Tensor, options: ViewOptions, place: Sequence[float], draw_flip: float) -> Tensor:
    # A draw has 53 bits. The first of them tell whether it is below `flip`, so the last 32 are free to be a seed.
    own_rng = torch.Generator().manual_seed(int(draw_flip * 2**53) % 2**32)
    draws = torch.rand(6, generator=own_rng, dtype=torch.float64).tolist()
    if options.is_resampled:
        view_CHW = _turned_window(image_HWC, options, place, draws[:2])
    else:
        view_CHW = _window(image_HWC, options.size_px, place).permute(2, 0, 1)
    view_CHW = _recolour(view_CHW.flip(2) if draw_flip < options.flip else view_CHW, options, draws[2:])
    if options.mosaic > 1:
        view_CHW = patch_mosaic(view_CHW[None], options.mosaic, own_rng)[0]
    return view_CHW.permute(1, 2, 0).contiguous()


def _scale(image_HWC: Tensor, short_px: int) -> Tensor:
    """The image with a short side of `short_px`."""
    height, width = image_HWC.shape[:2]
    scale = short_px / min(height, width)
    # Rounding a short side could land one pixel below the size that was asked for.
    size = (max(short_px, math.floor(height * scale)), max(short_px, math.floor(width * scale)))
    image_1CHW = image_HWC.permute(2, 0, 1)[None].to(torch.float32)
    scaled_1CHW = F.interpolate(image_1CHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return scaled_1CHW[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def _window(image_HWC: Tensor, side_px: int, place: Sequence[float]) -> Tensor:
    """A square of the image, its top and left at `place` in [0, 1) of where they can be; all of a side that is shorter.

    What is shorter leaves no choice of a place, so the middle of the window is the middle of the square in any case.
    """
    height, width = image_HWC.shape[:2]
    rows, columns = min(side_px, height), min(side_px, width)
    top, left = int(place[0] * (height - rows + 1)), int(place[1] * (width - columns + 1))
    return image_HWC[top : top + rows, left : left + columns]


def _turned_window(image_HWC: Tensor, options: ViewOptions, place: Sequence[float], draws: Sequence[float]) -> Tensor:
    """The view as float32 [C, size, size] in [0, 255], turned and magnified; `draws` are two numbers in [0, 1)."""
    angle = math.radians((2.0 * draws[0] - 1.0) * options.rotation_degrees)
    low, high = options.scale
    scale = low + draws[1] * (high - low)
    cosine, sine = math.cos(angle), math.sin(angle)
    # A view that shrinks is sampled more densely and averaged: bilinear reads 2 px of those that become one.
    dense = max(1, round(1.0 / scale))
    reach = (options.size_px - 1.0 / dense) / scale * (abs(cosine) + abs(sine))
    window_HWC = _window(image_HWC, math.ceil(reach) + 1, place)
    height, width = window_HWC.shape[:2]
    across, down = options.size_px / scale / width, options.size_px / scale / height
    matrix_123 = torch.tensor([[[cosine * across, -sine * across, 0.0], [sine * down, cosine * down, 0.0]]])
    side_px = options.size_px * dense
    grid_1HW2 = F.affine_grid(matrix_123, [1, 1, side_px, side_px], align_corners=False)
    window_1CHW = window_HWC.permute(2, 0, 1)[None].to(torch.float32)
    view_1CHW = F.grid_sample(window_1CHW, grid_1HW2, "bilinear", "reflection", align_corners=False)
    return (F.avg_pool2d(view_1CHW, dense) if dense > 1 else view_1CHW)[0]


def _recolour(view_CHW: Tensor, options: ViewOptions, draws: Sequence[float]) -> Tensor:
    """The view as uint8, its colours changed; what comes is in [0, 255], `draws` are four numbers in [0, 1)."""
    if options.is_recoloured:
        view_CHW = view_CHW.to(torch.float32, memory_format=torch.contiguous_format)
        brightness, contrast, saturation, hue = (2.0 * draw - 1.0 for draw in draws)
        if options.brightness:
            view_CHW.mul_(1.0 + brightness * options.brightness).clamp_(0, 255)
        if options.contrast:
            # Float64, lest the sum depend on the number of threads.
            mean = luma(view_CHW[None]).mean(dtype=torch.float64)
            view_CHW = _blend(view_CHW, mean.to(torch.float32), 1.0 + contrast * options.contrast)
        if options.saturation:
            view_CHW = _blend(view_CHW, luma(view_CHW[None])[0], 1.0 + saturation * options.saturation)
        if options.hue:
            view_CHW = _turn_hue(view_CHW, hue * options.hue)
    return view_CHW.round().clamp_(0, 255).to(torch.uint8) if view_CHW.is_floating_point() else view_CHW


def _blend(view_CHW: Tensor, grey: Tensor, factor: float) -> Tensor:
    return torch.lerp(grey, view_CHW, factor).clamp_(0, 255)


def _turn_hue(view_CHW: Tensor, turns: float) -> Tensor:
    """The colours of HSV, saturation and value kept, the hue moved by a share of the wheel; red turns towards green."""
    red, green, blue = view_CHW
    value, least = view_CHW.amax(0), view_CHW.amin(0)
    chroma = value - least
    sixths = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sixths = torch.where(value == red, green - blue, sixths) / chroma.clamp_min(1e-6) + 6 * turns
    # Each channel is a trapezoid over the wheel of 6: full for 2 sixths, least for 2, and 1 on either way.
    corners = ((sixths + start).remainder_(6) for start in (5, 3, 1))
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1) for k in corners])
