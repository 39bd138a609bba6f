"""Fast style transfer (Johnson 2016): a generator learns one style through perceptual losses, without a critic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylejobs.core.backbone import Backbone
from stylejobs.core.losses.consistency import total_variation
from stylejobs.core.losses.content import feature_loss
from stylejobs.core.losses.style import gram_distance, gram_matrix
from stylejobs.core.methods.method import Ingredients, Method, Player, Step, Turn
from stylejobs.core.methods.schedule import Phase
from stylejobs.core.networks import build_network


@dataclass(frozen=True)
class FastOptions:
    """The numbers of the method.

    The weight convention: losses are relative to the style image's own features (see `PerceptualTargets`), so weights
    are dimensionless and one set serves every backbone. An image without any features has a style loss of 1 and a
    content loss near 1.

    Args:
        content_layer: layer of the backbone; None takes the backbone's default.
        style_layers: layers of the backbone, equally weighted; None takes the backbone's defaults.
        content_weight: of the relative feature distance.
        style_weight: of the relative Gram distance, mean over the style layers.
        tv_weight: of the total variation, mean over pixels in [-1, 1].
        learning_rate: of Adam, betas (0.9, 0.999).
    """

    content_layer: str | None = None
    style_layers: tuple[str, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 3.0
    tv_weight: float = 0.05
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        negative = [
            f"{name}={getattr(self, name)}"
            for name in ("content_weight", "style_weight", "tv_weight")
            if not getattr(self, name) >= 0.0
        ]
        if negative or not self.learning_rate > 0.0:
            raise ValueError(f"wanted weights >= 0 and learning_rate > 0; got {negative}, {self.learning_rate}")


class PerceptualTargets(nn.Module):
    """What a style asks of an image's features; computed once, when built.

    Content: mean((f(y) - f(x))^2) / mean(f(s)^2) at the content layer. Style: mean over layers of
    |G(y) - G(s)| / |G(s)|, Frobenius norms. Here y is the result, x the content image, s the style image,
    f features and G Gram matrices.

    Args:
        backbone: frozen features.
        style_images: float [1, 3, H, W] each, [-1, 1]; the statistics of several images of one style are averaged.
        content_layer: a layer of the backbone.
        style_layers: layers of the backbone.
    """

    def __init__(
        self, backbone: Backbone, style_images: Sequence[Tensor], content_layer: str, style_layers: tuple[str, ...]
    ):
        super().__init__()
        self.backbone = backbone
        self.content_layer = content_layer
        self.style_layers = style_layers
        with torch.no_grad():
            features = [backbone(image.to(torch.float32), (content_layer, *style_layers)) for image in style_images]
            energy = torch.stack([found[content_layer].square().mean() for found in features]).mean()
            self.register_buffer("content_energy", energy, persistent=False)
            for layer in style_layers:
                gram_1CC = torch.cat([gram_matrix(found[layer]) for found in features]).mean(dim=0, keepdim=True)
                self.register_buffer(f"gram_{layer}", gram_1CC, persistent=False)

    def forward(self, stylized_BCHW: Tensor, content_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The (content, style) losses: float32 scalars, means over the batch, unweighted."""
        with torch.no_grad():
            target_BCHW = self.backbone(content_BCHW, (self.content_layer,))[self.content_layer]
        features = self.backbone(stylized_BCHW, (self.content_layer, *self.style_layers))
        content = feature_loss(features[self.content_layer], target_BCHW) / self.content_energy.clamp_min(1e-12)
        distances = [
            gram_distance(gram_matrix(features[layer]), self.get_buffer(f"gram_{layer}")) for layer in self.style_layers
        ]
        return content, torch.stack(distances).mean()


class Fast(Method):
    """One style, feed-forward: loss = w_c * content + w_s * style + w_tv * total variation.

    Args:
        ingredients: `generator` holds options of the `johnson` network. The style images, at least 32 px each, are
            one style: their statistics are averaged; their scale sets the size of the strokes.
        options: weights, layers and learning rate.

    Raises:
        ValueError: no style image, or no backbone.

    Differs from paper: relative losses (see `PerceptualTargets`) in place of weights that hold for VGG-16 alone, and
    the Gram distance is not squared (see `gram_distance`).
    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, equations 2 to 5.
    """

    reads = ("content",)
    needs_backbone = True
    options_class = FastOptions

    def __init__(self, ingredients: Ingredients, options: FastOptions | None = None):
        options = options or FastOptions()
        backbone = check_perceptual("fast", ingredients)
        self.generator_name = "johnson"
        self.generator_options = dict(ingredients.generator)
        self.generator = build_network(self.generator_name, **self.generator_options)
        self.networks = {"generator": self.generator}
        self._targets = PerceptualTargets(
            backbone,
            list(ingredients.style_images.values()),
            options.content_layer or backbone.content_layer,
            tuple(options.style_layers or backbone.style_layers),
        )
        self.frozen = {"targets": self._targets}
        self.players = {"generator": Player(("generator",), options.learning_rate)}
        self.phases = (Phase("train", 1.0, ("generator",)),)
        self.weights = {"content": options.content_weight, "style": options.style_weight, "tv": options.tv_weight}
        self.memory = {}
        self._style_name = ingredients.domains[-1]

    def take_turn(self, player: str, networks: Mapping[str, nn.Module], step: Step) -> Turn:
        content_BCHW = step.batch["content"]
        stylized_BCHW = networks["generator"](content_BCHW, content_BCHW.new_zeros(content_BCHW.shape[0], 0))
        content, style = self._targets(stylized_BCHW, content_BCHW)
        return Turn({"content": content, "style": style, "tv": total_variation(stylized_BCHW)})

    def styles(self) -> dict[str, Tensor]:
        return {self._style_name: torch.zeros(0)}


def check_perceptual(method: str, ingredients: Ingredients) -> Backbone:
    """The backbone, after making sure that there is one, and a style to look at with it."""
    if ingredients.backbone is None or not ingredients.style_images:
        raise ValueError(f"method {method!r}: wanted a backbone and at least one style image; got neither or one only")
    return ingredients.backbone
