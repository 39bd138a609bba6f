"""Invent a style, then apply it: a DCGAN learns the style domain, and what it draws teaches an arbitrary-style net."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment
from stylejobs.core.losses.adversarial import (
    critic_accuracy,
    critic_loss,
    drift_penalty,
    generator_loss,
    gradient_penalty,
    marginal_entropy,
)
from stylejobs.core.methods.adain import Painter
from stylejobs.core.methods.fast import check_perceptual
from stylejobs.core.methods.judges import StyleJudge
from stylejobs.core.methods.method import Ingredients, Method, Player, Step, Turn
from stylejobs.core.methods.players import check_numbers, check_phases, judge
from stylejobs.core.methods.schedule import InverseDecay, Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.critics import build_critic

_NUM_DRAWN = 8
_GAN = "wgan_gp"
PHASES = ("invent", "apply")


@dataclass(frozen=True)
class ExemplarOptions:
    """The numbers of the method.

    Args:
        style_kind, style_layers: see `StyleJudge`.
        content_weight, style_weight, tv_weight: of step 2, as in `AdainOptions`.
        adversarial_weight: of the Wasserstein losses of step 1.
        gradient_penalty_weight, drift_weight: of the critic.
        entropy_weight: of minus the entropy of the critic's mean prediction on a batch of exemplars.
        learning_rate: of the decoder; falls as AdaIN's. `critic_learning_rate` is that of both players of
            step 1; None takes the same.
        beta1, beta2: of Adam in step 1.
        critic_steps: turns of the critic for one of the exemplars' generator.
        phases: shares of the training of the two steps.
    """

    style_kind: str = "moments"
    style_layers: tuple[str, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 10.0
    tv_weight: float = 0.0
    adversarial_weight: float = 1.0
    gradient_penalty_weight: float = 10.0
    drift_weight: float = 1e-3
    entropy_weight: float = 0.01
    learning_rate: float = 1e-4
    critic_learning_rate: float | None = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    critic_steps: int = 5
    phases: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        check_numbers(self)
        check_phases(self.phases, PHASES)


class Exemplar(Method):
    """Step 1: WGAN-GP between noise and the style domain. Step 2: AdaIN whose styles are exemplars drawn from noise.

    The entropy is no mean over rows; with several workers it is that of the rows of all of them.

    Args:
        ingredients: `generator` holds options of the `exemplar` network, `critic` of the `dcgan` critic.
        options: see `ExemplarOptions`.

    Raises:
        ValueError: no backbone or style image.

    Differs from its source, a popular article: the entropy is in the loss of the exemplars' generator, because the
    critic cannot make its samples diverse.
    Source: Radford, Metz & Chintala 2016, arXiv:1511.06434; Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1 and
    table 1 for the rates; Huang & Belongie 2017, arXiv:1703.06868.
    """

    needs_backbone = True
    options_class = ExemplarOptions

    def __init__(self, ingredients: Ingredients, options: ExemplarOptions | None = None):
        o = options or ExemplarOptions()
        backbone = check_perceptual("exemplar", ingredients)
        self.generator_name = "exemplar"
        self.generator_options = {"encoder": backbone.architecture, **ingredients.generator}
        self.generator = build_network(self.generator_name, **self.generator_options)
        self.generator.adain.encoder.load_weights(backbone.features.state_dict())
        self._size_px = self.generator.exemplars.size_px
        self._painter = Painter(self.generator.adain, StyleJudge(o.style_kind, backbone, o.style_layers))
        critic = {"name": "dcgan", "norm": "none", "size_px": self._size_px, **ingredients.critic}
        self.networks = {
            "exemplars": self.generator.exemplars,
            "critic": build_critic(critic.pop("name"), **critic),
            **self._painter.networks,
        }
        self.frozen = self._painter.frozen
        betas, invent_rate = (o.beta1, o.beta2), o.critic_learning_rate or o.learning_rate
        self.players = {
            "critic": Player(("critic",), invent_rate, betas, is_critic=True),
            "exemplars": Player(("exemplars",), invent_rate, betas),
            "decoder": Player(tuple(self._painter.networks), o.learning_rate, schedule=InverseDecay(5e-5 / 8)),
        }
        (invent, apply), shares = PHASES, o.phases
        self.phases = (
            Phase(invent, shares[0], ("critic", "exemplars"), every={"exemplars": o.critic_steps}),
            Phase(apply, shares[1], ("decoder",)),
        )
        self.weights = {
            "critic": o.adversarial_weight,
            "gradient_penalty": o.gradient_penalty_weight,
            "drift": o.drift_weight,
            "adversarial": o.adversarial_weight,
            "entropy": o.entropy_weight,
            "content": o.content_weight,
            "style": o.style_weight,
            "tv": o.tv_weight,
        }
        self.memory = {}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        if player == "decoder":
            return self._painter.take_turn(networks, step, self._draw(networks, step).detach())
        return self._judge(networks, step) if player == "critic" else self._invent(networks, step)

    def _draw(self, networks: Mapping[str, nn.Module], step: Step) -> Tensor:
        """An exemplar for every row of the batch, out of the step's noise."""
        like_BCHW = step.batch["content"]
        z_BD = step.moment.draws.randn(like_BCHW.shape[0], self.generator.latent)
        return networks["exemplars"](z_BD.to(like_BCHW))

    def _judge(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        critic, moment = networks["critic"], step.moment
        real_BCHW = self._fit(step.batch["style"])
        fake_BCHW = self._draw(networks, step).detach()
        real, fake = judge(critic, real_BCHW, fake_BCHW, moment)
        terms = {
            "critic": critic_loss(_GAN, real, fake),
            "gradient_penalty": gradient_penalty(critic, real_BCHW, fake_BCHW, moment.draws),
            "drift": drift_penalty(real),
        }
        return Turn(terms, {"accuracy": critic_accuracy(_GAN, real, fake, moment.mean)})

    def _invent(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        fake_BCHW, moment = self._draw(networks, step), step.moment
        logits = networks["critic"](diff_augment(fake_BCHW, moment.augment, moment.draws))
        return Turn({"adversarial": generator_loss(_GAN, logits), "entropy": -marginal_entropy(logits, moment.mean)})

    def _fit(self, style_BCHW: Tensor) -> Tensor:
        """Style images at the size of exemplars."""
        size = (self._size_px, self._size_px)
        return F.interpolate(style_BCHW, size, mode="bilinear", antialias=True, align_corners=False)

    def styles(self) -> dict[str, Tensor]:
        return {f"random:{seed}": self.generator.draw_style(seed) for seed in range(_NUM_DRAWN)}
