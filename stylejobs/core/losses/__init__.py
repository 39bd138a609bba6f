"""Losses as pure functions of tensors: means over a batch, in float32 or wider, differentiable in every argument."""

from stylejobs.core.losses.adversarial import (
    KINDS,
    critic_accuracy,
    critic_loss,
    domain_classification,
    drift_penalty,
    generator_loss,
    gradient_penalty,
    marginal_entropy,
    r1_penalty,
)
from stylejobs.core.losses.consistency import cycle_loss, total_variation
from stylejobs.core.losses.content import feature_loss, l1_loss, l2_loss, perceptual_loss
from stylejobs.core.losses.contrastive import patch_nce
from stylejobs.core.losses.style import (
    gaussian_wasserstein,
    gram_distance,
    gram_loss,
    gram_matrix,
    moments_loss,
    mrf_loss,
    sliced_wasserstein,
)

__all__ = [
    "KINDS",
    "critic_accuracy",
    "critic_loss",
    "cycle_loss",
    "domain_classification",
    "drift_penalty",
    "feature_loss",
    "gaussian_wasserstein",
    "generator_loss",
    "gradient_penalty",
    "gram_distance",
    "gram_loss",
    "gram_matrix",
    "l1_loss",
    "l2_loss",
    "marginal_entropy",
    "moments_loss",
    "mrf_loss",
    "patch_nce",
    "perceptual_loss",
    "r1_penalty",
    "sliced_wasserstein",
    "total_variation",
]
