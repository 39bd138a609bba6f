"""Checkpoints of other people's code, by the names that their weights have there, to networks of ours, and one back.

One file a family. Nothing here opens a file: tensors in, tensors out. What comes out gives the pictures of the original
network, to the last digits of float32, on images whose sides are multiples of the network's `multiple` and at least
16 px (AdaIN: 32 px); on other sizes ours extends the image by reflection, where the originals change its size.

    cyclegan, cut   the residual generator of the public code of CycleGAN and CUT, and of its relatives
    fast            fast_neural_style of PyTorch's examples
    adain           the public PyTorch code of AdaIN: the decoder, and its encoder apart
    stargan         the public code of StarGAN, first version
"""

from collections.abc import Mapping

from torch import Tensor

from stylejobs.core.choices import choose
from stylejobs.core.networks.layouts import adain, fast, resnet, stargan
from stylejobs.core.networks.layouts.matching import Adopted, Given, check_tensors
from stylejobs.core.networks.layouts.resnet import export_resnet

__all__ = ["FAMILIES", "Adopted", "adopt_checkpoint", "export_resnet"]

_ALONE = {
    "cyclegan": resnet.adopt_resnet,
    "cut": resnet.adopt_resnet,
    "fast": fast.adopt_fast,
    "stargan": stargan.adopt_stargan,
}
FAMILIES = (*_ALONE, "adain")


def adopt_checkpoint(
    family: str, tensors: Mapping[str, Tensor], encoder: Mapping[str, Tensor] | None = None
) -> Adopted:
    """The network of ours that a checkpoint of another code is.

    Args:
        family: one of `FAMILIES`.
        tensors: the checkpoint, name -> tensor of any float dtype; `module.` of a DDP is taken out wherever it stands.
        encoder: of "adain" only: the checkpoint of its normalised VGG.

    Raises:
        ValueError: weights that are not a number, or not those of the family: lists what is missing, what is not known
            and what has another shape, and says which family they look like.
    """
    choose("family", dict.fromkeys(FAMILIES), family)
    if (encoder is not None) != (family == "adain"):
        raise ValueError(f"wanted an encoder with family adain, and with no other; got family {family}")
    given = Given(family, check_tensors(tensors))
    if encoder is not None:
        return adain.adopt_adain(given, Given(family, check_tensors(encoder)))
    return _ALONE[family](given)
