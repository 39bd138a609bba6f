"""What a training method is: its networks, its players and their losses; and how one step is taken."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from stylejobs.core.backbone import Backbone
from stylejobs.core.methods.schedule import CONSTANT, Curve, InverseDecay, Moment, Phase
from stylejobs.core.precision import autocast


@dataclass(frozen=True)
class Ingredients:
    """What every method is built of; each takes what it needs.

    Attributes:
        generator: options of the generator; `name` where the method leaves a choice.
        critic: options of the critic, likewise.
        backbone: frozen features that judge content and style; None where none is read.
        style_images: name -> image [1, 3, H, W] float in [-1, 1]: the style image, or a sample of the style set.
        domains: names of the domains: that of the content, then those of the style set, in the order of the numbers in
            `batch["style_domain"]`, which begin at 1.
    """

    generator: Mapping[str, Any] = field(default_factory=dict)
    critic: Mapping[str, Any] = field(default_factory=dict)
    backbone: Backbone | None = None
    style_images: Mapping[str, Tensor] = field(default_factory=dict)
    domains: tuple[str, ...] = ("content", "style")


@dataclass(frozen=True)
class Player:
    """Who moves: one optimizer over some of the method's networks.

    Attributes:
        networks: names out of `Method.networks`.
        learning_rate: of Adam, for global batches of up to 8.
        schedule: factor of the learning rate over the training.
        is_critic: the repairer slows critics down and nobody else.
    """

    networks: tuple[str, ...]
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Curve | InverseDecay = CONSTANT
    is_critic: bool = False


@dataclass(frozen=True)
class Step:
    """One step: its batch, where the training stands, and what an earlier turn left for a later one.

    Attributes:
        batch: "content" images_BCHW with "content_domain" int64 [B] and, where the method learns from a set, "style"
            images_BCHW with "style_domain"; images are float in [-1, 1].
        kept: free for the method, empty at the beginning of every step.
    """

    batch: Mapping[str, Tensor]
    moment: Moment
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """A player's losses on one batch.

    Attributes:
        terms: name -> scalar with a graph, a mean over the batch, unweighted: the player's loss is the sum of
            weight * term.
        signals: name -> detached scalar that is watched and not minimised: `accuracy` of a critic.
    """

    terms: dict[str, Tensor]
    signals: dict[str, Tensor] = field(default_factory=dict)


class Memory(Protocol):
    """What a method remembers beside its weights, an image pool for example; part of every checkpoint."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Method(ABC):
    """A method's networks and losses; `take_step` drives it.

    The loop moves `networks` and `frozen` to its device in place and wraps each of `networks` in a DDP of its own,
    which is why a turn calls the networks that it is given and never their inner parts.

    Attributes:
        networks: what is trained, by name.
        frozen: modules that take part but are never trained.
        generator: what gets registered: one of `networks`, or a module that is made of them.
        generator_name: its key in `NETWORKS`, or "classifier".
        generator_options: what it was built with, plain values.
        players: who moves, by name; a network belongs to one player.
        phases: the parts of the training, in order.
        weights: loss term -> weight, where the phase says nothing else.
        memory: what has to be remembered beside weights.
        reads: keys of the batch that the turns read.
        needs_backbone: whether `Ingredients.backbone` is read.
        makes_pictures: whether what gets registered stylizes; what does not is a `Classifier`.
    """

    reads: ClassVar[tuple[str, ...]] = ("content", "style")
    needs_backbone: ClassVar[bool] = False
    makes_pictures: ClassVar[bool] = True
    options_class: ClassVar[type]

    networks: dict[str, nn.Module]
    frozen: dict[str, nn.Module]
    generator: nn.Module
    generator_name: str
    generator_options: dict[str, Any]
    players: dict[str, Player]
    phases: tuple[Phase, ...]
    weights: dict[str, float]
    memory: dict[str, Memory]

    @abstractmethod
    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        """The player's losses on this batch.

        Args:
            player: a key of `players`; the networks of all others are frozen while it has its turn.
            networks: the (perhaps wrapped) networks, under the names of `self.networks`.
        """

    @abstractmethod
    def styles(self) -> dict[str, Tensor]:
        """Style name -> code [D] for the package, by the present weights; none of what makes no pictures."""

    def weight(self, term: str, moment: Moment) -> float:
        """The weight of a loss term now; a turn need not compute a term whose weight is 0."""
        return moment.weights.get(term, self.weights[term])

    def build_optimizers(self, networks: Mapping[str, nn.Module], scale: float = 1.0) -> dict[str, Optimizer]:
        """One fused Adam a player over the given (perhaps wrapped) networks, which are where they will be trained.

        `scale` multiplies every learning rate.
        """
        optimizers: dict[str, Optimizer] = {}
        for name, player in self.players.items():
            weights = [weight for network in player.networks for weight in networks[network].parameters()]
            optimizers[name] = Adam(weights, lr=player.learning_rate * scale, betas=player.betas, fused=True)
            optimizers[name].register_load_state_dict_post_hook(_lay_out_as_weights)
        return optimizers


def _lay_out_as_weights(optimizer: Optimizer) -> None:
    """Gives loaded moments the memory layout of their weights.

    The fused kernel walks through memory: in channels last, moments of a contiguous file would go to other weights.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


@torch.no_grad()
def encode_styles(generator: nn.Module, style_images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The code [D] of each style image, by the generator's `encode_style`, on its device."""
    device = next(generator.parameters()).device
    return {name: generator.encode_style(image.to(device))[0] for name, image in style_images.items()}


@dataclass(frozen=True)
class Taken:
    """What one step did.

    Attributes:
        losses: weighted terms by name, detached, and `total/<player>`.
        signals: by name, detached.
        gradient_norms: by player, before clipping; the same on every rank.
        non_finite: the player whose gradient was not finite; neither it nor those after it have moved.
    """

    losses: dict[str, Tensor]
    signals: dict[str, Tensor]
    gradient_norms: dict[str, Tensor]
    non_finite: str | None = None


def take_step(
    method: Method,
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    step: Step,
    precision: str = "float32",
    clip_norm: float | None = None,
) -> Taken:
    """Each player of the phase moves once, in the phase's order.

    A gradient that is not finite moves nobody. Every rank sees the same averaged gradient, so all ranks decide alike.

    Args:
        precision: "float32" or "bf16"; penalties and statistics of features stay in float32.
        clip_norm: largest norm of a player's gradient; None does not clip.
    """
    moment, device = step.moment, next(iter(step.batch.values())).device
    taken = Taken({}, {}, {})
    for player in (name for name in moment.phase.players if moment.moves(name)):
        with _only(networks, method.players[player].networks) as weights:
            with autocast(device.type, precision):
                turn = method.take_turn(player, networks, step)
            losses = {name: method.weight(name, moment) * term for name, term in turn.terms.items()}
            loss = torch.stack(list(losses.values())).sum()
            optimizers[player].zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(weights, clip_norm or float("inf"))
        taken.losses.update({name: term.detach() for name, term in losses.items()})
        taken.losses[f"total/{player}"] = loss.detach()
        taken.signals.update(turn.signals)
        taken.gradient_norms[player] = norm
        if not torch.isfinite(norm):
            return Taken(taken.losses, taken.signals, taken.gradient_norms, non_finite=player)
        optimizers[player].step()
    return taken


@contextmanager
def _only(networks: Mapping[str, nn.Module], moving: tuple[str, ...]) -> Iterator[list[nn.Parameter]]:
    """Freezes all networks but those that move, whose weights it yields; afterwards nothing is frozen."""
    for name, network in networks.items():
        network.requires_grad_(name in moving)
    try:
        yield [weight for name in moving for weight in networks[name].parameters()]
    finally:
        for network in networks.values():
            network.requires_grad_(True)
