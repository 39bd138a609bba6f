"""Judges of content and style by name: which loss, on which layers of which frozen network."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylejobs.core.backbone import Backbone
from stylejobs.core.choices import choose
from stylejobs.core.losses.content import feature_loss, l1_loss
from stylejobs.core.losses.style import (
    gaussian_wasserstein,
    gram_distance,
    gram_matrix,
    moments_loss,
    mrf_loss,
    sliced_wasserstein,
)
from stylejobs.core.precision import widen

CONTENT_KINDS = ("l1", "l2", "perceptual", "fc6_fc7")
_NUM_PROJECTIONS = 64

# loss of (features, target features, draws): a mean over the batch
_FeatureLoss = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def _gram(features_BCHW: Tensor, target_BCHW: Tensor, rng: torch.Generator) -> Tensor:
    return gram_distance(gram_matrix(features_BCHW), gram_matrix(target_BCHW))


def scale_to_target(features_BCHW: Tensor, target_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Both over the root mean square of the row's target: a squared loss of them is relative to the target's energy.

    So one weight serves every layer and backbone. Row by row, so that a loss stays a mean over rows. Float32 or wider.
    """
    target_BCHW = widen(target_BCHW)
    rms_B111 = target_BCHW.detach().square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return widen(features_BCHW) / rms_B111, target_BCHW / rms_B111


def _relative(loss: Callable[[Tensor, Tensor], Tensor]) -> _FeatureLoss:
    return lambda features_BCHW, target_BCHW, rng: loss(*scale_to_target(features_BCHW, target_BCHW))


def _sliced(features_BCHW: Tensor, target_BCHW: Tensor, rng: torch.Generator) -> Tensor:
    return sliced_wasserstein(*scale_to_target(features_BCHW, target_BCHW), _NUM_PROJECTIONS, rng)


STYLE_KINDS: dict[str, _FeatureLoss] = {
    "gram": _gram,
    "moments": _relative(moments_loss),
    "wasserstein": _relative(gaussian_wasserstein),
    "sliced": _sliced,
    "mrf": _relative(mrf_loss),
}


class ContentJudge(nn.Module):
    """How far an image is from its content image, by kind.

    `l1`, `l2`: mean |y - x|, mean (y - x)^2 of pixels in [-1, 1]. `perceptual`: mean (f(y) - f(x))^2 / mean f(x)^2 at
    `layer`, row by row. `fc6_fc7`: the same, mean over the two wide layers of a VGG, from its whole weights file.

    Args:
        kind: one of `CONTENT_KINDS`.
        backbone: read by `perceptual` and `fc6_fc7`.
        layer: of `perceptual`; None takes the backbone's default.

    Raises:
        ValueError: an unknown kind or layer, or no backbone where one is read.
    """

    def __init__(self, kind: str, backbone: Backbone | None, layer: str | None = None):
        super().__init__()
        self.kind = choose("kind of content loss", dict.fromkeys(CONTENT_KINDS, kind), kind)
        self.layers: tuple[str, ...] = ()
        self.backbone = None
        if kind in ("perceptual", "fc6_fc7"):
            if backbone is None:
                raise ValueError(f"content_kind={kind}: wanted a backbone; got none")
            self.backbone = backbone
            self.layers = ("fc6", "fc7") if kind == "fc6_fc7" else (layer or backbone.content_layer,)
            _check_layers(backbone, self.layers)

    def forward(self, stylized_BCHW: Tensor, content_BCHW: Tensor) -> Tensor:
        """The loss: float32 scalar, a mean over the batch."""
        if self.backbone is None:
            loss = l1_loss if self.kind == "l1" else feature_loss
            return loss(stylized_BCHW, content_BCHW)
        with torch.no_grad():
            targets = self.backbone(content_BCHW, self.layers)
        found = self.backbone(stylized_BCHW, self.layers)
        losses = [feature_loss(*scale_to_target(found[layer], targets[layer])) for layer in self.layers]
        return torch.stack(losses).mean()


class StyleJudge(nn.Module):
    """How far the statistics of an image's features are from those of its style image: mean over layers, by kind.

    `gram`: the relative Gram distance. `moments`, `wasserstein` (Gaussian), `sliced`, `mrf`: the loss of that name in
    `core.losses`, over the mean square of the target's features.

    Args:
        kind: a key of `STYLE_KINDS`.
        backbone: frozen features.
        layers: None takes the backbone's style layers.

    Raises:
        ValueError: an unknown kind or layer, or no backbone.
    """

    def __init__(self, kind: str, backbone: Backbone | None, layers: tuple[str, ...] | None = None):
        super().__init__()
        self._loss = choose("kind of style loss", STYLE_KINDS, kind)
        if backbone is None:
            raise ValueError("a style loss wants a backbone; got none")
        self.backbone = backbone
        self.layers = tuple(layers or backbone.style_layers)
        _check_layers(backbone, self.layers)

    def forward(self, stylized_BCHW: Tensor, style_BCHW: Tensor, rng: torch.Generator) -> Tensor:
        """The loss: float32 scalar, a mean over the batch; row b is compared with style image b."""
        with torch.no_grad():
            targets = self.backbone(style_BCHW, self.layers)
        found = self.backbone(stylized_BCHW, self.layers)
        return torch.stack([self._loss(found[layer], targets[layer], rng) for layer in self.layers]).mean()


def _check_layers(backbone: Backbone, layers: tuple[str, ...]) -> None:
    for layer in layers:
        choose(f"layer of {backbone.name}", dict.fromkeys(backbone.layers), layer)
