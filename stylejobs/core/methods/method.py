"""What a training method is: its networks and the losses that drive them. The loop lives elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class Objective:
    """One player's turn within a step.

    Args:
        player: the optimizer that takes the step, a key of `build_optimizers`.
        loss: scalar with a graph, a mean over the batch.
        terms: what it is made of, detached scalars by name, for logs; weighted, so that they sum to `total`.
    """

    player: str
    loss: Tensor
    terms: dict[str, Tensor]


class Method(ABC):
    """A method's networks, optimizers and objectives.

    The loop moves `networks` and `frozen` to its device (in place: keep no other tensors), wraps each of `networks` in
    a DDP of its own, and for every batch walks through `objectives`: for each one it clears the player's gradients,
    runs backward and lets the player's optimizer step, before it asks for the next.

    Attributes:
        networks: what is trained, by name; the generator that gets registered is called "generator".
        frozen: modules that take part but are never trained.
        generator_name: its key in `NETWORKS`, for the package.
        generator_options: the options it was built with, plain values.
        styles: style name -> code [D] on the CPU, for the package; an empty code where the style is in the weights.
    """

    networks: dict[str, nn.Module]
    frozen: dict[str, nn.Module]
    generator_name: str
    generator_options: dict[str, Any]
    styles: dict[str, Tensor]

    @abstractmethod
    def build_optimizers(self, networks: Mapping[str, nn.Module]) -> dict[str, Optimizer]:
        """One optimizer a player, over the given (perhaps wrapped) networks."""

    @abstractmethod
    def objectives(self, networks: Mapping[str, nn.Module], batch: Mapping[str, Tensor]) -> Iterator[Objective]:
        """The players' losses on one batch, in the order in which they move.

        Args:
            networks: the (perhaps wrapped) networks, under the names of `self.networks`.
            batch: name -> images_BCHW, float in [-1, 1], on the networks' device.
        """
