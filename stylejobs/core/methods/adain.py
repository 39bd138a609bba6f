"""Arbitrary style transfer (Huang & Belongie 2017): one decoder learns to paint in any style."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylejobs.core.losses.consistency import total_variation
from stylejobs.core.losses.content import feature_loss
from stylejobs.core.methods.fast import check_perceptual
from stylejobs.core.methods.judges import StyleJudge, scale_to_target
from stylejobs.core.methods.method import Ingredients, Method, Player, Step, Turn, encode_styles
from stylejobs.core.methods.players import check_numbers
from stylejobs.core.methods.schedule import InverseDecay, Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.huang2017 import style_code


@dataclass(frozen=True)
class AdainOptions:
    """The numbers of the method.

    Args:
        style_kind, style_layers: see `StyleJudge`.
        content_weight: of mean (f(y) - t)^2 / mean t^2, with t the features that the decoder was given.
        style_weight: of the style loss.
        tv_weight: of the total variation.
        learning_rate: of Adam; falls as 1 / (1 + 5e-5 * images / 8).
    """

    style_kind: str = "moments"
    style_layers: tuple[str, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 10.0
    tv_weight: float = 0.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        check_numbers(self)


class Adain(Method):
    """Loss = w_c * |f(y) - t|^2 + w_s * style(y, s), where t = AdaIN(f(x), f(s)) and y = decode(t).

    Args:
        ingredients: `generator` holds options of the `adain` network; its encoder is the backbone's. The style images
            are those that the package will carry by name; it takes any other as well.
        options: see `AdainOptions`.

    Raises:
        ValueError: no backbone or style image, or an encoder of another name than the backbone's.

    Differs from paper: losses relative to their targets, means over layers in place of sums, so that one set of weights
    serves every backbone; a generator option adds style attention, of which t is then a result too.
    Source: Huang & Belongie 2017, arXiv:1703.06868, equations 11 to 14; Park & Lee 2019, arXiv:1812.02342.
    """

    needs_backbone = True
    options_class = AdainOptions

    def __init__(self, ingredients: Ingredients, options: AdainOptions | None = None):
        o = options or AdainOptions()
        backbone = check_perceptual("adain", ingredients)
        self._style_images = ingredients.style_images
        self.generator_name = "adain"
        self.generator_options = {"encoder": backbone.architecture, **ingredients.generator}
        if self.generator_options["encoder"] != backbone.architecture:
            raise ValueError(
                f"wanted the encoder {backbone.architecture}, the backbone's; got {self.generator_options['encoder']}"
            )
        self.generator = build_network(self.generator_name, **self.generator_options)
        self.generator.encoder.load_weights(backbone.features.state_dict())
        self._painter = Painter(self.generator, StyleJudge(o.style_kind, backbone, o.style_layers))
        self.networks = self._painter.networks
        self.frozen = self._painter.frozen
        self.players = {
            "decoder": Player(tuple(self.networks), o.learning_rate, schedule=InverseDecay(5e-5 / 8)),
        }
        self.phases = (Phase("train", 1.0, ("decoder",)),)
        self.weights = {"content": o.content_weight, "style": o.style_weight, "tv": o.tv_weight}
        self.memory = {}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        return self._painter.take_turn(networks, step, step.batch["style"])

    def styles(self) -> dict[str, Tensor]:
        return encode_styles(self.generator, self._style_images)


class Painter:
    """The turn of an `adain` network's decoder, whatever its styles come from.

    Attributes:
        networks: the decoder, and with style attention the transform.
        frozen: the encoder, a transform without weights, and the judge.
    """

    def __init__(self, generator: nn.Module, judge: StyleJudge):
        self._generator, self._judge = generator, judge
        is_trained = any(True for _ in generator.transform.parameters())
        self.networks = {"decoder": generator.decoder, **({"transform": generator.transform} if is_trained else {})}
        self.frozen = {"encoder": generator.encoder, "judge": judge}

    def take_turn(self, networks: Mapping[str, nn.Module], step: Step, style_BCHW: Tensor) -> Turn:
        """The decoder's losses on the batch's content; row b in the style of image b."""
        content_BCHW, encoder = step.batch["content"], self._generator.encoder
        with torch.no_grad():
            features_BCHW = encoder(content_BCHW)
            code_BD = style_code(encoder(style_BCHW), self._generator.transform.grid)
        target_BCHW = networks.get("transform", self._generator.transform)(features_BCHW, code_BD)
        stylized_BCHW = networks["decoder"](target_BCHW, content_BCHW.shape[-2:])
        step.kept["stylized"] = stylized_BCHW.detach()
        found_BCHW = encoder(stylized_BCHW)
        return Turn(
            {
                "content": feature_loss(*scale_to_target(found_BCHW, target_BCHW.detach())),
                "style": self._judge(stylized_BCHW, style_BCHW, step.moment.draws.shared),
                "tv": total_variation(stylized_BCHW),
            }
        )
