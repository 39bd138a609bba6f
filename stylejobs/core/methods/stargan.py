"""StarGAN (Choi 2018): many domains, one generator that is told where to go, one critic that also names the domain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.choices import choose
from stylejobs.core.losses.adversarial import (
    KINDS,
    critic_accuracy,
    critic_loss,
    domain_classification,
    drift_penalty,
    generator_loss,
    gradient_penalty,
)
from stylejobs.core.losses.consistency import cycle_loss
from stylejobs.core.methods.method import Ingredients, Method, Step, Turn
from stylejobs.core.methods.players import adam_player, check_numbers, split_rows
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.critics import build_critic


@dataclass(frozen=True)
class StarganOptions:
    """The numbers of the method.

    Args:
        gan: kind of adversarial loss.
        adversarial_weight: of the generator's adversarial loss.
        classification_weight: of the domain classification, for both players.
        reconstruction_weight: of the way there and back, mean over pixels in [-1, 1].
        identity_weight: of |G(x, c') - x|, over the images whose drawn target is their own domain; not in the paper.
            The way there and back is as short for a negative of the image as for the image; this term is not.
        gradient_penalty_weight: for the critic; 0 saves its backward passes.
        drift_weight: for the critic: how far its logits of real images are from 0.
        critic_steps: steps of the critic for each of the generator.
        learning_rate, beta1, beta2: of Adam, for all players; `critic_learning_rate` None takes the same.
        decay_from: share of the training from which the rates fall linearly to 0.

    Source: Choi et al. 2018, arXiv:1711.09020, sections 3.3 and 4; drift: Karras et al. 2018, arXiv:1710.10196,
    appendix A.1.
    """

    gan: str = "wgan_gp"
    adversarial_weight: float = 1.0
    classification_weight: float = 1.0
    reconstruction_weight: float = 10.0
    identity_weight: float = 0.0
    gradient_penalty_weight: float = 10.0
    drift_weight: float = 1e-3
    critic_steps: int = 5
    learning_rate: float = 1e-4
    critic_learning_rate: float | None = None
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.5

    def __post_init__(self) -> None:
        choose("gan of stargan", dict.fromkeys(KINDS), self.gan)
        check_numbers(self)


class Stargan(Method):
    """One generator G(x, c) for K domains; domain 0 is the content's, the others are those of the style set.

    x are the real images of all domains of a batch, c' their domains and c targets, drawn from all domains alike.

    Loss of G: adv(D(G(x, c))) + cls * CE(D_cls(G(x, c)), c) + rec * |G(G(x, c), c') - x|
        + idt * [c = c'] |G(x, c) - x|.
    Loss of D: adv of x against G(x, c) + cls * CE(D_cls(x), c') + gp * gradient penalty + drift * mean D(x)^2.

    Args:
        ingredients: `generator` holds options of the `label_conditioned` network, `critic` of `patch_domain`; the
            number of domains is that of `domains`.
        options: see `StarganOptions`.

    Raises:
        ValueError: another generator or critic, or fewer than two domains.

    Differs from paper: targets are drawn, not shuffled among the images of a batch, so that a batch of one has any; the
    drift and identity terms. See also `gradient_penalty`, and the networks.
    Source: Choi et al. 2018, arXiv:1711.09020, equations 1 to 8.
    """

    options_class = StarganOptions
    generator_name = "label_conditioned"

    def __init__(self, ingredients: Ingredients, options: StarganOptions | None = None):
        self._o = o = options or StarganOptions()
        self._domains = ingredients.domains
        if len(self._domains) < 2:
            raise ValueError(f"stargan: wanted the content's domain and at least one more; got {self._domains}")
        self.generator_options = self._check_options("generator", self.generator_name, ingredients.generator)
        self.generator = build_network(self.generator_name, **self.generator_options)
        critic_options = self._check_options("critic", "patch_domain", ingredients.critic)
        self.networks = {"generator": self.generator, "critic": build_critic("patch_domain", **critic_options)}
        self.frozen = {}
        self.players = {
            "generator": adam_player(o, ("generator",)),
            "critic": adam_player(o, ("critic",), is_critic=True),
        }
        self.phases = (Phase("train", 1.0, ("generator", "critic"), every={"generator": o.critic_steps}),)
        self.weights = {
            "adversarial": o.adversarial_weight,
            "classification": o.classification_weight,
            "reconstruction": o.reconstruction_weight,
            "identity": o.identity_weight,
            "critic": 1.0,
            "critic_classification": o.classification_weight,
            "gradient_penalty": o.gradient_penalty_weight,
            "drift": o.drift_weight,
        }
        self.memory = {}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        turn = self._train_generator if player == "generator" else self._train_critic
        return turn(networks, step)

    def styles(self) -> dict[str, Tensor]:
        labels_KK = torch.eye(len(self._domains))
        return {name: labels_KK[number] for number, name in enumerate(self._domains) if number > 0}

    def _train_generator(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        real_BCHW, domain_B = self._gather(step)
        fake_BCHW, target_B = self._translate(networks["generator"], step)
        again_BCHW = networks["generator"](fake_BCHW, self._label(domain_B, fake_BCHW))
        seen_BCHW = diff_augment(fake_BCHW, step.moment.augment, step.moment.draws)
        logits_B1HW, domain_logits_BK = networks["critic"](seen_BCHW)
        terms = {
            "adversarial": generator_loss(self._o.gan, logits_B1HW),
            "classification": domain_classification(domain_logits_BK, target_B),
            "reconstruction": cycle_loss(again_BCHW, real_BCHW),
        }
        if self.weight("identity", step.moment) > 0.0:
            # A mean over all rows: a worker whose rows all go elsewhere has 0, and workers' gradients still average.
            is_own_B = (target_B == domain_B).to(fake_BCHW)
            terms["identity"] = (is_own_B * (fake_BCHW - real_BCHW).abs().mean(dim=(1, 2, 3))).mean()
        return Turn(terms)

    def _train_critic(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        moment = step.moment
        real_BCHW, domain_B = self._gather(step)
        if "fake" not in step.kept:  # the generator has no turn in this step
            with torch.no_grad():
                self._translate(networks["generator"], step)
        both_BCHW = torch.cat([real_BCHW, step.kept["fake"]])
        both_BCHW = diff_augment(both_BCHW, moment.augment, moment.draws)
        logits_B1HW, domain_logits_BK = networks["critic"](both_BCHW)
        real, fake = split_rows(logits_B1HW, len(real_BCHW))
        terms = {
            "critic": critic_loss(self._o.gan, real, fake),
            # With or without a weight: every weight of the critic takes part in each of its steps.
            "critic_classification": domain_classification(domain_logits_BK[: len(real_BCHW)], domain_B),
            "drift": drift_penalty(real),
        }
        if self.weight("gradient_penalty", moment) > 0.0:
            halves = split_rows(both_BCHW, len(real_BCHW))
            terms["gradient_penalty"] = gradient_penalty(networks["critic"], *halves, moment.draws)
        return Turn(terms, {"accuracy": critic_accuracy(self._o.gan, real, fake, moment.mean)})

    def _gather(self, step: Step) -> tuple[Tensor, Tensor]:
        """(real images of all domains, their domains)."""
        batch = step.batch
        content_B = batch["style_domain"].new_zeros(len(batch["content"]))
        return torch.cat([batch["content"], batch["style"]]), torch.cat([content_B, batch["style_domain"]])

    def _translate(self, generator: nn.Module, step: Step) -> tuple[Tensor, Tensor]:
        """(all images in domains that are drawn, these domains); keeps the images for the critic."""
        real_BCHW, domain_B = self._gather(step)
        target_B = step.moment.draws.randint(len(self._domains), len(domain_B)).to(domain_B.device)
        fake_BCHW = generator(real_BCHW, self._label(target_B, real_BCHW))
        step.kept.update(fake=fake_BCHW.detach(), stylized=fake_BCHW.detach()[: len(step.batch["content"])])
        return fake_BCHW, target_B

    def _label(self, domain_B: Tensor, like_BCHW: Tensor) -> Tensor:
        return F.one_hot(domain_B, len(self._domains)).to(like_BCHW)

    def _check_options(self, kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the only generator, or critic, that this method can have."""
        options = {"name": name, **given, "domains": len(self._domains)}
        if options.pop("name") != name:
            raise ValueError(f"stargan: wanted the {kind} {name!r}; got {given['name']!r}")
        return options
