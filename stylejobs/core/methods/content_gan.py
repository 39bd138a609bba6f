"""A GAN that keeps its content: pretrain the generator, pretrain the critic, then train both together.

Source: the initialisation phase is that of Chen, Lai & Liu 2018 (CartoonGAN), doi:10.1109/CVPR.2018.00986.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.choices import choose
from stylejobs.core.losses.adversarial import generator_loss
from stylejobs.core.losses.consistency import total_variation
from stylejobs.core.losses.content import l1_loss
from stylejobs.core.methods.judges import ContentJudge, StyleJudge
from stylejobs.core.methods.method import Ingredients, Method, Step, Turn, encode_styles
from stylejobs.core.methods.players import (
    UNPENALISED_KINDS,
    adam_player,
    build_plain_critic,
    check_numbers,
    check_phases,
    criticise,
)
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks import build_network

GENERATORS = ("resnet", "label_conditioned", "style_modulated")
PHASES = ("pretrain", "critic", "joint")
_ADVERSARIAL = ("content", "style", "adversarial", "tv")


@dataclass(frozen=True)
class ContentGanOptions:
    """The numbers of the method.

    Args:
        gan: kind of adversarial loss: vanilla, lsgan or hinge.
        content_kind, content_layer: see `ContentJudge`.
        style_kind, style_layers: see `StyleJudge`.
        content_weight, style_weight, adversarial_weight, tv_weight: of phase 3.
        reconstruction_weight: of mean |G(x) - x| in phase 1.
        learning_rate, beta1, beta2: of Adam, for both players; `critic_learning_rate` None takes the same.
        decay_from: share of the training from which the rates fall linearly to 0.
        phases: shares of the training of the three phases.
    """

    gan: str = "lsgan"
    content_kind: str = "perceptual"
    content_layer: str | None = None
    style_kind: str = "gram"
    style_layers: tuple[str, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 0.5
    adversarial_weight: float = 0.5
    tv_weight: float = 0.0
    reconstruction_weight: float = 10.0
    learning_rate: float = 2e-4
    critic_learning_rate: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.5
    phases: tuple[float, ...] = (0.05, 0.05, 0.9)

    def __post_init__(self) -> None:
        choose("gan of content_gan", dict.fromkeys(UNPENALISED_KINDS), self.gan)
        check_numbers(self)
        check_phases(self.phases, PHASES)
        if self.phases[0] and not self.reconstruction_weight:
            raise ValueError("wanted reconstruction_weight > 0, all that the first phase has; got 0; or a share of 0")
        if not any((self.content_weight, self.style_weight, self.adversarial_weight, self.tv_weight)):
            raise ValueError("wanted a weight > 0 of content, style, adversarial or tv; got none")


class ContentGan(Method):
    """Loss of the generator in phase 3: a * content + b * style + c * adversarial.

    Phase 1 trains the generator to give back the images of both domains. Phase 2 trains the critic to tell style images
    from what the frozen generator makes. Phase 3 trains both.

    Args:
        ingredients: `generator["name"]` is one of `GENERATORS`; `critic["name"]` any critic that returns logits alone.
        options: see `ContentGanOptions`.

    Raises:
        ValueError: a generator that is none of `GENERATORS`, or no backbone where a loss reads one.
    """

    needs_backbone = True
    options_class = ContentGanOptions

    def __init__(self, ingredients: Ingredients, options: ContentGanOptions | None = None):
        self._o = o = options or ContentGanOptions()
        self._ingredients = ingredients
        self.generator_name, self.generator_options = _choose_generator(ingredients)
        self.generator = build_network(self.generator_name, **self.generator_options)
        self.networks = {**self._parts(), "critic": build_plain_critic("content_gan", ingredients)}
        self._content = ContentJudge(o.content_kind, ingredients.backbone, o.content_layer)
        self._style = StyleJudge(o.style_kind, ingredients.backbone, o.style_layers)
        self.frozen = {"content_judge": self._content, "style_judge": self._style}
        self.players = {
            "generator": adam_player(o, tuple(self._parts())),
            "critic": adam_player(o, ("critic",), is_critic=True),
        }
        (pretrain, critic, joint), shares = PHASES, o.phases
        self.phases = (
            Phase(pretrain, shares[0], ("generator",), dict.fromkeys(_ADVERSARIAL, 0.0)),
            Phase(critic, shares[1], ("critic",)),
            Phase(joint, shares[2], ("generator", "critic"), {"reconstruction": 0.0}),
        )
        self.weights = {
            "reconstruction": o.reconstruction_weight,
            "content": o.content_weight,
            "style": o.style_weight,
            "adversarial": o.adversarial_weight,
            "tv": o.tv_weight,
            "critic": 1.0,
        }
        self.memory = {}

    def _parts(self) -> dict[str, nn.Module]:
        if self.generator_name == "style_modulated":
            return {name: getattr(self.generator, name) for name in ("synthesis", "mapping", "style_encoder")}
        return {"generator": self.generator}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        return self._train_generator(networks, step) if player == "generator" else self._train_critic(networks, step)

    def _train_generator(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        content_BCHW, style_BCHW, moment = step.batch["content"], step.batch["style"], step.moment
        terms: dict[str, Tensor] = {}
        if self.weight("reconstruction", moment):
            both_BCHW = torch.cat([content_BCHW, style_BCHW])
            terms["reconstruction"] = l1_loss(self._rebuild(networks, step, both_BCHW), both_BCHW)
        if any(self.weight(name, moment) for name in _ADVERSARIAL):
            stylized_BCHW = self._stylize(networks, step)
            step.kept["stylized"] = stylized_BCHW.detach()
            contents_BCHW = _repeat(content_BCHW, stylized_BCHW)
            terms["content"] = self._content(stylized_BCHW, contents_BCHW)
            # Only the first rows are made for the style images of this batch: see `_stylize`.
            terms["style"] = self._style(stylized_BCHW[: style_BCHW.shape[0]], style_BCHW, moment.draws.shared)
            terms["tv"] = total_variation(stylized_BCHW)
            seen_BCHW = diff_augment(stylized_BCHW, moment.augment, moment.draws)
            terms["adversarial"] = generator_loss(self._o.gan, networks["critic"](seen_BCHW))
        return Turn(terms)

    def _train_critic(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        with torch.no_grad():
            fake_BCHW = step.kept.get("stylized")
            fake_BCHW = self._stylize(networks, step) if fake_BCHW is None else fake_BCHW
        return criticise(self._o.gan, networks["critic"], step.batch["style"], fake_BCHW, step.moment)

    def _stylize(self, networks: Mapping[str, nn.Module], step: Step) -> Tensor:
        """The content in the style of the batch's style images; `style_modulated` also in styles that it invents.

        Invented ones come second, row by row: they reach the mapping network through content and adversarial losses.
        """
        content_BCHW = step.batch["content"]
        if self.generator_name != "style_modulated":
            return networks["generator"](content_BCHW, self._codes(step.batch["style_domain"], content_BCHW))
        latents_BZ = step.moment.draws.randn(content_BCHW.shape[0], self.generator.style_dim)
        codes = [networks["style_encoder"](step.batch["style"]), networks["mapping"](latents_BZ.to(content_BCHW))]
        return networks["synthesis"](torch.cat([content_BCHW, content_BCHW]), torch.cat(codes))

    def _rebuild(self, networks: Mapping[str, nn.Module], step: Step, images_BCHW: Tensor) -> Tensor:
        """The images back again: coded as what they are, the content's own domain being number 0."""
        if self.generator_name == "style_modulated":
            return networks["synthesis"](images_BCHW, networks["style_encoder"](images_BCHW))
        style_B = step.batch["style_domain"]
        domain_B = torch.cat([style_B.new_zeros(images_BCHW.shape[0] - style_B.shape[0]), style_B])
        return networks["generator"](images_BCHW, self._codes(domain_B, images_BCHW))

    def _codes(self, domain_B: Tensor, like_BCHW: Tensor) -> Tensor:
        if self.generator_name == "label_conditioned":
            return F.one_hot(domain_B, len(self._ingredients.domains)).to(like_BCHW)
        return like_BCHW.new_zeros(domain_B.shape[0], 0)

    def styles(self) -> dict[str, Tensor]:
        if self.generator_name == "style_modulated":
            return encode_styles(self.generator, self._ingredients.style_images)
        numbers = torch.arange(len(self._ingredients.domains))
        codes_KD = self._codes(numbers, torch.zeros(1))
        return {name: codes_KD[index] for index, name in enumerate(self._ingredients.domains) if index}


def _choose_generator(ingredients: Ingredients) -> tuple[str, dict[str, Any]]:
    options = {"name": "resnet", **ingredients.generator}
    name = options.pop("name")
    choose("generator of content_gan", dict.fromkeys(GENERATORS), name)
    if name == "label_conditioned":
        options["domains"] = len(ingredients.domains)
    return name, options


def _repeat(content_BCHW: Tensor, stylized_BCHW: Tensor) -> Tensor:
    """The content image of every stylized row."""
    return content_BCHW.repeat(stylized_BCHW.shape[0] // content_BCHW.shape[0], 1, 1, 1)
