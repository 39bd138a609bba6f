"""The feed-forward generator of Johnson, Alahi & Fei-Fei 2016: one style lives in its weights."""

from torch import Tensor, nn

from stylejobs.core.networks.layers import ConvNormRelu, ResidualBlock, UpsampleBlock, bound, build_conv, check_inputs
from stylejobs.core.pixels import crop_to, pad_to_multiple

# Below it, instance norm at a quarter of the size would have a handful of cells, and one cell has no variance at all.
_MIN_PX = 16


class Johnson(nn.Module):
    """9x9 stem, two stride-2 convolutions, residual blocks, two upsamplings, 9x9 head, tanh.

    Args:
        width: channels of the stem; doubled by each stride-2 convolution.
        blocks: number of residual blocks.
        inner: channels inside the residual blocks; None takes 4 * width, what the blocks pass on.
        public: as in PyTorch's public example, for weights that were trained with it: the head is linear, and what
            leaves [-1, 1] is clamped, in place of tanh. Not for training: where it clamps there is no gradient.

    Differs from paper: instance norm in place of batch norm (Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022);
    reflection padding inside every convolution in place of one padding before the network; upsampling then convolution
    in place of strides of one half; tanh unscaled, because images are in [-1, 1].
    Source: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, and its supplement.

    >>> sum(weight.numel() for weight in Johnson(width=32, blocks=5).parameters())
    1679235
    """

    multiple = 4
    style_dim = 0

    def __init__(self, width: int = 32, blocks: int = 5, inner: int | None = None, public: bool = False):
        super().__init__()
        self.public = public
        if width < 1 or blocks < 0:
            raise ValueError(f"wanted width >= 1 and blocks >= 0; got {width} and {blocks}")
        self.encoder = nn.Sequential(
            ConvNormRelu(3, width, 9),
            ConvNormRelu(width, 2 * width, 3, stride=2),
            ConvNormRelu(2 * width, 4 * width, 3, stride=2),
        )
        self.residual = nn.Sequential(*(ResidualBlock(4 * width, inner=inner) for _ in range(blocks)))
        self.decoder = nn.Sequential(UpsampleBlock(4 * width, 2 * width), UpsampleBlock(2 * width, width))
        self.head = build_conv(width, 3, 9)

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch.

        Args:
            content_BCHW: float, [-1, 1], any H, W >= 1.
            style_BD: [B, 0]: the style is in the weights.

        Returns:
            stylized_BCHW in [-1, 1], of the content's height and width.
        """
        check_inputs(content_BCHW, style_BD, self.style_dim)
        height, width = content_BCHW.shape[-2:]
        features_BCHW = self.encoder(pad_to_multiple(content_BCHW, self.multiple, _MIN_PX))
        features_BCHW = self.decoder(self.residual(features_BCHW))
        return crop_to(bound(self.head(features_BCHW), self.public), height, width)
