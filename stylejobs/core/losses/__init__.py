"""Losses as pure functions of tensors: means over a batch, in float32 or wider, differentiable in every argument."""

from stylejobs.core.losses.consistency import total_variation
from stylejobs.core.losses.content import feature_loss
from stylejobs.core.losses.style import gram_distance, gram_loss, gram_matrix

__all__ = ["feature_loss", "gram_distance", "gram_loss", "gram_matrix", "total_variation"]
