"""The PatchGAN critic (Isola 2017): it judges overlapping patches, not the image."""

from torch import Tensor, nn

from stylejobs.core.networks.layers import build_norm, check_images, init_critic, receptive_field_px

NORM_KINDS = ("instance", "none")
_MAX_GROWTH = 8


class PatchCritic(nn.Module):
    """4x4 convolutions, `layers` of them with stride 2, then two with stride 1; leaky ReLU 0.2; no sigmoid.

    With three layers a logit sees 70x70 px; with 1, 2, 4, 5 it sees 16, 34, 142, 286 px.

    Args:
        width: channels of the first convolution; doubled by each further one up to 8 * width.
        layers: number of stride-2 convolutions. Images are at least 3 * 2^layers px on both sides: 24 px for three.
        norm: "instance" (no weights) after all convolutions but the first and the last, or "none". Batch norm is not
            offered: a critic must judge a row by that row alone, or a gradient penalty means nothing.

    Differs from paper: instance norm in place of batch norm, as in Zhu 2017, arXiv:1703.10593.
    Source: Isola, Zhu, Zhou & Efros 2017, arXiv:1611.07004, section 6.1.2.

    >>> critic = PatchCritic()
    >>> critic.receptive_field_px, sum(weight.numel() for weight in critic.parameters())
    (70, 2764737)
    """

    def __init__(self, width: int = 64, layers: int = 3, norm: str = "instance"):
        super().__init__()
        if width < 1 or layers < 1:
            raise ValueError(f"wanted width >= 1 and layers >= 1; got {width} and {layers}")
        parts: list[nn.Module] = []
        in_channels = 3
        for index in range(layers + 1):
            out_channels = width * min(2**index, _MAX_GROWTH)
            parts.append(nn.Conv2d(in_channels, out_channels, 4, 2 if index < layers else 1, 1))
            parts.append(build_norm(norm if index else "none", out_channels, NORM_KINDS))
            parts.append(nn.LeakyReLU(0.2, inplace=True))
            in_channels = out_channels
        self.body = nn.Sequential(*parts, nn.Conv2d(in_channels, 1, 4, 1, 1))
        self.min_px = 3 * 2**layers
        init_critic(self, norm, 0.2)

    @property
    def receptive_field_px(self) -> int:
        """Side of the square that one logit sees."""
        return receptive_field_px(part for part in self.body if isinstance(part, nn.Conv2d))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Judges a batch.

        Args:
            image_BCHW: float, [-1, 1], sides of at least `min_px`.

        Returns:
            logits_B1HW, one for each patch, high for real.
        """
        check_images(image_BCHW, self.min_px)
        return self.body(image_BCHW)
