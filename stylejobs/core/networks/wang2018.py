"""The multi-scale critic of pix2pixHD (Wang 2018): the same kind of critic on the image and on smaller copies of it."""

import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.networks.isola2017 import PatchCritic
from stylejobs.core.networks.layers import check_images


class MultiscaleCritic(nn.Module):
    """One `PatchCritic` for each scale, the first on the image, each next on a copy of half the size.

    Copies are 3x3 averages with stride 2; at the border only what is in the image counts.

    Args:
        scales: number of critics; the coarsest sees 2^(scales - 1) times as far. Images are at least
            3 * 2^(layers + scales - 1) px on both sides: 96 px for the defaults.
        width, layers, norm: of each critic, see `PatchCritic`.

    Differs from paper: the critics return logits alone, not the features of their layers.
    Source: Wang et al. 2018, arXiv:1711.11585, section 3.2.

    >>> sum(weight.numel() for weight in MultiscaleCritic(scales=3).parameters()) == 3 * 2764737
    True
    """

    def __init__(self, scales: int = 3, width: int = 64, layers: int = 3, norm: str = "instance"):
        super().__init__()
        if scales < 1:
            raise ValueError(f"wanted scales >= 1; got {scales}")
        self.critics = nn.ModuleList(PatchCritic(width, layers, norm) for _ in range(scales))
        self.min_px = self.critics[0].min_px * 2 ** (scales - 1)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Judges a batch.

        Args:
            image_BCHW: float, [-1, 1], sides of at least `min_px`.

        Returns:
            logits_B1HW of each scale, the finest first, high for real.
        """
        check_images(image_BCHW, self.min_px)
        logits = []
        for index, critic in enumerate(self.critics):
            if index:
                image_BCHW = F.avg_pool2d(image_BCHW, 3, 2, 1, count_include_pad=False)
            logits.append(critic(image_BCHW))
        return logits
