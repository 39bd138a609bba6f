"""Generators by name: one file a paper, one line here.

Every generator has `multiple` (what its inner strides ask of both sides; it pads and crops by itself) and `style_dim`
(numbers of a style code; 0 where it needs none), and maps (content_BCHW, style_BD) to stylized_BCHW of the same height
and width, any H, W >= 1. A row's result depends on that row alone, so one batch may hold many styles. A generator with
`style_dim` > 0 also has `encode_style(style_BCHW) -> style_BD`, unless a style is a label (`label_conditioned`). One
with `takes_whole` maps colours by statistics of the image; of a tile it takes those of the whole as a third argument.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from stylejobs.core.choices import choose
from stylejobs.core.networks.choi2018 import LabelConditioned
from stylejobs.core.networks.encoder_decoder import EncoderDecoder
from stylejobs.core.networks.exemplar import Exemplar
from stylejobs.core.networks.fst import AttentionRecurrent
from stylejobs.core.networks.huang2017 import Adain
from stylejobs.core.networks.int8 import swap_to_int8
from stylejobs.core.networks.johnson2016 import Johnson
from stylejobs.core.networks.karras2020 import StyleModulated
from stylejobs.core.networks.pitie2007 import Histogram
from stylejobs.core.networks.reinhard2001 import Moments
from stylejobs.core.networks.yang2020 import Fda
from stylejobs.core.networks.zhu2017 import Resnet

__all__ = ["NETWORKS", "build_network"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "adain": Adain,
    "attention_recurrent": AttentionRecurrent,
    "encoder_decoder": EncoderDecoder,
    "exemplar": Exemplar,
    "fda": Fda,
    "histogram": Histogram,
    "johnson": Johnson,
    "label_conditioned": LabelConditioned,
    "moments": Moments,
    "resnet": Resnet,
    "style_modulated": StyleModulated,
}


def build_network(name: str, **options: Any) -> nn.Module:
    """An untrained generator.

    Args:
        name: a key of `NETWORKS`.
        **options: the keyword arguments of that network's class; and `int8: true` for one whose convolutions are 8-bit
            (`compress.quantise`): for stylizing on the CPU, and empty until a state is loaded.

    Raises:
        ValueError: no such network, or options that it does not take.
    """
    build = choose("network", NETWORKS, name)
    int8 = options.pop("int8", False)
    try:
        network = build(**options)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built with the options {sorted(options)}: {error}") from error
    if int8:
        swap_to_int8(network)
    return network
