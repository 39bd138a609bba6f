"""The workers that train together, as a worker sees them: who it is, and what they agree on."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Group:
    """All workers of `torch.distributed`'s default group, or this process alone where there is none.

    Args:
        device: where tensors must be to travel.
    """

    def __init__(self, device: torch.device | None = None):
        self._device = device or torch.device("cpu")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.num_workers = torch.distributed.get_world_size() if distributed else 1
        self.rank = torch.distributed.get_rank() if distributed else 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @torch.no_grad()
    def mean(self, values: Tensor) -> Tensor:
        """The mean over all workers, on the device of `values`."""
        if self.num_workers == 1:
            return values
        total = values.detach().to(self._device, copy=True)
        torch.distributed.all_reduce(total)
        return (total / self.num_workers).to(values.device)

    def mean_of_known(self, value: float | None) -> float | None:
        """The mean over those workers that know a value; all must ask."""
        total, known = self.mean(torch.tensor([value or 0.0, float(value is not None)], dtype=torch.float64)).tolist()
        return total / known if known else None

    def all_agree(self, is_so: bool) -> bool:
        """Whether it is so on every worker."""
        return float(self.mean(torch.tensor([float(is_so)], dtype=torch.float64))) == 1.0

    def from_first(self, value: Any = None) -> Any:
        """What the first worker gave; plain values, and few of them."""
        if self.num_workers == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def gather(self, values: list) -> list:
        """The values of all workers, one after the other, on every worker."""
        if self.num_workers == 1:
            return values
        everyones: list = [None] * self.num_workers
        torch.distributed.all_gather_object(everyones, values)
        return [value for some in everyones for value in some]
