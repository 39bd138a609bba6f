"""A frozen panel of contents and styles: what one stylized set of the contents is worth, in four numbers.

Here lives how the measures of metrics.py and mmd.py are put together. Not here: files, and who stylizes the contents.
"""

import math

import torch
from torch import Tensor

from stylejobs.core.gap import Gap
from stylejobs.core.metrics import edge_cosine
from stylejobs.core.mmd import Kernels, build_networks, colour_free, describe, mmd2, rebase

FEWEST_IMAGES = 8  # halves of fewer tell nothing of a distribution
_GRID = 5  # crops of a style image along each side; odd, so that neighbours are in different halves
CUT_SIDES = 1.5  # sides of a style image that is cut, to those of the contents
_BATCH = 8


class Panel:
    """Contents and a style set, described once; every candidate is measured on the same ones, with the same ruler.

    Images 0, 2, 4, ... of the style set are what candidates are held against; the others say what 1 is. Numbers of
    different panels cannot be compared.

    Fewer than 8 style images, down to one, must be larger than the contents: 25 crops of each, of the contents' size
    and on an even grid, are the set. Neighbours overlap and are in different halves, so a 1 says more than with
    images: as near to the style image as it is to itself, shifted by some pixels.

    Attributes:
        content_BCHW: the contents, as they came.
        style_BCHW: the half of the style set that candidates are held against.
        identity, target: view ("raw", "colour-free") -> kernels against `style_BCHW` of the contents, and of the other
            half of the style set.

    Args:
        content_BCHW: float, RGB, [-1, 1], at least 8 images of at least 32 px.
        style_BCHW: float, [-1, 1], the same device; at least 8 images of the contents' size, or fewer whose sides are
            at least 1.5 times as long.

    Raises:
        ValueError: too few images, other sizes, images that are equal, or contents that are as near to the style set
            as its own images are, in either view.
    """

    def __init__(self, content_BCHW: Tensor, style_BCHW: Tensor):
        _check(content_BCHW, style_BCHW)
        if len(style_BCHW) < FEWEST_IMAGES:
            style_BCHW = cut_crops(style_BCHW, *content_BCHW.shape[-2:])
        self.content_BCHW, self.style_BCHW, other_BCHW = content_BCHW, style_BCHW[0::2], style_BCHW[1::2]
        self._networks = tuple(network.to(content_BCHW.device) for network in build_networks())
        contents, styles, others = (self._describe(images) for images in (content_BCHW, self.style_BCHW, other_BCHW))
        self._gaps = {view: Gap(view, contents[view], styles[view], others[view]) for view in styles}

    @property
    def identity(self) -> dict[str, Kernels]:
        return {view: gap.identity for view, gap in self._gaps.items()}

    @property
    def target(self) -> dict[str, Kernels]:
        return {view: gap.target for view, gap in self._gaps.items()}

    def _describe(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Descriptors [S, N, D] by view."""
        views = {"raw": image_BCHW, "colour-free": colour_free(image_BCHW)}
        return {view: describe(self._networks, seen_BCHW) for view, seen_BCHW in views.items()}

    def kernels(self, stylized_BCHW: Tensor) -> dict[str, Kernels]:
        """Kernels of a candidate against the style set, by view: what scores with intervals are made of."""
        described = self._describe(stylized_BCHW)
        return {view: gap.against(described[view]) for view, gap in self._gaps.items()}

    @torch.no_grad()
    def measure(self, stylized_BCHW: Tensor) -> dict[str, float]:
        """What a candidate is worth; higher is better in every number.

        Args:
            stylized_BCHW: float, [-1, 1], the contents' shape, rows in their order.

        Returns:
            content: mean `edge_cosine` of source and result: 1 for the contents themselves, about 0 for others.
            style: 1 - rebased squared MMD of the colour-free images: 0 for the contents left alone, 1 for images that
                are as near to the style set as its own, below 0 for what moved away.
            style_raw: the same of the images with their colours, which a colour transfer alone can win.
            balanced: `balance` of content and style.

            All are NaN for a candidate that holds a NaN.

        Raises:
            ValueError: not the contents' shape.
        """
        if stylized_BCHW.shape != self.content_BCHW.shape:
            raise ValueError(
                f"wanted the contents stylized, {list(self.content_BCHW.shape)}; got {list(stylized_BCHW.shape)}"
            )
        pairs = zip(stylized_BCHW.split(_BATCH), self.content_BCHW.split(_BATCH), strict=True)
        content = torch.cat([edge_cosine(made_BCHW, source_BCHW) for made_BCHW, source_BCHW in pairs]).mean().item()
        styles = {
            view: rebase(mmd2(kernels), mmd2(self._gaps[view].identity), mmd2(self._gaps[view].target)).item()
            for view, kernels in self.kernels(stylized_BCHW).items()
        }
        balanced = balance(content, styles["colour-free"])
        return {"content": content, "style": styles["colour-free"], "style_raw": styles["raw"], "balanced": balanced}


def balance(content: float, style: float) -> float:
    """Harmonic mean 2 c s / (c + s) of both, each clipped to [0, 1]; where one of them is not above 0, the smaller one.

    The smaller one rules: contents left alone have no style, colours and textures without the contents have no
    content, and both come out at 0, where an arithmetic mean would give 0.5. Below 0 it goes on without a bound,
    since short trainings are there for long (the texture of their artefacts): they too must have a better and a worse.

    Returns:
        at most 1; NaN where either is.

    >>> balance(0.75, 0.25), balance(1.0, 0.0), balance(0.5, -3.0)
    (0.375, 0.0, -3.0)
    """
    if math.isnan(content) or math.isnan(style):
        return math.nan
    content, style = min(content, 1.0), min(style, 1.0)
    return min(content, style) if min(content, style) <= 0.0 else 2.0 * content * style / (content + style)


def _check(content_BCHW: Tensor, style_BCHW: Tensor) -> None:
    for name, image_BCHW in (("contents", content_BCHW), ("style images", style_BCHW)):
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
            raise ValueError(f"wanted {name} as floats [N, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    if len(content_BCHW) < FEWEST_IMAGES or len(style_BCHW) < 1:
        raise ValueError(
            f"wanted at least {FEWEST_IMAGES} contents and a style image; got {len(content_BCHW)}, {len(style_BCHW)}"
        )
    sides, style_sides = content_BCHW.shape[-2:], style_BCHW.shape[-2:]
    if len(style_BCHW) >= FEWEST_IMAGES and sides != style_sides:
        raise ValueError(f"wanted style images of the contents' size, {list(sides)} px; got {list(style_sides)}")
    too_small = any(style_px < CUT_SIDES * px for px, style_px in zip(sides, style_sides, strict=True))
    if len(style_BCHW) < FEWEST_IMAGES and too_small:
        raise ValueError(
            f"{len(style_BCHW)} style images are cut into crops of the contents' size, {list(sides)} px: wanted sides "
            f"of {CUT_SIDES} times that or more; got {list(style_sides)}; give larger ones, or {FEWEST_IMAGES} and more"
        )


def cut_crops(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """25 crops on an even grid over each image: [25 N, C, height, width], those of an image one after the other."""
    tops, lefts = (
        [place * (side - crop) // (_GRID - 1) for place in range(_GRID)]
        for side, crop in zip(image_BCHW.shape[-2:], (height, width), strict=True)
    )
    crops = [
        image_CHW[:, top : top + height, left : left + width]
        for image_CHW in image_BCHW
        for top in tops
        for left in lefts
    ]
    return torch.stack(crops)
