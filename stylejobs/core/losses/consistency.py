"""What a result should satisfy by itself, without a style or a content image beside it."""

import torch
from torch import Tensor


def total_variation(image_BCHW: Tensor) -> Tensor:
    """Anisotropic total variation: (sum of |x[h+1, w] - x[h, w]| + sum of |x[h, w+1] - x[h, w]|) / (B C H W).

    Args:
        image_BCHW: images in [-1, 1], any H, W >= 1.

    Returns:
        Scalar, mean over pixels and channels; float32 (float64 for float64 input).

    Source: Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F.
    Differs from paper: anisotropic (absolute differences along each axis are added, not joined under a root).

    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).item()
    0.5
    """
    image_BCHW = image_BCHW.to(torch.promote_types(image_BCHW.dtype, torch.float32))
    vertical = image_BCHW.diff(dim=2).abs().sum()
    horizontal = image_BCHW.diff(dim=3).abs().sum()
    return (vertical + horizontal) / image_BCHW.numel()
