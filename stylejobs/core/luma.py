"""Luma and chroma: the grey picture of an image, and images that take the luma of one and the colours of another."""

from torch import Tensor

_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114


def luma(image_BCHW: Tensor) -> Tensor:
    """Luma: Y = 0.299 R + 0.587 G + 0.114 B, of gamma-coded values as they are in the file.

    Args:
        image_BCHW: float, RGB, [-1, 1].

    Returns:
        luma_B1HW, same dtype and range.

    Source: ITU-R BT.601-7, section 2.5.1.

    >>> luma(Tensor([0.5, 0.5, 0.5]).reshape(1, 3, 1, 1)).item()
    0.5
    """
    if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
        raise ValueError(f"wanted a float batch [B, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(dim=1)
    return (_RED * red_BHW).add_(green_BHW, alpha=_GREEN).add_(blue_BHW, alpha=_BLUE).unsqueeze(1)


def keep_colour(stylized_BCHW: Tensor, content_BCHW: Tensor) -> Tensor:
    """The luma of the stylized image with the chroma of the content: x + (Y(stylized) - Y(x)), on R, G and B alike.

    Chroma is any linear difference of channels (I and Q, Cb and Cr, R - Y, ...): adding one number to all three
    channels of a pixel leaves every one of them as it was. A white brush stroke on a saturated red has no place in
    [-1, 1]: such values are left for `to_uint8` to clip, after the blend with the source, and only there the chroma
    changes.

    Args:
        stylized_BCHW: float, RGB, [-1, 1].
        content_BCHW: float, same shape: whose colours are kept.

    Returns:
        image_BCHW, within [-3, 3].

    Source: Gatys, Bethge, Hertzmann & Shechtman 2016, arXiv:1606.05897, section 3.2, luminance-only transfer.
    Differs from paper: the style's luma is not matched to the content's mean and deviation before training, because
    the generator is trained already; any linear luma and chroma space gives what YIQ gives.
    """
    if stylized_BCHW.shape != content_BCHW.shape:
        raise ValueError(
            f"wanted two batches of one shape; got {list(stylized_BCHW.shape)} and {list(content_BCHW.shape)}"
        )
    return content_BCHW + (luma(stylized_BCHW) - luma(content_BCHW))
