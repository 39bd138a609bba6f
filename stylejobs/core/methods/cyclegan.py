"""CycleGAN (Zhu 2017): two domains without pairs. What is carried over and back must be what it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.choices import choose
from stylejobs.core.losses.adversarial import critic_accuracy, critic_loss, domain_classification, generator_loss
from stylejobs.core.losses.consistency import cycle_loss
from stylejobs.core.methods.method import Ingredients, Method, Step, Turn
from stylejobs.core.methods.players import UNPENALISED_KINDS, adam_player, check_numbers, split_rows
from stylejobs.core.methods.schedule import Moment, Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.critics import build_critic
from stylejobs.core.networks.zhu2017 import run_parts
from stylejobs.core.pool import ImagePool

_SHARED_CRITIC = "patch_domain"
_CONTENT_DOMAIN, _STYLE_DOMAIN = 0, 1


@dataclass(frozen=True)
class CycleganOptions:
    """The numbers of the method.

    Args:
        gan: kind of adversarial loss: vanilla, lsgan or hinge.
        adversarial_weight: of the adversarial losses of both directions.
        cycle_weight: of the cycle losses of both directions, means over pixels in [-1, 1].
        identity_weight: of the identity losses of both directions; 0 saves their forward passes.
        classification_weight: of the domain classification, where the critic is `patch_domain`.
        learning_rate, beta1, beta2: of Adam, for all players; `critic_learning_rate` None takes the same.
        decay_from: share of the training from which the rates fall linearly to 0.
        pool: number of generated images of each domain that the critics may meet again; 0 keeps none.
        adapters: an adapter before each generator, see `zhu2017.Adapter`.
        share_trunk: both directions share all but their adapters (and therefore have them).

    Source: Zhu, Park, Isola & Efros 2017, arXiv:1703.10593, section 4; identity: section 5.2, half of the cycle weight.
    """

    gan: str = "lsgan"
    adversarial_weight: float = 1.0
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    classification_weight: float = 1.0
    learning_rate: float = 2e-4
    critic_learning_rate: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.5
    pool: int = 50
    adapters: bool = False
    share_trunk: bool = False

    def __post_init__(self) -> None:
        choose("gan of cyclegan", dict.fromkeys(UNPENALISED_KINDS), self.gan)
        check_numbers(self)


class Cyclegan(Method):
    """G: X -> Y and F: Y -> X, with critics D_Y and D_X; X is the content, Y the style.

    Loss of G and F, with weights a, c, i:
        a * (adv(D_Y(G(x))) + adv(D_X(F(y)))) + c * (|F(G(x)) - x| + |G(F(y)) - y|) + i * (|G(y) - y| + |F(x) - x|)
    Loss of the critics: D_Y tells y from older and newer G(x), D_X tells x from older and newer F(y).

    With a shared critic (`patch_domain`) D_X and D_Y are one network with a domain head: it also learns to tell x from
    y, and G(x) shall be taken for y, F(y) for x (Choi 2018, arXiv:1711.09020, equations 2 and 3).

    The networks are `generator` and `inverse`; with a shared trunk `trunk`, `adapter` and `inverse_adapter`. G is what
    gets registered.

    Args:
        ingredients: `generator["name"]` is any network without style codes, by default `resnet`; `critic["name"]` any
            critic, by default `patch`.
        options: see `CycleganOptions`.

    Raises:
        ValueError: a generator that wants style codes, or one without adapters where they are asked for.

    Differs from paper: one step moves both critics by one optimizer, as in the authors' code.
    Source: Zhu, Park, Isola & Efros 2017, arXiv:1703.10593, equations 1 to 3 and section 4.
    """

    options_class = CycleganOptions

    def __init__(self, ingredients: Ingredients, options: CycleganOptions | None = None):
        self._o = o = options or CycleganOptions()
        self.generator_name, self.generator_options = _choose_generator(ingredients, o)
        self.generator = build_network(self.generator_name, **self.generator_options)
        if self.generator.style_dim:
            raise ValueError(f"cyclegan: wanted a generator without style codes; got {self.generator_name!r}")
        inverse = build_network(self.generator_name, **self.generator_options)
        generators = _list_parts(self.generator, inverse) if o.share_trunk else _list_whole(self.generator, inverse)
        critics = _build_critics(ingredients)
        self._shares_critic = "critic" in critics
        self.networks = {**generators, **critics}
        self.frozen = {}
        self.players = {
            "generator": adam_player(o, tuple(generators)),
            "critic": adam_player(o, tuple(critics), is_critic=True),
        }
        self.phases = (Phase("train", 1.0, ("generator", "critic")),)
        self.weights = {
            "adversarial": o.adversarial_weight,
            "cycle": o.cycle_weight,
            "identity": o.identity_weight,
            "classification": o.classification_weight,
            "critic": 1.0,
            "critic_classification": o.classification_weight,
        }
        self._x_pool, self._y_pool = ImagePool(o.pool), ImagePool(o.pool)
        self.memory = {"x_pool": self._x_pool, "y_pool": self._y_pool}
        self._style_name = ingredients.domains[-1]

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        turn = self._train_generators if player == "generator" else self._train_critics
        return turn(networks, step)

    def styles(self) -> dict[str, Tensor]:
        return {self._style_name: torch.zeros(0)}

    def _train_generators(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        x_BCHW, y_BCHW, moment = step.batch["content"], step.batch["style"], step.moment
        identity = self.weight("identity", moment) > 0.0
        # Rows do not see each other, so one pass carries x to Y and shows y to the same generator.
        to_y = self._to_style(networks, torch.cat([x_BCHW, y_BCHW]) if identity else x_BCHW)
        to_x = self._to_content(networks, torch.cat([y_BCHW, x_BCHW]) if identity else y_BCHW)
        fake_y_BCHW, fake_x_BCHW = to_y[: len(x_BCHW)], to_x[: len(y_BCHW)]
        step.kept.update(stylized=fake_y_BCHW.detach(), fake_x=fake_x_BCHW.detach())
        x_again_BCHW, y_again_BCHW = self._to_content(networks, fake_y_BCHW), self._to_style(networks, fake_x_BCHW)
        terms = self._fool_critics(networks, fake_x_BCHW, fake_y_BCHW, moment)
        terms["cycle"] = cycle_loss(x_again_BCHW, x_BCHW) + cycle_loss(y_again_BCHW, y_BCHW)
        if identity:
            terms["identity"] = cycle_loss(to_y[len(x_BCHW) :], y_BCHW) + cycle_loss(to_x[len(y_BCHW) :], x_BCHW)
        return Turn(terms)

    def _fool_critics(
        self, networks: Mapping[str, nn.Module], fake_x_BCHW: Tensor, fake_y_BCHW: Tensor, moment: Moment
    ) -> dict[str, Tensor]:
        x_logits, y_logits, domain_logits_BK = self._judge(networks, fake_x_BCHW, fake_y_BCHW, moment)
        terms = {"adversarial": generator_loss(self._o.gan, y_logits) + generator_loss(self._o.gan, x_logits)}
        if domain_logits_BK is not None:
            wanted_B = _number_domains(domain_logits_BK, len(fake_x_BCHW))
            terms["classification"] = domain_classification(domain_logits_BK, wanted_B)
        return terms

    def _train_critics(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        x_BCHW, y_BCHW, moment = step.batch["content"], step.batch["style"], step.moment
        fake_x_BCHW = self._x_pool.query(step.kept["fake_x"], moment.draws)
        fake_y_BCHW = self._y_pool.query(step.kept["stylized"], moment.draws)
        all_x_BCHW, all_y_BCHW = torch.cat([x_BCHW, fake_x_BCHW]), torch.cat([y_BCHW, fake_y_BCHW])
        x_logits, y_logits, domain_logits_BK = self._judge(networks, all_x_BCHW, all_y_BCHW, moment)
        (real_x, fake_x), (real_y, fake_y) = split_rows(x_logits, len(x_BCHW)), split_rows(y_logits, len(y_BCHW))
        terms = {"critic": critic_loss(self._o.gan, real_x, fake_x) + critic_loss(self._o.gan, real_y, fake_y)}
        if domain_logits_BK is not None:
            of_x_BK, of_y_BK = split_rows(domain_logits_BK, len(all_x_BCHW))
            real_logits_BK = torch.cat([of_x_BK[: len(x_BCHW)], of_y_BK[: len(y_BCHW)]])
            real_B = _number_domains(real_logits_BK, len(x_BCHW))
            terms["critic_classification"] = domain_classification(real_logits_BK, real_B)
        accuracies = {
            "accuracy/x": critic_accuracy(self._o.gan, real_x, fake_x),
            "accuracy/y": critic_accuracy(self._o.gan, real_y, fake_y),
        }
        return Turn(terms, accuracies)

    def _judge(
        self, networks: Mapping[str, nn.Module], x_BCHW: Tensor, y_BCHW: Tensor, moment: Moment
    ) -> tuple[Any, Any, Tensor | None]:
        """(logits of x, logits of y, domain logits of x and y together, where there is a domain head)."""
        x_BCHW, y_BCHW = (diff_augment(images, moment.augment, moment.draws) for images in (x_BCHW, y_BCHW))
        if not self._shares_critic:
            return networks["critic_x"](x_BCHW), networks["critic_y"](y_BCHW), None
        logits_B1HW, domain_logits_BK = networks["critic"](torch.cat([x_BCHW, y_BCHW]))
        return *split_rows(logits_B1HW, len(x_BCHW)), domain_logits_BK

    def _to_style(self, networks: Mapping[str, nn.Module], image_BCHW: Tensor) -> Tensor:
        """G."""
        if self._o.share_trunk:
            return run_parts(networks["adapter"], networks["trunk"], image_BCHW)
        return networks["generator"](image_BCHW, image_BCHW.new_zeros(len(image_BCHW), 0))

    def _to_content(self, networks: Mapping[str, nn.Module], image_BCHW: Tensor) -> Tensor:
        """F."""
        if self._o.share_trunk:
            return run_parts(networks["inverse_adapter"], networks["trunk"], image_BCHW)
        return networks["inverse"](image_BCHW, image_BCHW.new_zeros(len(image_BCHW), 0))


def _choose_generator(ingredients: Ingredients, options: CycleganOptions) -> tuple[str, dict[str, Any]]:
    chosen = {"name": "resnet", **ingredients.generator}
    if options.adapters or options.share_trunk:
        chosen["adapter"] = True
    return chosen.pop("name"), chosen


def _list_whole(generator: nn.Module, inverse: nn.Module) -> dict[str, nn.Module]:
    return {"generator": generator, "inverse": inverse}


def _list_parts(generator: Any, inverse: Any) -> dict[str, nn.Module]:
    inverse.share_trunk(generator)
    return {"trunk": generator.trunk, "adapter": generator.adapter, "inverse_adapter": inverse.adapter}


def _build_critics(ingredients: Ingredients) -> dict[str, nn.Module]:
    chosen = {"name": "patch", **ingredients.critic}
    name = chosen.pop("name")
    if name == _SHARED_CRITIC:
        return {"critic": build_critic(name, **{**chosen, "domains": 2})}
    return {"critic_x": build_critic(name, **chosen), "critic_y": build_critic(name, **chosen)}


def _number_domains(like_BK: Tensor, num_content: int) -> Tensor:
    """Domain numbers of rows of which the first `num_content` are of the content's domain."""
    domain_B = torch.full((len(like_BK),), _STYLE_DOMAIN, device=like_BK.device)
    domain_B[:num_content] = _CONTENT_DOMAIN
    return domain_B
