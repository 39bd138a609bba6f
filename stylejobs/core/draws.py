"""What makes N workers train as one: random draws of a global batch, and means over workers.

Rows of a global batch are dealt in turns: of W workers, row g is on worker g mod W, at place g // W there.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Mean = Callable[[Tensor], Tensor]
"""The mean over all workers of a detached tensor. All workers call it, at the same places of a step."""


def mean_of_one(value: Tensor) -> Tensor:
    """The mean over one worker: the value itself."""
    return value


class Draws:
    """Random numbers of the rows of a global batch, of which each worker takes its own.

    All workers draw the same numbers, those of all their rows, from generators in the same state, and worker r keeps
    each W-th from its own on. So the numbers of a row do not depend on how many workers there are; nor do they where a
    worker joins several batches to one: place B + j of worker r is row W B + j W + r of the batches of all, joined.

    Args:
        shared: a CPU generator, in the same state on every worker; draw from it what all rows share.
        rank: which worker this is.
        num_workers: how many there are, all with as many rows.

    Raises:
        ValueError: no such worker.

    >>> Draws(torch.Generator().manual_seed(0), rank=1, num_workers=2).randint(10, 3).shape
    torch.Size([3])
    """

    def __init__(self, shared: torch.Generator, rank: int = 0, num_workers: int = 1):
        if not 0 <= rank < num_workers:
            raise ValueError(f"wanted a rank below the number of workers; got {rank} of {num_workers}")
        self.shared = shared
        self._rank, self._num_workers = rank, num_workers

    def rand(self, rows: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform in [0, 1): [rows, *shape], for this worker's rows."""
        return self._own(torch.rand(rows * self._num_workers, *shape, generator=self.shared, dtype=dtype))

    def randn(self, rows: int, *shape: int) -> Tensor:
        """From N(0, 1): float32 [rows, *shape], for this worker's rows."""
        return self._own(torch.randn(rows * self._num_workers, *shape, generator=self.shared, dtype=torch.float32))

    def randint(self, high: int, rows: int) -> Tensor:
        """In 0 .. high - 1, all alike: int64 [rows], for this worker's rows."""
        return self._own(torch.randint(high, (rows * self._num_workers,), generator=self.shared))

    def _own(self, all_rows: Tensor) -> Tensor:
        return all_rows[self._rank :: self._num_workers]
