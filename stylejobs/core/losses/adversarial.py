"""What critics and generators want of each other. Critics give logits; every loss here is to be minimised."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.choices import choose
from stylejobs.core.draws import Draws, Mean, mean_of_one
from stylejobs.core.precision import widen

Logits = Tensor | Sequence[Tensor]

_CRITIC_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vanilla": lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
    "lsgan": lambda real, fake: 0.5 * ((real - 1.0).square().mean() + fake.square().mean()),
    "hinge": lambda real, fake: F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean(),
    "wgan_gp": lambda real, fake: fake.mean() - real.mean(),
}
_GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "vanilla": lambda fake: F.softplus(-fake).mean(),
    "lsgan": lambda fake: (fake - 1.0).square().mean(),
    "hinge": lambda fake: -fake.mean(),
    "wgan_gp": lambda fake: -fake.mean(),
}
KINDS = tuple(_CRITIC_LOSSES)
# Where a critic changes its mind; wgan_gp has no such level, its logits are free up to a constant.
_THRESHOLDS = {"vanilla": 0.0, "lsgan": 0.5, "hinge": 0.0}


def critic_loss(kind: str, real_logits: Logits, fake_logits: Logits) -> Tensor:
    """The critic's loss; r are logits of real images, f of generated ones, E means over all logits.

    - vanilla: E softplus(-r) + E softplus(f), that is -E log sigmoid(r) - E log(1 - sigmoid(f)); >= 0.
    - lsgan: 1/2 (E (r - 1)^2 + E f^2); >= 0. The 1/2 slows the critic down, as in Zhu 2017.
    - hinge: E max(0, 1 - r) + E max(0, 1 + f); >= 0.
    - wgan_gp: E f - E r; of any sign, minus it estimates the Wasserstein distance. Add `gradient_penalty` (weight 10)
      and `drift_penalty` (weight 1e-3).

    Args:
        kind: one of KINDS.
        real_logits: any shape, or a sequence of such (scales, averaged).
        fake_logits: as many scales; the batch may have another size. Detach the generated images beforehand.

    Returns:
        Scalar, float32 (float64 for float64 logits), mean over logits, then over scales.

    Raises:
        ValueError: an unknown kind, no logits, or other scales for real than for fake.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, equation 1; Mao et al. 2017, arXiv:1611.04076, equation 2, with
    Zhu et al. 2017, arXiv:1703.10593, section 4; Lim & Ye 2017, arXiv:1705.02894; Gulrajani et al. 2017,
    arXiv:1704.00028, equation 3.

    >>> critic_loss("wgan_gp", torch.tensor([2.0]), torch.tensor([-1.0])).item()
    -3.0
    """
    loss = choose("kind of adversarial loss", _CRITIC_LOSSES, kind)
    return torch.stack([loss(real, fake) for real, fake in _pair_scales(real_logits, fake_logits)]).mean()


def generator_loss(kind: str, fake_logits: Logits) -> Tensor:
    """The generator's loss; f are logits of generated images, E means over all logits.

    - vanilla: E softplus(-f), that is -E log sigmoid(f): the form that does not saturate; >= 0.
    - lsgan: E (f - 1)^2, without a 1/2, as in Zhu 2017; >= 0.
    - hinge and wgan_gp: -E f; of any sign.

    Args:
        kind: one of KINDS.
        fake_logits: any shape, or a sequence of such (scales, averaged).

    Returns:
        Scalar, float32 (float64 for float64 logits), mean over logits, then over scales.

    Raises:
        ValueError: an unknown kind, or no logits.

    Source: as for `critic_loss`.

    >>> generator_loss("lsgan", torch.tensor([0.0])).item()
    1.0
    """
    loss = choose("kind of adversarial loss", _GENERATOR_LOSSES, kind)
    return torch.stack([loss(fake) for fake in _list_scales(fake_logits)]).mean()


def critic_accuracy(kind: str, real_logits: Logits, fake_logits: Logits, mean: Mean = mean_of_one) -> Tensor:
    """How often the critic is right: (share of r > t + share of f <= t) / 2.

    The threshold t is 0 (vanilla, hinge), 1/2 (lsgan), or half-way between the means of r and f (wgan_gp).

    Args:
        kind: one of KINDS.
        real_logits: any shape, or a sequence of such (scales, averaged).
        fake_logits: as many scales.
        mean: over all workers, so that of wgan_gp all have one threshold; other kinds do not call it.

    Returns:
        Scalar in [0, 1], float32, without gradient; 1/2 for a critic that says the same of everything. Its mean over
        workers is the accuracy on the rows of all.

    Raises:
        ValueError: as for `critic_loss`.

    >>> critic_accuracy("hinge", torch.tensor([2.0, 0.1]), torch.tensor([-1.0, 0.5])).item()
    0.75
    """
    choose("kind of adversarial loss", _CRITIC_LOSSES, kind)
    shares = []
    for real, fake in _pair_scales(real_logits, fake_logits):
        real, fake = real.detach(), fake.detach()
        threshold = _THRESHOLDS[kind] if kind in _THRESHOLDS else mean((real.mean() + fake.mean()) / 2.0)
        right_real, right_fake = (real > threshold).float().mean(), (fake <= threshold).float().mean()
        shares.append((right_real + right_fake) / 2.0)
    return torch.stack(shares).mean()


def gradient_penalty(critic: Callable[[Tensor], object], real_BCHW: Tensor, fake_BCHW: Tensor, draws: Draws) -> Tensor:
    """How far the critic's slope is from 1: mean over b of (|grad of D at x_b| - 1)^2, x = e real + (1 - e) fake.

    e is uniform in [0, 1], one for each pair. D(x) is the mean of the logits of an image. Needs a critic whose rows do
    not depend on each other: no batch norm. The critic runs outside of autocast, in float32 or wider.

    Args:
        critic: images to logits, a list of logits (scales, averaged), or a tuple whose first entry is either.
        real_BCHW: float, [-1, 1].
        fake_BCHW: same shape; row b is paired with row b of `real_BCHW`. No gradient flows to either.
        draws: the numbers of these pairs, one each.

    Returns:
        Scalar >= 0, unweighted (the paper's weight is 10), differentiable in the critic's weights.

    Raises:
        ValueError: the shapes differ, or the logits have no row for each image.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, equation 3 and algorithm 1.
    Differs from public code for patch critics: the mean of an image's logits in place of their sum, because the mean is
    what `critic_loss` compares; so the penalty does not depend on the number of patches.
    """
    if real_BCHW.shape != fake_BCHW.shape or real_BCHW.ndim < 2:
        raise ValueError(
            f"wanted real and fake images of one shape; got {list(real_BCHW.shape)} and {list(fake_BCHW.shape)}"
        )
    real_BCHW, fake_BCHW = widen(real_BCHW.detach()), widen(fake_BCHW.detach())
    share_B = draws.rand(real_BCHW.shape[0]).to(real_BCHW)
    share_B111 = share_B.reshape(-1, *(1 for _ in real_BCHW.shape[1:]))
    mixed_BCHW = (share_B111 * real_BCHW + (1.0 - share_B111) * fake_BCHW).requires_grad_()
    with torch.autocast(mixed_BCHW.device.type, enabled=False):
        output = critic(mixed_BCHW)
        slope_BN = _slope(output[0] if isinstance(output, tuple) else output, mixed_BCHW)
    return (torch.linalg.vector_norm(slope_BN, dim=1) - 1.0).square().mean()


def drift_penalty(real_logits: Logits) -> Tensor:
    """Keeps a Wasserstein critic's logits near 0: mean of r^2.

    Args:
        real_logits: logits of real images, any shape, or a sequence of such (scales, averaged).

    Returns:
        Scalar >= 0, unweighted (the paper's weight is 1e-3).

    Source: Karras, Aila, Laine & Lehtinen 2018, arXiv:1710.10196, appendix A.1.

    >>> drift_penalty(torch.tensor([1.0, -3.0])).item()
    5.0
    """
    return torch.stack([real.square().mean() for real in _list_scales(real_logits)]).mean()


def r1_penalty(real_logits: Logits, real_BCHW: Tensor) -> Tensor:
    """Flattens the critic at real images: 1/2 mean over b of |grad of D at x_b|^2; D(x) is the mean of x's logits.

    Lazily every k steps: multiply its weight by k. Compute the logits outside of autocast: the slope of a critic in
    half precision is mostly rounding.

    Args:
        real_logits: the critic's logits of `real_BCHW`, a row for each image, or a sequence of such (scales, averaged).
        real_BCHW: float, [-1, 1], with `requires_grad_()` set before the critic saw it.

    Returns:
        Scalar >= 0, to be multiplied by gamma; differentiable in the critic's weights.

    Raises:
        ValueError: the images do not require a gradient, or the logits have no row for each image.

    Source: Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, equation 9; lazily: Karras et al. 2020,
    arXiv:1912.04958, section 3.
    """
    if not real_BCHW.requires_grad:
        raise ValueError("wanted real images that require a gradient; call requires_grad_() before the critic")
    return 0.5 * _slope(real_logits, real_BCHW).square().sum(dim=1).mean()


def domain_classification(domain_logits_BK: Tensor, domain_B: Tensor) -> Tensor:
    """Cross-entropy of the domains that a critic sees: mean over b of -log softmax(logits_b)[domain_b].

    Args:
        domain_logits_BK: logits of K domains, any float dtype.
        domain_B: int64 in 0 .. K-1: the true domain (critic's step, real images) or the target (generator's step).

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits), in nats.

    Raises:
        ValueError: wrong shapes, or domains that are not int64.

    Source: Choi et al. 2018, arXiv:1711.09020, equations 2 and 3.

    >>> round(domain_classification(torch.zeros(1, 2), torch.tensor([1])).item(), 4)
    0.6931
    """
    if domain_logits_BK.ndim != 2 or domain_B.shape != domain_logits_BK.shape[:1] or domain_B.dtype != torch.int64:
        raise ValueError(
            "wanted logits [B, K] and int64 domains [B]; "
            f"got {list(domain_logits_BK.shape)} and {domain_B.dtype} {list(domain_B.shape)}"
        )
    return F.cross_entropy(widen(domain_logits_BK), domain_B)


def marginal_entropy(logits_BK: Tensor, mean: Mean = mean_of_one) -> Tensor:
    """Entropy of the batch's mean prediction: -sum over k of p_k log p_k, p = mean over b of softmax(logits_b).

    High where a batch as a whole is diverse: subtract alpha times it from a generator's loss. K = 1 is a yes or no,
    p = mean of sigmoid. Not a mean over rows: the entropy of a batch is no mean of those of its halves. So p is that of
    the rows of all workers, as a value; the gradient flows to this worker's rows, and its mean over workers is exactly
    that of the entropy of all rows.

    Args:
        logits_BK: B >= 1, K >= 1, any float dtype.
        mean: over all workers, each with as many rows; called once.

    Returns:
        Scalar in [0, log K] (log 2 for K = 1), float32 (float64 for float64 logits), in nats.

    Raises:
        ValueError: another shape, or an empty one.

    Source: Springenberg 2016, arXiv:1511.06390, section 3.1 (the marginal class entropy).

    >>> round(marginal_entropy(torch.tensor([[9.0], [-9.0]])).item(), 4)
    0.6931
    """
    if logits_BK.ndim != 2 or logits_BK.numel() == 0:
        raise ValueError(f"wanted logits [B, K], neither empty; got {list(logits_BK.shape)}")
    logits_BK = widen(logits_BK)
    if logits_BK.shape[1] == 1:
        logits_BK = torch.cat([logits_BK, torch.zeros_like(logits_BK)], dim=1)
    own_K = logits_BK.softmax(dim=1).mean(dim=0)
    p_K = own_K + (mean(own_K.detach()) - own_K.detach())
    # Where p has rounded to 0, log p has no finite slope.
    return -(p_K * p_K.clamp_min(torch.finfo(p_K.dtype).tiny).log()).sum()


def _slope(logits: Logits, image_BCHW: Tensor) -> Tensor:
    """Gradient of each image's mean logit in its own pixels, [B, C H W], itself differentiable."""
    batch, scales = image_BCHW.shape[0], _list_scales(logits)
    if any(scale.ndim == 0 or scale.shape[0] != batch for scale in scales):
        raise ValueError(f"wanted logits with {batch} rows; got {[list(scale.shape) for scale in scales]}")
    value_B = torch.stack([scale.reshape(batch, -1).mean(dim=1) for scale in scales]).mean(dim=0)
    (slope_BCHW,) = torch.autograd.grad(value_B.sum(), image_BCHW, create_graph=True)
    return widen(slope_BCHW).flatten(1)


def _pair_scales(real_logits: Logits, fake_logits: Logits) -> list[tuple[Tensor, Tensor]]:
    real, fake = _list_scales(real_logits), _list_scales(fake_logits)
    if [scale.ndim for scale in real] != [scale.ndim for scale in fake]:
        raise ValueError(
            "wanted logits of as many scales and axes for real as for fake images; "
            f"got {[list(scale.shape) for scale in real]} and {[list(scale.shape) for scale in fake]}"
        )
    return list(zip(real, fake, strict=True))


def _list_scales(logits: Logits) -> list[Tensor]:
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    if len({scale.ndim for scale in scales}) != 1 or any(scale.numel() == 0 for scale in scales):
        raise ValueError(
            "wanted logits, or a sequence of logits of one rank, none of them empty; "
            f"got {[list(scale.shape) for scale in scales]}; of (logits, domain_logits) pass the first"
        )
    return [widen(scale) for scale in scales]
