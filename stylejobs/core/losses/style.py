"""How near the style is, by statistics of features that forget where things are."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.precision import widen

_MOMENTS_EPSILON = 1e-5  # under the root, as in AdaIN: a channel without variance has a finite slope
_COVARIANCE_FLOOR = 1e-6  # of the mean variance: features of few pixels have covariances without full rank
_MATCH_ROWS = 1024  # patches matched at once: bounds the table of similarities


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
    with torch.autocast(features_BCHW.device.type, enabled=False):
        # Divided before the product, so that its sums stay near one.
        flat_BCN = widen(features_BCHW).reshape(batch, channels, height * width)
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


def moments_loss(features_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Distance of channel statistics: mean over b, c of (m - m_t)^2 + (s - s_t)^2.

    m are means and s standard deviations over the pixels of a channel, s = sqrt(variance + 1e-5).

    Args:
        features_BCHW: features of the stylized images, any float dtype.
        target_BCHW: of the style, same C, any H, W; a batch of one is compared with every row.

    Returns:
        Scalar, float32 (float64 for float64 inputs), mean over batch and channels.

    Raises:
        ValueError: other channels, or neither one target nor one for every row.

    Source: Huang & Belongie 2017, arXiv:1703.06868, equation 13.
    Differs from paper: squared distances divided by C in place of Euclidean norms, as in the authors' code.
    """
    features_BCN, target_BCN = _flatten_pair(features_BCHW, target_BCHW)
    mean_BC, std_BC = _mean_std(features_BCN)
    mean_target_BC, std_target_BC = _mean_std(target_BCN)
    return ((mean_BC - mean_target_BC).square() + (std_BC - std_target_BC).square()).mean()


def gaussian_wasserstein(features_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of the Gaussians of two sets of features, divided by C, mean over b.

    W^2 = |m - m_t|^2 + tr(S + S_t - 2 (S_t^1/2 S S_t^1/2)^1/2), with means m and covariances S over pixels. Where both
    covariances are diagonal it is `moments_loss`.

    The root: with S_t = L L^T (Cholesky), S_t^1/2 S S_t^1/2 and L^T S L have the same eigenvalues, and the trace needs
    eigenvalues alone: no eigenvectors are differentiated, so equal eigenvalues do no harm. To both covariances 1e-6 of
    their mean variance is added on the diagonal, so that features of fewer pixels than channels have finite slopes;
    this takes at most 0.2 % of that mean variance off the result, and only along axes where one set has next to none.
    Computed in float64 throughout: eigenvalues here are squares, and half of float32's digits are too few.

    Args:
        features_BCHW: features of the stylized images, any float dtype.
        target_BCHW: of the style, same C, any H, W; a batch of one is compared with every row.

    Returns:
        Scalar, float32 (float64 for float64 inputs); at equal sets 0 up to rounding, which may be negative.

    Raises:
        ValueError: other channels, or neither one target nor one for every row.

    Source: Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X.
    Differs from paper: divided by C, so that one weight serves layers of any width.
    """
    features_BCN, target_BCN = _flatten_pair(features_BCHW, target_BCHW)
    channels, dtype = features_BCN.shape[1], features_BCN.dtype
    with torch.autocast(features_BCN.device.type, enabled=False):
        mean_BC, covariance_BCC = _mean_covariance(features_BCN.double())
        mean_target_BC, target_BCC = _mean_covariance(target_BCN.double())
        traces_B = _trace(covariance_BCC) + _trace(target_BCC)
        # 1e-12 so that a set of zeros still has a Cholesky factor.
        floor_B11 = (_COVARIANCE_FLOOR / (2 * channels) * traces_B + 1e-12)[:, None, None]
        eye_CC = torch.eye(channels, dtype=torch.float64, device=covariance_BCC.device)
        factor_BCC, _ = torch.linalg.cholesky_ex(target_BCC + floor_B11 * eye_CC)
        product_BCC = factor_BCC.mT @ (covariance_BCC + floor_B11 * eye_CC) @ factor_BCC
        # In exact arithmetic none is below the square of the floor.
        eigenvalues_BC = torch.linalg.eigvalsh(product_BCC).maximum(floor_B11[:, 0].square())
        bures_B = traces_B + 2 * channels * floor_B11[:, 0, 0] - 2 * eigenvalues_BC.sqrt().sum(dim=1)
        squared_B = (mean_BC - mean_target_BC).square().sum(dim=1) + bures_B
        return (squared_B / channels).mean().to(dtype)


def sliced_wasserstein(
    features_BCHW: Tensor, target_BCHW: Tensor, num_projections: int, rng: torch.Generator
) -> Tensor:
    """Sliced 2-Wasserstein distance, squared: mean over b and directions d of W_2(d . f, d . t)^2.

    On a line, W_2^2 is the integral over q in [0, 1] of the squared difference of the two q-quantiles: exact here, for
    any two numbers of pixels. A shift by v costs |v|^2 / C on average.

    Args:
        features_BCHW: features (or pixels) of the stylized images, any float dtype.
        target_BCHW: of the style, same C, any H, W; a batch of one is compared with every row.
        num_projections: random directions, uniform on the sphere; the same for every row.
        rng: a CPU generator; C x num_projections normal numbers are drawn.

    Returns:
        Scalar >= 0, float32 (float64 for float64 inputs), mean over batch and directions.

    Raises:
        ValueError: other channels, neither one target nor one for every row, or no projections.

    Source: Heitz, Vanhoey, Chambon & Belcour 2021, arXiv:2006.07229, section 3; Rabin et al. 2011,
    doi:10.1007/978-3-642-24785-9_37.
    """
    features_BCN, target_BCN = _flatten_pair(features_BCHW, target_BCHW)
    if num_projections < 1:
        raise ValueError(f"wanted at least one projection; got {num_projections}")
    directions_PC = torch.randn(num_projections, features_BCN.shape[1], generator=rng).to(features_BCN)
    directions_PC = F.normalize(directions_PC, dim=1)
    with torch.autocast(features_BCN.device.type, enabled=False):
        features_BPN = (directions_PC @ features_BCN).sort(dim=2).values
        target_BPM = (directions_PC @ target_BCN).sort(dim=2).values
    num, num_target = features_BPN.shape[2], target_BPM.shape[2]
    # Both quantile functions are constant between steps; steps are counted in units of 1 / (N M) to stay exact.
    steps_K = torch.cat([torch.arange(num) * num_target, torch.arange(num_target) * num]).unique()
    widths_K = steps_K.diff(append=steps_K.new_tensor([num * num_target])).to(features_BPN) / (num * num_target)
    steps_K = steps_K.to(features_BPN.device)
    gaps_BPK = features_BPN[..., steps_K // num_target] - target_BPM[..., steps_K // num]
    return (gaps_BPK.square() * widths_K).sum(dim=2).mean()


def mrf_loss(features_BCHW: Tensor, target_BCHW: Tensor, patch_px: int = 3, stride: int = 1) -> Tensor:
    """Local style: mean over patches i of mean((f_i - t_nn(i))^2), nn(i) = argmax over j of f_i . t_j / (|f_i| |t_j|).

    Patches are the cliques of a Markov random field over pixels: each wants to look like some patch of the style.

    Args:
        features_BCHW: features of the stylized images, any float dtype.
        target_BCHW: of the style, same C, any H, W; a batch of one is compared with every row.
        patch_px: side of the patches, in cells of the feature map.
        stride: cells from one patch to the next, in both maps.

    Returns:
        Scalar >= 0, float32 (float64 for float64 inputs), mean over everything.

    Raises:
        ValueError: other channels, neither one target nor one for every row, or a map smaller than a patch.

    Source: Li & Wand 2016, arXiv:1601.04589, equations 2 and 3.
    Differs from paper: a mean in place of sums; no rotated or scaled copies of the style.
    """
    _check_features(features_BCHW, target_BCHW)
    side = min(*features_BCHW.shape[2:], *target_BCHW.shape[2:])
    if not 1 <= patch_px <= side or stride < 1:
        raise ValueError(f"wanted patches of 1 to {side} cells and a stride of at least 1; got {patch_px} and {stride}")
    patches_BNK, target_BMK = (
        F.unfold(widen(features), patch_px, stride=stride).mT for features in (features_BCHW, target_BCHW)
    )
    target_BMK = target_BMK.expand(patches_BNK.shape[0], -1, -1)
    losses = []
    for patches_NK, target_MK in zip(patches_BNK, target_BMK, strict=True):
        losses.append((patches_NK - target_MK[_match(patches_NK, target_MK)]).square().mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def _match(patches_NK: Tensor, target_MK: Tensor) -> Tensor:
    """Index of the target with the highest cosine, for every patch; the patch's own norm does not change it."""
    with torch.autocast(patches_NK.device.type, enabled=False):
        unit_KM = F.normalize(target_MK, dim=1).T
        return torch.cat([(rows @ unit_KM).argmax(dim=1) for rows in patches_NK.split(_MATCH_ROWS)])


def _mean_std(features_BCN: Tensor) -> tuple[Tensor, Tensor]:
    variance_BC, mean_BC = torch.var_mean(features_BCN, dim=2, correction=0)
    return mean_BC, (variance_BC + _MOMENTS_EPSILON).sqrt()


def _mean_covariance(features_BCN: Tensor) -> tuple[Tensor, Tensor]:
    mean_BC = features_BCN.mean(dim=2)
    centred_BCN = features_BCN - mean_BC[:, :, None]
    return mean_BC, centred_BCN @ centred_BCN.mT / features_BCN.shape[2]


def _trace(matrix_BCC: Tensor) -> Tensor:
    return matrix_BCC.diagonal(dim1=1, dim2=2).sum(dim=1)


def _flatten_pair(features_BCHW: Tensor, target_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    _check_features(features_BCHW, target_BCHW)
    return widen(features_BCHW).flatten(2), widen(target_BCHW).flatten(2)


def _check_features(features_BCHW: Tensor, target_BCHW: Tensor) -> None:
    shape, target = features_BCHW.shape, target_BCHW.shape
    fits = len(shape) == len(target) == 4 and shape[1] == target[1] and target[0] in (1, shape[0])
    if not fits or 0 in (*shape, *target):
        raise ValueError(
            "wanted features [B, C, H, W] of one C, and one target or one for every row; "
            f"got {list(shape)} and {list(target)}"
        )


def _check_grams(gram_BCC: Tensor, target_BCC: Tensor) -> None:
    if gram_BCC.shape[1:] != target_BCC.shape[1:] or target_BCC.shape[0] not in (1, gram_BCC.shape[0]):
        raise ValueError(
            "wanted Gram matrices of one size, and one target or one for every row; "
            f"got {list(gram_BCC.shape)} and {list(target_BCC.shape)}"
        )
