"""Random features for the tests of losses."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from stylejobs.core.losses import sliced_wasserstein

seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(2, 6), st.integers(2, 6))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normally distributed."""
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def points(features_CHW: Tensor) -> np.ndarray:
    """A point in C dimensions for each place: float64 [C, N]."""
    return features_CHW.detach().double().numpy().reshape(features_CHW.shape[0], -1)


def sliced(features: Tensor, target: Tensor, num_projections: int = 8, seed: int = 0) -> Tensor:
    """The sliced Wasserstein loss along directions that `seed` draws."""
    return sliced_wasserstein(features, target, num_projections, rng(seed))
