"""Random views of training images and of what critics see. All draws come from the generator that is passed in."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.draws import Draws


def random_crop_flip(image_HWC: Tensor, size_px: int, rng: torch.Generator, load_px: int | None = None) -> Tensor:
    """A square view at a random place, mirrored half of the time.

    With `load_px` the image is first scaled (bilinear, antialiased) so that its short side has that many pixels;
    without it only if it is smaller than the view. Three numbers are drawn for every image, whatever its size, so that
    one odd image does not shift the draws of those after it.

    Args:
        image_HWC: uint8, any H, W >= 1.
        size_px: side of the view.
        rng: a CPU generator.
        load_px: at least `size_px`; how much of a picture a view shows is size_px / load_px of its short side.

    Returns:
        view_HWC, uint8, `size_px` x `size_px`, contiguous.
    """
    if image_HWC.dtype != torch.uint8 or image_HWC.ndim != 3 or size_px < 1:
        raise ValueError(
            f"wanted uint8 [H, W, C] and size_px >= 1; got {image_HWC.dtype} {list(image_HWC.shape)}, {size_px}"
        )
    if load_px is not None and load_px < size_px:
        raise ValueError(f"wanted load_px of at least size_px ({size_px}); got {load_px}")
    draw_top, draw_left, draw_flip = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
    image_HWC = _scale(image_HWC, load_px or max(size_px, min(image_HWC.shape[:2])))
    height, width = image_HWC.shape[:2]
    top = int(draw_top * (height - size_px + 1))
    left = int(draw_left * (width - size_px + 1))
    view_HWC = image_HWC[top : top + size_px, left : left + size_px]
    return (view_HWC.flip(1) if draw_flip < 0.5 else view_HWC).contiguous()


def diff_augment(images_BCHW: Tensor, strength: float, draws: Draws) -> Tensor:
    """Augments what a critic sees, so that it cannot learn the training images by heart; gradients flow through.

    A row is augmented with probability `strength`, else passed on bit for bit. An augmented row gets, in this order:

        brightness   x + b,                  b in [-0.5, 0.5)
        saturation   grey + s * (x - grey),  s in [0, 2), grey the mean over the channels of each pixel
        contrast     m + c * (x - m),        c in [0.5, 1.5), m the mean of the row
        translation  by up to 1/8 of each side, whole pixels, zeros move in
        cutout       zeros in a window of half of each side, its centre any pixel, cut off at the border

    Real and generated images must both go through it, before the critic in every one of its uses, the generator's step
    among them. Nothing is clamped: a clamp would stop gradients. Eight numbers are drawn for every row, whether it is
    augmented or not; none at strength 0.

    Args:
        images_BCHW: float, [-1, 1].
        strength: in [0, 1]; at 0 the very same tensor comes back.
        draws: the numbers of these rows.

    Returns:
        augmented_BCHW, same shape and dtype; brightness and contrast may leave [-1, 1].

    Differs from paper: a probability in front of all (Karras 2020 has one for every kind), so that one number
    turns it up and down.
    Source: Zhao, Liu, Lin, Zhu & Han 2020, arXiv:2006.10738, section 3.2; Karras et al. 2020, arXiv:2006.06676,
    section 2.2.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"wanted strength in [0, 1]; got {strength}")
    if images_BCHW.ndim != 4 or not images_BCHW.is_floating_point():
        raise ValueError(f"wanted floats [B, C, H, W]; got {images_BCHW.dtype} {list(images_BCHW.shape)}")
    if strength == 0.0:
        return images_BCHW
    drawn = draws.rand(images_BCHW.shape[0], 8, dtype=torch.float64).tolist()
    # Row by row: batches of critics are small, and slices keep gradients deterministic, which gathers do not.
    rows = zip(images_BCHW.unbind(0), drawn, strict=True)
    return torch.stack(
        [_augment_row(row_CHW, numbers[1:]) if numbers[0] < strength else row_CHW for row_CHW, numbers in rows]
    )


def patch_mosaic(images_BCHW: Tensor, cells: int, rng: torch.Generator) -> Tensor:
    """Cuts every image into `cells` x `cells` patches and lays all patches of the batch out anew, at random.

    The sides of a patch are the largest multiples of 4 that fit `cells` times; what is left over at the right and the
    bottom stays where it is. Pixels are moved, never changed: the batch holds the same pixels afterwards. In a batch
    of one the patches of that image change places.

    Args:
        images_BCHW: any dtype, sides of at least 4 * `cells` px.
        cells: patches along each side; 1 returns the same tensor.
        rng: a CPU generator.

    Returns:
        mosaic_BCHW, same shape and dtype.

    Raises:
        ValueError: the images are too small for patches of 4 px.
    """
    if images_BCHW.ndim != 4 or cells < 1:
        raise ValueError(f"wanted [B, C, H, W] and cells >= 1; got {list(images_BCHW.shape)} and {cells}")
    batch, channels, height, width = images_BCHW.shape
    patch_height, patch_width = (side // cells // 4 * 4 for side in (height, width))
    if min(patch_height, patch_width) < 4:
        raise ValueError(f"wanted images of at least {4 * cells} px for {cells} cells; got {height}x{width}")
    if cells == 1:
        return images_BCHW
    inner_height, inner_width = cells * patch_height, cells * patch_width
    grid = (batch, cells, cells, channels, patch_height, patch_width)
    inner_BCHW = images_BCHW[:, :, :inner_height, :inner_width]
    patches_NCHW = inner_BCHW.reshape(batch, channels, cells, patch_height, cells, patch_width)
    patches_NCHW = patches_NCHW.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    order = torch.randperm(patches_NCHW.shape[0], generator=rng).to(images_BCHW.device)
    shuffled = patches_NCHW[order].reshape(grid).permute(0, 3, 1, 4, 2, 5)
    mosaic_BCHW = images_BCHW.clone()
    mosaic_BCHW[:, :, :inner_height, :inner_width] = shuffled.reshape(inner_BCHW.shape)
    return mosaic_BCHW


def _scale(image_HWC: Tensor, short_px: int) -> Tensor:
    """The image with a short side of `short_px`; itself where it has that."""
    height, width = image_HWC.shape[:2]
    if min(height, width) == short_px:
        return image_HWC
    scale = short_px / min(height, width)
    # Rounding a short side could land one pixel below the size that was asked for.
    size = (max(short_px, math.floor(height * scale)), max(short_px, math.floor(width * scale)))
    image_1CHW = image_HWC.permute(2, 0, 1)[None].to(torch.float32)
    scaled_1CHW = F.interpolate(image_1CHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return scaled_1CHW[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def _augment_row(row_CHW: Tensor, draws: list[float]) -> Tensor:
    """One row through colour, translation and cutout; `draws` are seven numbers in [0, 1)."""
    brightness, saturation, contrast, down, right, centre_row, centre_column = draws
    row_CHW = row_CHW + (brightness - 0.5)
    grey_1HW = row_CHW.mean(dim=0, keepdim=True)
    row_CHW = grey_1HW + (row_CHW - grey_1HW) * (2.0 * saturation)
    mean = row_CHW.mean()
    row_CHW = mean + (row_CHW - mean) * (contrast + 0.5)
    return _cut_out(_translate(row_CHW, down, right), centre_row, centre_column)


def _translate(row_CHW: Tensor, down: float, right: float) -> Tensor:
    height, width = row_CHW.shape[1:]
    reach_rows, reach_columns = round(height / 8), round(width / 8)
    top = int(down * (2 * reach_rows + 1))
    left = int(right * (2 * reach_columns + 1))
    padded_CHW = F.pad(row_CHW, (reach_columns, reach_columns, reach_rows, reach_rows))
    return padded_CHW[:, top : top + height, left : left + width]


def _cut_out(row_CHW: Tensor, centre_row: float, centre_column: float) -> Tensor:
    height, width = row_CHW.shape[1:]
    top = int(centre_row * height) - height // 4
    left = int(centre_column * width) - width // 4
    mask_HW = row_CHW.new_ones(height, width)
    mask_HW[max(0, top) : top + height // 2, max(0, left) : left + width // 2] = 0.0
    return row_CHW * mask_HW
