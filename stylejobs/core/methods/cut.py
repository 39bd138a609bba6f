"""Contrastive unpaired translation (Park 2020): one direction; a place of the result must tell where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.choices import choose
from stylejobs.core.losses.adversarial import generator_loss
from stylejobs.core.losses.contrastive import patch_nce
from stylejobs.core.methods.method import Ingredients, Method, Step, Turn
from stylejobs.core.methods.players import UNPENALISED_KINDS, adam_player, build_plain_critic, check_numbers, criticise
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.layers import init_normal
from stylejobs.core.networks.zhu2017 import Trunk

# The published numbers of FastCUT, where they are not those of CUT.
FASTCUT = {"nce_weight": 10.0, "identity_weight": 0.0, "flip_equivariance": True, "decay_from": 0.75}


@dataclass(frozen=True)
class CutOptions:
    """The numbers of the method.

    Args:
        gan: kind of adversarial loss: vanilla, lsgan or hinge.
        adversarial_weight: of the adversarial loss.
        nce_weight: of PatchNCE between content x and G(x), above 0.
        identity_weight: of PatchNCE between style y and G(y); 0 saves its forward passes.
        num_patches: places of each layer that are told apart.
        temperature: of PatchNCE.
        flip_equivariance: half of the steps mirror x before G, and its features back.
        learning_rate, beta1, beta2: of Adam, for all players; `critic_learning_rate` None takes the same.
        decay_from: share of the training from which the rates fall linearly to 0.

    Differs from public code: it halves both NCE weights where both are above 0.
    Source: Park, Efros, Zhang & Zhu 2020, arXiv:2007.15651, section 3 and appendix C.
    """

    gan: str = "lsgan"
    adversarial_weight: float = 1.0
    nce_weight: float = 1.0
    identity_weight: float = 1.0
    num_patches: int = 256
    temperature: float = 0.07
    flip_equivariance: bool = False
    learning_rate: float = 2e-4
    critic_learning_rate: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.5

    def __post_init__(self) -> None:
        choose("gan of cut", dict.fromkeys(UNPENALISED_KINDS), self.gan)
        check_numbers(self)
        if not (self.nce_weight > 0.0 and self.num_patches >= 2 and self.temperature > 0.0):
            raise ValueError(
                "wanted nce_weight > 0, num_patches >= 2 and temperature > 0; "
                f"got {self.nce_weight}, {self.num_patches} and {self.temperature}"
            )


class Cut(Method):
    """G: X -> Y, with one critic D; X is the content, Y the style.

    Loss of G, with weights a, n, i: a * adv(D(G(x))) + n * NCE(x, G(x)) + i * NCE(y, G(y)).

    NCE(x, z) is PatchNCE between the features of x and z, mean over five layers of G's own encoder, at `num_patches`
    places, embedded by `PatchProjection`. The features of x are targets: no gradient flows to them. D tells y from
    G(x). With the second NCE it is CUT, without it, with a large weight and mirrored images, FastCUT.

    Args:
        ingredients: `generator` holds options of the `resnet` network; `critic["name"]` is `patch` (the default),
            `multiscale` or `dcgan`.
        options: see `CutOptions`.

    Raises:
        ValueError: another generator, or a critic with a domain head.

    Differs from paper: the mean over layers and places in place of their sum, as in the authors' code; the generator is
    that of Zhu 2017 (theirs blurs before it samples).
    Source: Park, Efros, Zhang & Zhu 2020, arXiv:2007.15651, equations 1 to 5.
    """

    options_class = CutOptions
    generator_name = "resnet"

    def __init__(self, ingredients: Ingredients, options: CutOptions | None = None):
        self._o = o = options or CutOptions()
        self.generator_options = _check_generator(ingredients)
        self.generator = build_network(self.generator_name, **self.generator_options)
        self._layers = self.generator.nce_layers
        projection = PatchProjection([_count_channels(self.generator.trunk, layer) for layer in self._layers])
        self.networks = {
            "generator": self.generator,
            "projection": projection,
            "critic": build_plain_critic("cut", ingredients),
        }
        self.frozen = {}
        self.players = {
            "generator": adam_player(o, ("generator", "projection")),
            "critic": adam_player(o, ("critic",), is_critic=True),
        }
        self.phases = (Phase("train", 1.0, ("generator", "critic")),)
        self.weights = {
            "adversarial": o.adversarial_weight,
            "nce": o.nce_weight,
            "identity": o.identity_weight,
            "critic": 1.0,
        }
        self.memory = {}
        self._style_name = ingredients.domains[-1]

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        turn = self._train_generator if player == "generator" else self._train_critic
        return turn(networks, step)

    def styles(self) -> dict[str, Tensor]:
        return {self._style_name: torch.zeros(0)}

    def _train_generator(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        x_BCHW, moment = step.batch["content"], step.moment
        num_x = len(x_BCHW)
        identity = self.weight("identity", moment) > 0.0
        # Rows do not see each other, so one pass carries x to Y and shows y to the same generator.
        sources_BCHW = torch.cat([x_BCHW, step.batch["style"]]) if identity else x_BCHW
        results_BCHW, queries, keys = self._translate(networks["generator"], sources_BCHW, moment.draws.shared)
        # The places are those of all rows, as in the authors' code.
        rng, num_patches = moment.draws.shared, self._o.num_patches
        places = [torch.randperm(key.shape[2] * key.shape[3], generator=rng)[:num_patches] for key in keys]
        queries = networks["projection"](queries, places)
        with torch.no_grad():
            keys = networks["projection"](keys, places)
        step.kept["stylized"] = results_BCHW[:num_x].detach()
        logits = networks["critic"](diff_augment(results_BCHW[:num_x], moment.augment, moment.draws))
        terms = {"adversarial": generator_loss(self._o.gan, logits), "nce": self._nce(queries, keys, slice(num_x))}
        if identity:
            terms["identity"] = self._nce(queries, keys, slice(num_x, None))
        return Turn(terms)

    def _train_critic(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        return criticise(self._o.gan, networks["critic"], step.batch["style"], step.kept["stylized"], step.moment)

    def _translate(
        self, generator: nn.Module, sources_BCHW: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """(results, their features, the sources' features as targets); the results perhaps by way of a mirror."""
        code_BD = sources_BCHW.new_zeros(len(sources_BCHW), 0)
        mirrored = self._o.flip_equivariance and torch.rand((), generator=rng).item() < 0.5
        if mirrored:
            with torch.no_grad():
                keys = generator(sources_BCHW, code_BD, layers=self._layers, only_features=True)
            results_BCHW = generator(sources_BCHW.flip(3), code_BD)
        else:
            results_BCHW, keys = generator(sources_BCHW, code_BD, layers=self._layers)
        queries = generator(results_BCHW, code_BD, layers=self._layers, only_features=True)
        if mirrored:
            queries = [features_BCHW.flip(3) for features_BCHW in queries]
        return results_BCHW, queries, [features_BCHW.detach() for features_BCHW in keys]

    def _nce(self, queries: Sequence[Tensor], keys: Sequence[Tensor], rows: slice) -> Tensor:
        """PatchNCE of some rows, mean over layers."""
        pairs = zip(queries, keys, strict=True)
        losses = [patch_nce(query_BND[rows], key_BND[rows], self._o.temperature) for query_BND, key_BND in pairs]
        return torch.stack(losses).mean()


class PatchProjection(nn.Module):
    """Embeds the features of some places for PatchNCE: a two-layer perceptron for each layer of the encoder.

    Args:
        channels: of the features of each layer.
        width: of the hidden and the last layer of each perceptron.

    Differs from paper: not normalised here; `patch_nce` compares by cosine. Weights begin as N(0, 0.02).
    Source: Park, Efros, Zhang & Zhu 2020, arXiv:2007.15651, section 3.2 (the network H) and appendix C.1.

    >>> projection = PatchProjection([3, 8], width=16)
    >>> features = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 2, 2)]
    >>> [list(embedded.shape) for embedded in projection(features, [torch.arange(5), torch.arange(4)])]
    [[2, 5, 16], [2, 4, 16]]
    """

    def __init__(self, channels: Sequence[int], width: int = 256):
        super().__init__()
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(number, width), nn.ReLU(), nn.Linear(width, width)) for number in channels
        )
        init_normal(self)

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Embeds.

        Args:
            features: features_BCHW of every layer.
            places: place_N int64 of every layer, in 0 .. H W - 1, counted along rows.

        Returns:
            embedded_BND of every layer.
        """
        triples = zip(self.perceptrons, features, places, strict=True)
        return [
            perceptron(features_BCHW.flatten(2)[:, :, place_N.to(features_BCHW.device)].transpose(1, 2))
            for perceptron, features_BCHW, place_N in triples
        ]


def _count_channels(trunk: Trunk, layer: int) -> int:
    """Channels of a layer of the encoder: those that go into the stem, or those that its convolutions give."""
    if layer == 0:
        return trunk.stem[0].in_channels
    stage = {"stem": trunk.stem, "down1": trunk.down1}.get(trunk.stages[layer], trunk.down2)
    return stage[0].out_channels


def _check_generator(ingredients: Ingredients) -> dict[str, Any]:
    options = {"name": Cut.generator_name, **ingredients.generator}
    name = options.pop("name")
    if name != Cut.generator_name:
        raise ValueError(f"cut: wanted the generator {Cut.generator_name!r}, whose encoder it reads; got {name!r}")
    return options
