"""The running average of a network's weights, which is what gets registered."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of the weights, warmed up.

    After the t-th update (t = 1, 2, ...): a_t = d_t * a_(t-1) + (1 - d_t) * w_t with d_t = min(decay, t / (t + 9)),
    and a_0 the weights at construction. The warm-up keeps a short training from being averaged with its random start.
    Floating-point tensors are averaged (weights in their own dtype, at least float32), all others copied.

    Args:
        module: the network, not its DDP wrapper.
        decay: in [0, 1); 0.999 is usual.

    Source: Polyak & Juditsky 1992, doi:10.1137/0330046; the warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999):
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"wanted decay in [0, 1); got {decay}")
        self.decay = decay
        self.num_updates = 0
        self._averages = {name: _own_copy(value) for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes in the module's weights of now."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 9))
        for name, value in module.state_dict().items():
            average = self._averages[name]
            if average.is_floating_point():
                average.lerp_(value.to(average.device, average.dtype), 1.0 - decay)
            else:
                average.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights under the module's own names; copies, so later updates do not reach them."""
        return {name: average.clone() for name, average in self._averages.items()}

    def load_state_dict(self, averages: Mapping[str, Tensor], num_updates: int) -> None:
        """Goes on from averaged weights and the `num_updates` that belongs to them."""
        if set(averages) != set(self._averages):
            different = sorted(set(averages) ^ set(self._averages))
            raise ValueError(f"wanted the names of this module's weights; these are only on one side: {different}")
        for name, average in self._averages.items():
            average.copy_(averages[name])
        self.num_updates = num_updates


def _own_copy(value: Tensor) -> Tensor:
    narrow = value.dtype in (torch.float16, torch.bfloat16)
    return value.detach().to(torch.float32 if narrow else value.dtype, copy=True)
