"""How near the style is, by statistics of features that forget where things are."""

import torch
from torch import Tensor


def gram_matrix(features_BCHW: Tensor) -> Tensor:
    """Gram matrix of feature maps: G = F F^T / (C H W), with F the features as a C x (H W) matrix.

    Computed in float32 or wider even under autocast: sums over all pixels overflow or drown in half precision.

    Args:
        features_BCHW: features, any float dtype.

    Returns:
        gram_BCC: symmetric, positive semidefinite; float32 (float64 for float64 input).

    Source: Gatys, Ecker & Bethge 2015, arXiv:1508.06576, equation 3; normalised as in Johnson, Alahi & Fei-Fei 2016,
    arXiv:1603.08155, equation 3.

    >>> gram_matrix(torch.ones(1, 2, 2, 4)).tolist()
    [[[0.5, 0.5], [0.5, 0.5]]]
    """
    batch, channels, height, width = features_BCHW.shape
    dtype = torch.promote_types(features_BCHW.dtype, torch.float32)
    with torch.autocast(features_BCHW.device.type, enabled=False):
        # Divided before the product, so that its sums stay near one.
        flat_BCN = features_BCHW.to(dtype).reshape(batch, channels, height * width)
        scaled_BCN = flat_BCN / (channels * height * width) ** 0.5
        return scaled_BCN @ scaled_BCN.transpose(1, 2)


def gram_distance(gram_BCC: Tensor, target_BCC: Tensor) -> Tensor:
    """Relative distance of Gram matrices: mean over b of |G_b - T_b| / |T_b|, Frobenius norms.

    Dimensionless: 0 at the target, 1 for an image without features, so one weight serves every layer, backbone and
    style. Not squared, so that an image with far more energy than the style is not pressed flat before it learns.

    Args:
        gram_BCC: of the stylized images.
        target_BCC: of the style; a batch of one is compared with every row.

    Returns:
        Scalar, mean over the batch. Its gradient is finite at the target too: 1e-12 is added under the root.

    Differs from paper: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equation 4, is the square without the division.

    >>> gram_distance(torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 2.0)).item()
    0.5
    """
    _check_grams(gram_BCC, target_BCC)
    norm_B = target_BCC.square().sum(dim=(1, 2)).sqrt().clamp_min(1e-12)
    relative_BCC = (gram_BCC - target_BCC) / norm_B[:, None, None]
    return ((relative_BCC.square().sum(dim=(1, 2)) + 1e-12).sqrt()).mean()


def gram_loss(gram_BCC: Tensor, target_BCC: Tensor) -> Tensor:
    """Squared distance of Gram matrices: mean over b, c, c' of (G - T)^2.

    Args:
        gram_BCC: of the stylized images.
        target_BCC: of the style; a batch of one is compared with every row.

    Returns:
        Scalar, mean over everything.

    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equation 4.
    Differs from paper: the mean over C x C entries in place of the squared Frobenius norm, that is divided by C^2.
    """
    _check_grams(gram_BCC, target_BCC)
    return (gram_BCC - target_BCC).square().mean()


def _check_grams(gram_BCC: Tensor, target_BCC: Tensor) -> None:
    if gram_BCC.shape[1:] != target_BCC.shape[1:] or target_BCC.shape[0] not in (1, gram_BCC.shape[0]):
        raise ValueError(
            "wanted Gram matrices of one size, and one target or one for every row; "
            f"got {list(gram_BCC.shape)} and {list(target_BCC.shape)}"
        )
