"""How much of the content was kept."""

import torch
from torch import Tensor


def feature_loss(features_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Squared distance of two feature maps: mean over b, c, h, w of (f - t)^2.

    Args:
        features_BCHW: features of the stylized images, any float dtype.
        target_BCHW: features of the content images, same shape.

    Returns:
        Scalar, float32 (float64 for float64 inputs), mean over everything.

    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equation 2.

    >>> feature_loss(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0)).item()
    9.0
    """
    if features_BCHW.shape != target_BCHW.shape:
        raise ValueError(f"wanted features of one shape; got {list(features_BCHW.shape)} and {list(target_BCHW.shape)}")
    dtype = torch.promote_types(features_BCHW.dtype, torch.float32)
    return (features_BCHW.to(dtype) - target_BCHW.to(dtype)).square().mean()
