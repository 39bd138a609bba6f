"""Invent a style, then apply it: a DCGAN draws exemplars of a style domain, and AdaIN takes its styles from them."""

import torch
from torch import Tensor, nn

from stylejobs.core.networks.huang2017 import Adain
from stylejobs.core.networks.radford2016 import DcganGenerator


class Exemplar(nn.Module):
    """Stylizes as `Adain` does, with the style of an image or of an exemplar that is drawn from noise.

    Parts: `exemplars` (DcganGenerator), trained alone on the style domain, and `adain`, of which `adain.decoder` is
    trained on styles drawn from it. A style is the code of an image, so drawn and given styles may be mixed.

    Args:
        latent: numbers of the noise z.
        width: channels of the DCGAN, see DcganGenerator.
        size_px: side of an exemplar, see DcganGenerator.
        encoder: of `adain`, see Adain.
        layer: of `adain`, see Adain.
        attention: of `adain`, see Adain.
        width_scale: of `adain`, see Adain.

    Source: Radford, Metz & Chintala 2016, arXiv:1511.06434; Huang & Belongie 2017, arXiv:1703.06868.
    """

    def __init__(
        self,
        latent: int = 512,
        width: int = 64,
        size_px: int = 128,
        encoder: str = "squeezenet1_1",
        layer: str | None = None,
        attention: bool = False,
        width_scale: float = 1.0,
    ):
        super().__init__()
        self.latent = latent
        self.exemplars = DcganGenerator(latent, width, size_px)
        self.adain = Adain(encoder, layer, attention, width_scale)
        self.multiple, self.style_dim = self.adain.multiple, self.adain.style_dim

    def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
        """Stylizes a batch: content_BCHW [-1, 1] and style_BD to stylized_BCHW in (-1, 1), see `Adain.forward`."""
        return self.adain(content_BCHW, style_BD)

    def encode_style(self, style_BCHW: Tensor) -> Tensor:
        """The style code of each image: style_BD."""
        return self.adain.encode_style(style_BCHW)

    def draw_exemplar(self, seed: int) -> Tensor:
        """The exemplar of a seed: image_CHW in (-1, 1). The noise is the same on every machine."""
        z_1D = torch.randn(1, self.latent, generator=torch.Generator().manual_seed(seed))
        weight = next(self.exemplars.parameters())
        with torch.no_grad():
            return self.exemplars(z_1D.to(weight))[0]

    def draw_style(self, seed: int) -> Tensor:
        """The code of the exemplar of a seed: style_D."""
        with torch.no_grad():
            return self.encode_style(self.draw_exemplar(seed)[None])[0]
