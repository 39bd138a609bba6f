"""Label safety: whether a frozen classifier sees in the stylized image what it saw in its source."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.bootstrap import Interval, share_interval
from stylejobs.core.networks.classifier import Classifier

_NUM_WORST = 3


@torch.no_grad()
def class_probabilities(network: Classifier, image_BCHW: Tensor) -> Tensor:
    """p(class | image), the image scaled (bilinear, antialiased) to the size that the classifier was trained for.

    Args:
        network: in evaluation or training mode, which are the same for it, on the device of the images.
        image_BCHW: float, RGB, [-1, 1], any H, W >= 1.

    Returns:
        probability_BK, float32, rows add up to 1.
    """
    height, width = image_BCHW.shape[-2:]
    scale = network.size_px / min(height, width)
    size = [max(network.size_px, round(side * scale)) for side in (height, width)]
    if size != [height, width]:
        image_BCHW = F.interpolate(image_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return network(image_BCHW.float()).softmax(dim=1)


def classify(network: Classifier, image_BCHW: Tensor) -> Tensor:
    """The likeliest class of each image, int64 [B]: the number of its name in `network.classes`.

    See `class_probabilities`.
    """
    return class_probabilities(network, image_BCHW).argmax(dim=1)


@dataclass(frozen=True)
class Agreement:
    """Shares of images whose class did not change, with their intervals.

    Attributes:
        overall: over all images.
        by_class: class of the source -> share; classes that no source has are left out.
        counts: class of the source -> images.
        worst: the classes with the lowest shares, at most three, the worst first.
    """

    overall: Interval
    by_class: dict[str, Interval]
    counts: dict[str, int]
    worst: tuple[str, ...]


def agreement(
    source_class_N: Tensor, made_class_N: Tensor, classes: Sequence[str], confidence: float = 0.95
) -> Agreement:
    """How often the class of image n is the same before and after: mean of [c(made_n) = c(source_n)].

    It asks one and the same classifier twice, so that its mistakes on sources do not count against the model. What it
    does not know how to see, it cannot miss: of a classifier that is right half of the time, agreement says little.

    Args:
        source_class_N: int64, 0 .. K-1, the answers on the sources.
        made_class_N: int64 [N], the answers on the results.
        classes: the names of the K classes.
        confidence: of the intervals (Wilson's), in (0, 1).

    Raises:
        ValueError: no images, not one answer for each, or an answer that has no name.

    >>> agreement(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), ("cat", "dog")).by_class["cat"].value
    0.5
    """
    if source_class_N.ndim != 1 or source_class_N.shape != made_class_N.shape or len(source_class_N) < 1:
        raise ValueError(
            f"wanted two answers [N >= 1] for each image; got {list(source_class_N.shape)}, {list(made_class_N.shape)}"
        )
    answers = torch.cat([source_class_N, made_class_N])
    if answers.min() < 0 or answers.max() >= len(classes):
        raise ValueError(f"wanted answers in 0 .. {len(classes) - 1}; got {answers.min()} to {answers.max()}")
    same_N = source_class_N == made_class_N
    by_class = {
        name: share_interval(same_N[source_class_N == number], confidence)
        for number, name in enumerate(classes)
        if (source_class_N == number).any()
    }
    counts = {name: int((source_class_N == classes.index(name)).sum()) for name in by_class}
    worst = sorted(by_class, key=lambda name: (by_class[name].value, name))[:_NUM_WORST]
    return Agreement(share_interval(same_N, confidence), by_class, counts, tuple(worst))
