"""The residual generator as the public code of CycleGAN and of CUT names it: one flat sequence, `model.N`.

Layers without weights are counted too: 0 reflection, 1 convolution, 2 norm, 3 ReLU, then two times convolution, norm,
ReLU (and a blur, `filt`, where it is antialiased), the blocks, two times (a blur) convolution, norm, ReLU, reflection,
convolution. A block is `conv_block`, `block` in some relatives: 0 reflection, 1 convolution, 2 norm, 3 ReLU, 4 dropout
if it was trained with it, reflection, convolution, norm.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylejobs.core.networks.layouts.matching import STATISTICS, Adopted, Given, Names, take
from stylejobs.core.networks.zhang2019 import BLURS
from stylejobs.core.networks.zhu2017 import SAMPLINGS

_WIDTH, _BLOCKS = 64, 9
_NEVER = re.compile(r"(?!)")


def adopt_resnet(given: Given) -> Adopted:
    """A generator of CycleGAN or CUT, whose options are found from keys and shapes, as a `resnet`.

    Found are: width, number of blocks, norm (none of its own weights, affine, or batch), dropout (which does nothing
    any more), strides or blurs for each direction. Batch norms go by their running statistics, as with the public
    code's `--eval`. Running statistics of instance norms, which old versions wrote, are passed over.

    Raises:
        ValueError: another network's keys or shapes, such as a U-Net's or of blocks that pad with zeros; blurs of other
            taps than [1, 2, 1] and [1, 3, 3, 1].
    """
    keys, norm = given.tensors, _norm(given.tensors)
    options = {
        "width": given.size("model.1.weight", 0, _WIDTH),
        "blocks": given.numbers(r"model\.(\d+)\.(?:conv_block|block)\..*", _BLOCKS),
        "norm": norm,
        "upsample": _upsample(keys),
    }
    is_convolution_6 = [
        value.ndim == 4 for key, value in keys.items() if re.search(r"\.(conv_)?block\.6\.weight$", key)
    ]
    word = "block" if any(re.match(r"model\.\d+\.block\.", key) for key in keys) else "conv_block"
    names = _names(options, word, dropout=any(is_convolution_6))
    weights, blurs = take(given, names)
    for key, blur in blurs.items():
        wanted = _blur_of(blur.shape)
        if not torch.allclose(blur, wanted, rtol=0, atol=1e-6):
            raise ValueError(f"wanted the blur {wanted[0, 0].tolist()} in {key}; got {blur[0, 0].tolist()}")
    return Adopted("resnet", options, weights)


def export_resnet(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `resnet` by the names of the public code, which loads them with `load_state_dict` as they are.

    Its network must be built alike: `resnet_9blocks` and so on, `--ngf` the width, `--norm`, without dropout; for the
    antialiased ones it is CUT's. Affine instance norms are not among its norms.

    Raises:
        ValueError: options that the public code's network does not have.
    """
    options = {"width": _WIDTH, "blocks": _BLOCKS, "norm": "instance", "upsample": "nearest", **options}
    faults = [
        f"{name}={options[name]}"
        for name, unknown in (
            ("upsample", options["upsample"] == "nearest"),
            ("norm", options["norm"] == "none"),
            *((name, options.get(name)) for name in ("tied", "adapter", "inner", "int8")),
        )
        if unknown
    ]
    if faults:
        raise ValueError(
            f"the public code's generator has no {', '.join(faults)}; what it has is trained with "
            "generator.upsample=transposed generator.norm=instance"
        )
    names = _names(options, "conv_block", dropout=False)
    exported = {theirs: weights[ours] for theirs, (ours, _) in names.pairs().items()}
    return exported | {key: _blur_of(shape) for key, shape in names.beside.items()}


def _norm(keys: Mapping[str, Tensor]) -> str:
    """Convolutions before a batch norm have no bias, those before an instance norm have one, in all of this code."""
    if "model.2.weight" not in keys:
        return "instance"
    return "affine_instance" if "model.1.bias" in keys else "batch"


def _upsample(keys: Mapping[str, Tensor]) -> str:
    sides = {value.shape[-1] for key, value in keys.items() if key.endswith(".filt") and value.ndim == 4}
    # A blur of another side is not known then, and `take` says so.
    kinds = ("blurred" if 3 in sides else "strided", "blurred" if 4 in sides else "transposed")
    return next(name for name, sampling in SAMPLINGS.items() if sampling == kinds)


def _names(options: Mapping[str, Any], word: str, dropout: bool) -> Names:
    (halving, doubling), width = SAMPLINGS[options["upsample"]], options["width"]
    layers = {"trunk.stem.0": "model.1", "trunk.stem.1": "model.2"}
    blurs: dict[str, tuple[int, ...]] = {}
    at = 4
    for number in (1, 2):
        layers |= {f"trunk.down{number}.{part}": f"model.{at + part}" for part in (0, 1)}
        at += 3
        if halving == "blurred":
            blurs[f"model.{at}.filt"] = (2**number * width, 1, 3, 3)
            at += 1
    inner = {"conv1": 1, "norm1": 2, "conv2": 5 + dropout, "norm2": 6 + dropout}
    for number in range(options["blocks"]):
        layers |= {f"trunk.blocks.{number}.{ours}": f"model.{at}.{word}.{place}" for ours, place in inner.items()}
        at += 1
    for number in (0, 1):
        if doubling == "blurred":
            blurs[f"model.{at}.filt"] = (4 // 2**number * width, 1, 4, 4)
            at += 1
        ours = number if doubling == "transposed" else 2 * number + 1
        layers |= {f"trunk.decoder.{ours}.{part}": f"model.{at + part}" for part in (0, 1)}
        at += 3
    layers["trunk.head"] = f"model.{at + 1}"
    passed_over = _NEVER if options["norm"] == "batch" else STATISTICS
    return Names("resnet", dict(options), layers, blurs, passed_over)


def _blur_of(shape: tuple[int, ...]) -> Tensor:
    return BLURS["down" if shape[-1] == 3 else "up"].expand(shape).clone()
