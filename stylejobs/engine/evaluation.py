"""The evaluation of a generator while it is trained: a frozen set of images, stylized and measured anew each time.

Knows no Ray and reads no place; when to evaluate and what follows from it are the training's.
"""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stylejobs.core.panel import FEWEST_IMAGES, Panel
from stylejobs.core.pixels import to_float
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.resize import middle_square

_BATCH = 8


class Evaluation:
    """A panel of encoded images, decoded and described once; for the first rank, which alone evaluates.

    Pictures are scaled to `load_px`, as the training does, and their middle squares of `side_px` measured. Fewer than
    8 style images are cut into crops (see `Panel`): then they are scaled to `style_size_px`, as what learns from
    single images does, and squares are at most two thirds of that.

    Nothing is drawn: the generators of random numbers stay as they are, and the same weights give the same numbers.

    Args:
        content: whole files, at least 8.
        style: whole files, at least 1.
        side_px: of the squares, at least 32.
        limits: of decoding.
        device: of the generator and of the measures.
        load_px: short side of the pictures; None is `side_px`.
        style_size_px: short side of single style images; None is `load_px`.

    Raises:
        DecodeError: a file that is no image within the limits.
        ValueError: images that no panel can be made of, see `Panel`.
    """

    def __init__(
        self,
        content: Sequence[bytes],
        style: Sequence[bytes],
        side_px: int,
        limits: Limits,
        device: torch.device,
        load_px: int | None = None,
        style_size_px: int | None = None,
    ):
        if not content or not style:
            raise ValueError(f"wanted contents and style images; got {len(content)} and {len(style)}")
        load_px = load_px or side_px
        if load_px < side_px:
            raise ValueError(f"wanted load_px of at least side_px ({side_px}); got {load_px}")
        style_px, style_load_px = side_px, load_px
        if len(style) < FEWEST_IMAGES:
            style_px = style_load_px = style_size_px or load_px
            side_px = min(side_px, 2 * style_px // 3)
        self._device = device
        self._panel = Panel(
            _read(content, load_px, side_px, limits).to(device),
            _read(style, style_load_px, style_px, limits).to(device),
        )

    @torch.no_grad()
    def measure(self, generator: nn.Module, codes: Mapping[str, Tensor]) -> dict[str, float]:
        """What the generator makes of the contents, the styles in turn; clamped to [-1, 1] as pixels are.

        Args:
            generator: in evaluation mode, with its averaged weights, on the evaluation's device.
            codes: style name -> code [D], at least one, as `Method.styles` gives them.

        Returns:
            The numbers of `Panel.measure`, and "images_per_second" of the generator alone, 8 images a batch.

        Raises:
            ValueError: a generator in training mode, or no style.
        """
        if generator.training or not codes:
            raise ValueError(f"wanted a generator in evaluation mode and styles; got {generator.training=}, {codes}")
        content_BCHW = self._panel.content_BCHW
        code_KD = torch.stack(list(codes.values())).to(self._device)
        code_ND = code_KD[torch.arange(len(content_BCHW)) % len(code_KD)]
        self._wait()
        started = time.monotonic()
        pairs = zip(content_BCHW.split(_BATCH), code_ND.split(_BATCH), strict=True)
        made = [generator(content_BCHW, code_BD).float().clamp(-1.0, 1.0) for content_BCHW, code_BD in pairs]
        self._wait()
        rate = len(content_BCHW) / max(1e-9, time.monotonic() - started)
        return {**self._panel.measure(torch.cat(made)), "images_per_second": rate}

    def _wait(self) -> None:
        """Until the device has done what it was given: a GPU's work is only queued."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _read(files: Sequence[bytes], short_side_px: int, side_px: int, limits: Limits) -> Tensor:
    """Middle squares of pictures: float [N, 3, side, side] in [-1, 1]."""
    squares = []
    for data in files:
        squares.append(torch.from_numpy(middle_square(decode_image(data, limits), short_side_px, side_px).copy()))
    return to_float(torch.stack(squares))
