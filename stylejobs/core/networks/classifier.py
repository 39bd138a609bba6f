"""A small residual network that names what is in a picture: a judge of labels, no generator."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = 4
_FEWEST_PX = 32
_GROUP_CHANNELS = 8


class Classifier(nn.Module):
    """A stem of stride 2, four stages of one residual block, mean over the image, a linear layer.

    Stages have width, 2, 4 and 8 width channels; all but the first halve the size. Group norms of about 8 channels in
    place of batch norms, so that a row's answer depends on that row alone, in training too. Any size of 32 px or more
    is taken, but the scale of things should be that of training: `core.agreement.classify` sees to it.

    Args:
        classes: names of the classes, in the order of the logits; at least two, no two the same.
        width: channels of the stem.
        size_px: short side of the whole pictures that it is trained for.

    Raises:
        ValueError: too few classes, a name that comes twice, or numbers too small.

    Differs from paper: four blocks in place of eight and a 3x3 stem without pooling, for small pictures; norms as
    above; a block whose size or width changes takes its shortcut through a 1x1 convolution after a mean of 2x2.
    Source: He, Zhang, Ren & Sun 2016, arXiv:1512.03385; norms: Wu & He 2018, arXiv:1803.08494.

    >>> classifier = Classifier(("cat", "dog"))
    >>> sum(weight.numel() for weight in classifier.parameters())
    307794
    """

    def __init__(self, classes: Sequence[str], width: int = 16, size_px: int = 64):
        super().__init__()
        self.classes = tuple(classes)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"wanted at least two classes, no two of one name; got {list(self.classes)}")
        if width < 1 or size_px < _FEWEST_PX:
            raise ValueError(f"wanted width >= 1 and size_px >= {_FEWEST_PX}; got {width} and {size_px}")
        self.size_px = size_px
        widths = [width * 2**stage for stage in range(_STAGES)]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), _norm(width), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(
            *(
                _Block(widths[max(0, stage - 1)], channels, 1 if stage == 0 else 2)
                for stage, channels in enumerate(widths)
            )
        )
        self.head = nn.Linear(widths[-1], len(self.classes))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """The answers to a batch.

        Args:
            image_BCHW: float, RGB, [-1, 1], sides of at least 32 px.

        Returns:
            logits_BK, one column a class.
        """
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3 or not image_BCHW.is_floating_point():
            raise ValueError(f"wanted float images [B, 3, H, W]; got {image_BCHW.dtype} {list(image_BCHW.shape)}")
        if min(image_BCHW.shape[-2:]) < _FEWEST_PX:
            raise ValueError(f"wanted sides of at least {_FEWEST_PX} px; got {list(image_BCHW.shape[-2:])}")
        return self.head(self.stages(self.stem(image_BCHW)).mean(dim=(2, 3)))


class _Block(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); its last norm begins at 0, so a block begins as none."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False), _norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), _norm(channels)
        nn.init.zeros_(self.norm2.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            pool = nn.AvgPool2d(stride, ceil_mode=True)
            self.shortcut = nn.Sequential(pool, nn.Conv2d(in_channels, channels, 1, bias=False), _norm(channels))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        inner_BCHW = F.relu(self.norm1(self.conv1(features_BCHW)), inplace=True)
        return F.relu(self.shortcut(features_BCHW) + self.norm2(self.conv2(inner_BCHW)))


def _norm(channels: int) -> nn.GroupNorm:
    """Groups of 8 channels, or of as many as divide; of single ones only where there is no choice."""
    return nn.GroupNorm(max(1, channels // math.gcd(channels, _GROUP_CHANNELS)), channels)
