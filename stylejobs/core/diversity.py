"""How different the images of a set are from each other, and whether a generator's outputs still differ."""

import math
from collections import deque
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.precision import widen

_THUMBNAIL_PX = 16


def diversity(images_BCHW: Tensor) -> Tensor:
    """How different images are: the mean over all pairs of the root mean square of their difference, at 16x16 px.

    Args:
        images_BCHW: float, [-1, 1], at least two rows (one has no pair; `DiversityWatch` remembers for batches of one).

    Returns:
        Scalar, float32 or wider, in [0, 2]; 0 for equal images, near 0.5 for photographs.
    """
    if images_BCHW.ndim != 4 or images_BCHW.shape[0] < 2:
        raise ValueError(
            f"wanted at least two images [B, C, H, W]; got {list(images_BCHW.shape)}: use DiversityWatch for fewer"
        )
    flat_BN = _thumbnails(images_BCHW).flatten(1)
    return torch.pdist(flat_BN).mean() / math.sqrt(flat_BN.shape[1])


class DiversityWatch:
    """Diversity of the last outputs relative to their sources': 1 keeps what there is, 0 is collapse.

    Remembers thumbnails (16x16 px) of the last `window` sources and outputs, because a worker's batch is often one
    image. The generator moves a little within the window, which adds to the diversity; a collapse outweighs it.

    Args:
        window: images; there is no answer before it is full.
    """

    def __init__(self, window: int = 16):
        if window < 2:
            raise ValueError(f"wanted window >= 2, because diversity is about pairs; got {window}")
        self.window = window
        self._sources: deque[Tensor] = deque(maxlen=window)
        self._outputs: deque[Tensor] = deque(maxlen=window)

    @torch.no_grad()
    def add(self, sources_BCHW: Tensor, outputs_BCHW: Tensor) -> float | None:
        """Takes in a batch.

        Args:
            sources_BCHW: float, [-1, 1], any size.
            outputs_BCHW: what the generator made of them, row by row.

        Returns:
            diversity(outputs) / diversity(sources) over the window. None while the window fills and where the sources
            are all alike (a domain of one image). Not finite if an output is not; the window forgets it in time.
        """
        if sources_BCHW.shape[0] != outputs_BCHW.shape[0]:
            raise ValueError(
                f"wanted an output for every source; got {outputs_BCHW.shape[0]} for {sources_BCHW.shape[0]}"
            )
        self._sources.extend(_thumbnails(sources_BCHW).cpu())
        self._outputs.extend(_thumbnails(outputs_BCHW).cpu())
        if len(self._sources) < self.window:
            return None
        of_sources = diversity(torch.stack(list(self._sources))).item()
        if of_sources < 1e-6:
            return None
        return diversity(torch.stack(list(self._outputs))).item() / of_sources

    def state_dict(self) -> dict[str, Tensor]:
        """The window as two CPU tensors, of no element while it is empty."""
        empty = torch.empty(0)
        return {
            "sources_NCHW": torch.stack(list(self._sources)) if self._sources else empty,
            "outputs_NCHW": torch.stack(list(self._outputs)) if self._outputs else empty,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a saved window; of a longer one the newest rows stay."""
        self._sources = deque((row.clone() for row in state["sources_NCHW"]), maxlen=self.window)
        self._outputs = deque((row.clone() for row in state["outputs_NCHW"]), maxlen=self.window)


def _thumbnails(images_BCHW: Tensor) -> Tensor:
    """Means over cells of a 16x16 grid, at least float32."""
    return F.adaptive_avg_pool2d(widen(images_BCHW), _THUMBNAIL_PX)
