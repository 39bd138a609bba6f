"""AdaIN of the public PyTorch code: a decoder and a normalised VGG-19, two files of bare sequences, `N.weight`.

Layers without weights are counted too. The VGG takes RGB in [0, 1] and begins with a 1x1 convolution that brings it to
the colours that it was trained with; that, and the range of ours, is folded into the convolution behind it. The decoder
gives [0, 1]: 2 y - 1 is folded into its last convolution, and what leaves [-1, 1] is cut off there, as that code does
when it saves a picture. The VGG's layers behind relu4_1 are passed over.
"""

import re

import torch

from stylejobs.core.backbone import fold_unit_input
from stylejobs.core.networks.layouts.matching import Adopted, Given, Names, take

_COLOURS = "encoder.0"
_DECODER = dict(zip((0, 3, 5, 7, 9, 12, 14, 17, 19), (1, 5, 8, 11, 14, 18, 21, 25, 28), strict=True))
_ENCODER = dict(zip((0, 2, 5, 7, 10, 12, 14, 16, 19), (2, 5, 9, 12, 16, 19, 22, 25, 29), strict=True))
"""Our convolution -> theirs."""

_BEHIND = re.compile(r"encoder\.(3[2-9]|4\d|5[0-2])\.(weight|bias)")
_OPTIONS = {"encoder": "vgg19", "layer": "relu4_1", "public": True}


def adopt_adain(decoder: Given, encoder: Given) -> Adopted:
    """A decoder and its encoder as one `adain`.

    Raises:
        ValueError: another network's keys or shapes in either file, such as the two files the other way round.
    """
    layers = {f"decoder.body.{ours}": f"decoder.{theirs}" for ours, theirs in _DECODER.items()}
    layers |= {f"encoder.backbone.features.{ours}": f"encoder.{theirs}" for ours, theirs in _ENCODER.items()}
    beside = {f"{_COLOURS}.weight": (3, 3, 1, 1), f"{_COLOURS}.bias": (3,)}
    tensors = {f"decoder.{key}": value for key, value in decoder.tensors.items()}
    tensors |= {f"encoder.{key}": value for key, value in encoder.tensors.items()}
    names = Names("adain", dict(_OPTIONS), layers, beside, _BEHIND)
    weights, colours = take(Given("adain", tensors), names)
    first, last = "encoder.backbone.features.0", "decoder.body.19"
    # conv(colours(x)) as one convolution: exact at the border, because a reflection can be done before or after a 1x1.
    kernel, bias = weights[f"{first}.weight"].double(), weights[f"{first}.bias"].double()
    mixed = torch.einsum("okhw,ki->oihw", kernel, colours[f"{_COLOURS}.weight"][:, :, 0, 0].double())
    bias = bias + torch.einsum("okhw,k->o", kernel, colours[f"{_COLOURS}.bias"].double())
    kernel, bias = fold_unit_input(mixed, bias)
    weights |= {f"{first}.weight": kernel.float(), f"{first}.bias": bias.float()}
    weights[f"{last}.weight"] = (2.0 * weights[f"{last}.weight"].double()).float()
    weights[f"{last}.bias"] = (2.0 * weights[f"{last}.bias"].double() - 1.0).float()
    return Adopted("adain", dict(_OPTIONS), weights | {"encoder.scale": torch.ones(())})
