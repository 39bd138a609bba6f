"""What a result should satisfy by itself, or against the image it came from, without a style beside it."""

from torch import Tensor

from stylejobs.core.losses.content import l1_loss
from stylejobs.core.precision import widen


def cycle_loss(reconstructed_BCHW: Tensor, image_BCHW: Tensor) -> Tensor:
    """Cycle consistency, one direction: mean over b, c, h, w of |F(G(x)) - x|.

    The same formula is the identity loss, |G(y) - y| for y that already is of G's target domain.

    Args:
        reconstructed_BCHW: F(G(x)), or G(y) for the identity loss; float, [-1, 1].
        image_BCHW: x, or y; same shape and range.

    Returns:
        Scalar in [0, 2], float32 (float64 for float64 inputs), unweighted.

    Raises:
        ValueError: the shapes differ.

    Differs from paper: the mean over pixels in place of their sum, as in all public code, so that a weight of 10 fits.
    Source: Zhu, Park, Isola & Efros 2017, arXiv:1703.10593, equation 2; identity: its section 5.2.
    """
    return l1_loss(reconstructed_BCHW, image_BCHW)


def total_variation(image_BCHW: Tensor) -> Tensor:
    """Anisotropic total variation: (sum of |x[h+1, w] - x[h, w]| + sum of |x[h, w+1] - x[h, w]|) / (B C H W).

    Args:
        image_BCHW: images in [-1, 1], any H, W >= 1.

    Returns:
        Scalar, mean over pixels and channels; float32 (float64 for float64 input).

    Source: Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F.
    Differs from paper: anisotropic (absolute differences along each axis are added, not joined under a root).

    >>> import torch
    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])).item()
    0.5
    """
    image_BCHW = widen(image_BCHW)
    vertical = image_BCHW.diff(dim=2).abs().sum()
    horizontal = image_BCHW.diff(dim=3).abs().sum()
    return (vertical + horizontal) / image_BCHW.numel()
