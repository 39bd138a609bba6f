"""Style attention (Park & Lee 2019): each place of the content picks, out of places of the style, those that fit it."""

import torch.nn.functional as F
from torch import Tensor, nn

from stylejobs.core.networks.layers import InstanceNorm


def attend(query_BCHW: Tensor, key_BCM: Tensor, value_BCM: Tensor) -> Tensor:
    """Each place's mean of the values, weighted by how well their keys match: V softmax(K^T q / sqrt(C)).

    Memory grows with H W M and not with (H W)^2: callers keep M, the number of tokens, fixed.

    Args:
        query_BCHW: what each place asks for.
        key_BCM: what each of M tokens offers.
        value_BCM: what it gives; may have another number of channels.

    Returns:
        attended_BCHW, with the values' channels.

    Differs from paper: divided by sqrt(C) (Vaswani 2017, arXiv:1706.03762, equation 1), so that wide features do not
    harden the softmax.
    Source: Park & Lee 2019, arXiv:1812.02342, equation 1; Zhang et al. 2019, arXiv:1805.08318, equations 1 and 2.

    >>> import torch
    >>> attend(torch.randn(1, 2, 1, 1), torch.ones(1, 2, 4), torch.tensor([[[1.0, 2.0, 3.0, 6.0]]])).item()
    3.0
    """
    query_BNC = query_BCHW.flatten(2).transpose(1, 2)
    attended_BNC = F.scaled_dot_product_attention(query_BNC, key_BCM.transpose(1, 2), value_BCM.transpose(1, 2))
    return attended_BNC.transpose(1, 2).unflatten(2, query_BCHW.shape[-2:])


class StyleAttention(nn.Module):
    """W_out attend(W_q norm(content), W_k norm(tokens), W_v tokens), 1x1 convolutions and instance norms.

    Args:
        channels: of content and tokens.

    Differs from paper: the style's places are a fixed grid of means over its feature map, so that a style is a code of
    fixed length and a large style image costs no more; the result is a term that the caller adds.
    Source: Park & Lee 2019, arXiv:1812.02342, equations 1 to 3.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = InstanceNorm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, content_BCHW: Tensor, tokens_BCGG: Tensor) -> Tensor:
        """What the style adds at each place of the content.

        Args:
            content_BCHW: features, at least two cells.
            tokens_BCGG: the style's grid of mean features, at least two cells.

        Returns:
            attended_BCHW, of the content's shape.
        """
        key_BCM = self.key(self.norm(tokens_BCGG)).flatten(2)
        value_BCM = self.value(tokens_BCGG).flatten(2)
        return self.out(attend(self.query(self.norm(content_BCHW)), key_BCM, value_BCM))
