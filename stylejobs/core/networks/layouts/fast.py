"""The generator of fast_neural_style in PyTorch's examples: `conv1.conv2d.weight`, `in1.weight`, `res1.conv1...`.

It maps pixels of [0, 255] to such pixels, unbounded. Ours are in [-1, 1]: x = 127.5 (z + 1) is folded into the first
convolution, which reflects, so that this is exact at the border too; y / 127.5 - 1 into the last. What leaves [-1, 1]
is cut off there, as that code does when it saves a picture.
"""

from stylejobs.core.networks.layouts.matching import Adopted, Given, Names, take

_WIDTH, _BLOCKS = 32, 5
_HALF_RANGE = 127.5


def adopt_fast(given: Given) -> Adopted:
    """A generator of PyTorch's example as a `johnson`; running statistics of old versions are passed over.

    Raises:
        ValueError: another network's keys or shapes.
    """
    options = {
        "width": given.size("conv1.conv2d.weight", 0, _WIDTH),
        "blocks": given.numbers(r"res(\d+)\..*", _BLOCKS),
        "public": True,
    }
    weights, _ = take(given, Names("johnson", options, _layers(options["blocks"])))
    stem, head = weights["encoder.0.conv.weight"].double(), weights["head.weight"].double()
    stem_bias, head_bias = weights["encoder.0.conv.bias"].double(), weights["head.bias"].double()
    weights["encoder.0.conv.weight"] = (_HALF_RANGE * stem).float()
    weights["encoder.0.conv.bias"] = (stem_bias + _HALF_RANGE * stem.sum(dim=(1, 2, 3))).float()
    weights["head.weight"] = (head / _HALF_RANGE).float()
    weights["head.bias"] = (head_bias / _HALF_RANGE - 1.0).float()
    return Adopted("johnson", options, weights)


def _layers(blocks: int) -> dict[str, str]:
    layers = {"head": "deconv3.conv2d"}
    for number in range(3):
        layers[f"encoder.{number}.conv"] = f"conv{number + 1}.conv2d"
        layers[f"encoder.{number}.norm"] = f"in{number + 1}"
    for number in range(blocks):
        for part in (1, 2):
            layers[f"residual.{number}.conv{part}"] = f"res{number + 1}.conv{part}.conv2d"
            layers[f"residual.{number}.norm{part}"] = f"res{number + 1}.in{part}"
    for number in range(2):
        layers[f"decoder.{number}.block.conv"] = f"deconv{number + 1}.conv2d"
        layers[f"decoder.{number}.block.norm"] = f"in{number + 4}"
    return layers
