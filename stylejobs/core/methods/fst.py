"""Staged fast style transfer, many styles by one network: encoder, then recurrent decoder, then interpolation network.

Within a stage the layered schedule: content alone, style alone, then all with an adversarial term.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.augment import diff_augment, patch_mosaic
from stylejobs.core.choices import choose
from stylejobs.core.losses.adversarial import generator_loss
from stylejobs.core.losses.content import l1_loss
from stylejobs.core.methods.fast import check_perceptual
from stylejobs.core.methods.judges import ContentJudge, StyleJudge
from stylejobs.core.methods.method import Ingredients, Method, Player, Step, Turn, encode_styles
from stylejobs.core.methods.players import UNPENALISED_KINDS, build_plain_critic, check_numbers, check_phases, criticise
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks import build_network
from stylejobs.core.networks.fst import Reconstruction, levels_code

STAGES = ("encoder", "decoder", "interpolation")
# (name, share of its stage, weights that differ): the layered schedule.
LAYERS = (
    ("content", 0.1, {"style": 0.0, "adversarial": 0.0}),
    ("style", 0.1, {"content": 0.0, "reconstruction": 0.0, "adversarial": 0.0}),
    ("all", 0.8, {}),
)
_EARLIER = 0.8
"""Weight of a refinement step's image relative to that of the next step."""


@dataclass(frozen=True)
class FstOptions:
    """The numbers of the method.

    Args:
        gan: kind of adversarial loss: vanilla, lsgan or hinge.
        content_kind, content_layer: see `ContentJudge`.
        style_kind, style_layers: see `StyleJudge`.
        reconstruction_weight: of mean |y - x| in the encoder's stage.
        content_weight, style_weight, adversarial_weight: of all stages.
        learning_rate: of Adam, for all players; `critic_learning_rate` None takes the same.
        phases: shares of the training of the three stages.
        mosaic: content images are cut into mosaic x mosaic patches, which change places within the image; 1 leaves
            them whole.
    """

    gan: str = "lsgan"
    content_kind: str = "perceptual"
    content_layer: str | None = None
    style_kind: str = "gram"
    style_layers: tuple[str, ...] | None = None
    reconstruction_weight: float = 1.0
    content_weight: float = 1.0
    style_weight: float = 1.0
    adversarial_weight: float = 0.05
    learning_rate: float = 1e-3
    critic_learning_rate: float | None = None
    phases: tuple[float, ...] = (0.2, 0.4, 0.4)
    mosaic: int = 1

    def __post_init__(self) -> None:
        choose("gan of fst", dict.fromkeys(UNPENALISED_KINDS), self.gan)
        check_numbers(self)
        check_phases(self.phases, STAGES)
        if not (self.content_weight and self.style_weight):
            raise ValueError(
                "wanted content_weight > 0 and style_weight > 0, each the whole loss of a part of every stage; "
                f"got {self.content_weight} and {self.style_weight}"
            )


class Fst(Method):
    """Three stages, each with one network that moves: what came before it is frozen, what comes after it waits.

    encoder: gives images of both domains back through a `Reconstruction`, which is thrown away; their own statistics
    are its style. decoder: the small image after each refinement step is judged at full size, later steps count more.
    interpolation: the full image is judged.

    Args:
        ingredients: `generator` holds options of `attention_recurrent`, `critic` of a critic that returns logits alone.
        options: see `FstOptions`.

    Raises:
        ValueError: no backbone or style image.

    Source: a popular article's staged scheme, in the form of METHODS: perceptual losses as in Johnson 2016,
    arXiv:1603.08155; losses on every refinement step as in Teed & Deng 2020, arXiv:2003.12039, equation 7.
    """

    needs_backbone = True
    options_class = FstOptions

    def __init__(self, ingredients: Ingredients, options: FstOptions | None = None):
        self._o = o = options or FstOptions()
        backbone = check_perceptual("fst", ingredients)
        self._style_images = ingredients.style_images
        self.generator_name, self.generator_options = "attention_recurrent", dict(ingredients.generator)
        self.generator = build_network(self.generator_name, **self.generator_options)
        self.networks = {
            "encoder": self.generator.encoder,
            "reconstruction": Reconstruction(self.generator.width),
            "decoder": self.generator.decoder,
            "interpolation": self.generator.interpolation,
            "critic": build_plain_critic("fst", ingredients),
        }
        self._content = ContentJudge(o.content_kind, backbone, o.content_layer)
        self._style = StyleJudge(o.style_kind, backbone, o.style_layers)
        self.frozen = {"content_judge": self._content, "style_judge": self._style}
        critic_rate = o.critic_learning_rate or o.learning_rate
        self.players = {
            "encoder": Player(("encoder", "reconstruction"), o.learning_rate),
            "decoder": Player(("decoder",), o.learning_rate),
            "interpolation": Player(("interpolation",), o.learning_rate),
            "critic": Player(("critic",), critic_rate, (0.5, 0.999), is_critic=True),
        }
        self.phases = tuple(
            Phase(
                f"{stage}/{layer}",
                stage_share * layer_share,
                (stage, "critic") if layer == "all" else (stage,),
                weights,
            )
            for stage, stage_share in zip(STAGES, o.phases, strict=True)
            for layer, layer_share, weights in LAYERS
        )
        self.weights = {
            "reconstruction": o.reconstruction_weight,
            "content": o.content_weight,
            "style": o.style_weight,
            "adversarial": o.adversarial_weight,
            "critic": 1.0,
        }
        self.memory = {}

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        turns = {
            "encoder": self._encode,
            "decoder": self._decode,
            "interpolation": self._interpolate,
            "critic": self._criticise,
        }
        return turns[player](networks, step)

    def _encode(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        images_BCHW = torch.cat([self._contents(step), step.batch["style"]])
        rebuilt_BCHW = networks["reconstruction"](networks["encoder"](images_BCHW), images_BCHW.shape[-2:])
        step.kept["fake"], step.kept["real"] = rebuilt_BCHW.detach(), images_BCHW
        turn = self._judge(networks, step, [rebuilt_BCHW], images_BCHW, images_BCHW)
        return Turn({**turn.terms, "reconstruction": l1_loss(rebuilt_BCHW, images_BCHW)})

    def _decode(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        content_BCHW = self._contents(step)
        _, images = networks["decoder"](*self._encoded(networks, content_BCHW, step.batch["style"]))
        size = content_BCHW.shape[-2:]
        images = [F.interpolate(image, size, mode="bilinear", align_corners=False) for image in images]
        step.kept["fake"], step.kept["real"] = images[-1].detach(), step.batch["style"]
        return self._judge(networks, step, images, content_BCHW, step.batch["style"])

    def _interpolate(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        content_BCHW = self._contents(step)
        levels, code_BD = self._encoded(networks, content_BCHW, step.batch["style"])
        with torch.no_grad():
            state_BCHW, images = networks["decoder"](levels, code_BD)
        stylized_BCHW = networks["interpolation"](state_BCHW, images[-1], code_BD, content_BCHW.shape[-2:])
        step.kept["fake"], step.kept["real"] = stylized_BCHW.detach(), step.batch["style"]
        step.kept["stylized"] = stylized_BCHW.detach()
        return self._judge(networks, step, [stylized_BCHW], content_BCHW, step.batch["style"])

    def _contents(self, step: Step) -> Tensor:
        """The content as mosaics, each image of its own patches: the other rows may be on other workers."""
        content_BCHW = step.batch["content"]
        if self._o.mosaic == 1:
            return content_BCHW
        seeds = step.moment.draws.randint(2**31, len(content_BCHW)).tolist()
        rows = zip(content_BCHW.split(1), (torch.Generator().manual_seed(seed) for seed in seeds), strict=True)
        return torch.cat([patch_mosaic(row_1CHW, self._o.mosaic, rng) for row_1CHW, rng in rows])

    def _encoded(
        self, networks: Mapping[str, nn.Module], content_BCHW: Tensor, style_BCHW: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Levels of the content and codes of the styles, from the frozen encoder."""
        with torch.no_grad():
            return networks["encoder"](content_BCHW), levels_code(networks["encoder"](style_BCHW))

    def _judge(
        self,
        networks: Mapping[str, nn.Module],
        step: Step,
        images: list[Tensor],
        content_BCHW: Tensor,
        style_BCHW: Tensor,
    ) -> Turn:
        """Losses of one image for every row, or of several that become better, the last of which counts fully."""
        losses = {
            "content": lambda image: self._content(image, content_BCHW),
            "style": lambda image: self._style(image, style_BCHW, step.moment.draws.shared),
        }
        terms = {}
        for name, loss in losses.items():
            if self.weight(name, step.moment):
                shares = [_EARLIER ** (len(images) - 1 - index) for index in range(len(images))]
                judged = [share * loss(image) for share, image in zip(shares, images, strict=True)]
                terms[name] = torch.stack(judged).sum() / sum(shares)
        if self.weight("adversarial", step.moment):
            seen_BCHW = diff_augment(images[-1], step.moment.augment, step.moment.draws)
            terms["adversarial"] = generator_loss(self._o.gan, networks["critic"](seen_BCHW))
        return Turn(terms)

    def _criticise(self, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        return criticise(self._o.gan, networks["critic"], step.kept["real"], step.kept["fake"], step.moment)

    def styles(self) -> dict[str, Tensor]:
        return encode_styles(self.generator, self._style_images)
