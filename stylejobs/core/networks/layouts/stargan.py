"""The generator of the public code of StarGAN, first version: one sequence, `main.N`, blocks `main.N.main.M`.

0 convolution of image and tiled label, 1 norm, 2 ReLU, two times convolution, norm, ReLU, the blocks, two times
transposed convolution, norm, ReLU, then the head. Its instance norms keep running statistics and never use them,
because that code makes its pictures in training mode: they are passed over.
"""

from stylejobs.core.networks.layouts.matching import Adopted, Given, Names, take

_WIDTH, _BLOCKS, _DOMAINS = 64, 6, 5


def adopt_stargan(given: Given) -> Adopted:
    """A generator of StarGAN as a `label_conditioned`; number of domains, width and blocks are found from the shapes.

    Raises:
        ValueError: another network's keys or shapes.
    """
    domains = given.size("main.0.weight", 1, 3 + _DOMAINS) - 3
    options = {
        "domains": domains if domains > 0 else _DOMAINS,
        "width": given.size("main.0.weight", 0, _WIDTH),
        "blocks": given.numbers(r"main\.(\d+)\.main\..*", _BLOCKS),
        "public": True,
    }
    weights, _ = take(given, Names("label_conditioned", options, _layers(options["blocks"])))
    return Adopted("label_conditioned", options, weights)


def _layers(blocks: int) -> dict[str, str]:
    layers = {f"stem.{part}": f"main.{part}" for part in (0, 1)}
    layers |= {f"encoder.{part}": f"main.{3 + part}" for part in (0, 1, 3, 4)}
    inner = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}
    for number in range(blocks):
        layers |= {f"residual.{number}.{ours}": f"main.{9 + number}.main.{place}" for ours, place in inner.items()}
    after = 9 + blocks
    layers |= {f"decoder.{part}": f"main.{after + part}" for part in (0, 1, 3, 4)}
    return layers | {"head": f"main.{after + 6}"}
