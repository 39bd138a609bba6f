"""The worker of `evaluate`: stylizes images of a panel with every model, and describes what came out.

Contents become squares of one size, as in a training's evaluation; so do the images of the style set. What a model
makes goes through 8 bits, as it would in a dataset, but through no encoder. Descriptions travel (core/ruler.py),
pixels do not, but for a few pictures of the montage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylejobs.core.agreement import classify
from stylejobs.core.mmd import build_networks
from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.core.ruler import CLASSES, describe_images
from stylejobs.engine.panel_images import (
    Made,
    Maker,
    Squares,
    SquareSettings,
    decode_pictures,
    read_style_squares,
    spoil,
)
from stylejobs.engine.panel_judges import PerceptualFiles, load_perceptual
from stylejobs.engine.samples import take_rows
from stylejobs.engine.stream import TENSORS, Worker, WorkItem
from stylejobs.engine.writer import schema_from_text
from stylejobs.records.lineage import Drawing
from stylejobs.storage.classifiers import load_classifier
from stylejobs.storage.packages import load_package
from stylejobs.storage.reading import read_unit

IDENTITY, CANDIDATE, BASELINE, STYLE = "identity", "candidate", "baseline", "style"
SHOWN = "shown"
RECOLOURINGS = {"reinhard": "moments", "fda": "fda"}
SPOILT = ("blur", "noise", "checkerboard", "collapse")


@dataclass(frozen=True)
class PanelModel:
    """A model as workers load it: `sha256` of the package is checked, `styles` are drawn alike."""

    package_uri: str
    sha256: str
    styles: tuple[str, ...] = ()


@dataclass(frozen=True)
class PanelSettings:
    """What a worker is told.

    Attributes:
        models: row of the table -> model.
        sanity: more rows, out of `RECOLOURINGS` and `SPOILT`.
        classifier: whose answers are compared; None for no such measure.
        pictures: some encoded images of the style set: what recolourings take their colours from.
        num_styles: images of the style set; None where nobody knows.
        carried: role -> the columns of its source, as text.
        perceptual: weights of LPIPS and FID, where these are measured.
    """

    models: Mapping[str, PanelModel]
    sanity: tuple[str, ...]
    classifier: PanelModel | None
    pictures: tuple[bytes, ...]
    num_styles: int | None
    squares: SquareSettings
    carried: Mapping[str, str]
    perceptual: PerceptualFiles = field(default_factory=PerceptualFiles)
    strength: float = 1.0
    precision: str = "float32"
    seed: int = 0
    threads: int = 1
    use_gpu: bool = False


class PanelWorker(Worker):
    """Its items are narrowed units; a part is {"role": "content" or "style", "rows": N, "shown": pictures wanted}.

    The answer: `keys` and `sha256` of the images that are described, `bad` ones that could not be decoded, and for
    each row that is made `failed` and `failure`, and for each model `seconds` (see `Made`). Its tensors are named
    ROW/NAME, see `describe_images`; style images are the row "style", pictures have the name "shown", uint8 [n, H, W,
    3], and answers of the classifier the name "class", int64 [N].
    """

    keeps_state = True

    def __init__(self, settings: PanelSettings):
        torch.set_num_threads(settings.threads)
        self._s = s = settings
        self._device = torch.device("cuda" if s.use_gpu else "cpu")
        self._networks = tuple(network.to(self._device) for network in build_networks())
        self._judges = [network and network.to(self._device) for network in load_perceptual(s.perceptual)]
        self._carried = {role: schema_from_text(text) for role, text in s.carried.items()}
        self._classifier = s.classifier and load_classifier(s.classifier.package_uri, s.classifier.sha256)
        self._pictures = decode_pictures(s.pictures, s.squares)
        self._makers: dict[str, Callable[[Squares], Made]] = {
            row: self._of_package(model) for row, model in s.models.items()
        } | {row: self._of_network(RECOLOURINGS[row]) for row in s.sanity if row in RECOLOURINGS}

    def do(self, item: WorkItem) -> dict:
        s, role = self._s, item.part["role"]
        rows = take_rows(read_unit(item.unit, self._carried[role], s.squares.limits.max_bytes), item.part["rows"])
        # Of contents as many are asked for as are wanted; of few styles, crops.
        squares = read_style_squares(rows, s.squares, s.num_styles if role == STYLE else None)
        answer: dict[str, Any] = {"keys": squares.keys, "sha256": squares.sha256, "bad": squares.num_bad}
        if not len(squares):
            return answer
        if role == STYLE:
            return answer | {TENSORS: self._describe(STYLE, squares.image_BCHW, None)}
        return answer | self._do_content(squares, item.part["shown"])

    def _do_content(self, squares: Squares, num_shown: int) -> dict:
        source_BCHW = squares.image_BCHW
        tensors = self._describe(IDENTITY, source_BCHW, source_BCHW, num_shown)
        told: dict[str, dict] = {"failed": {}, "failure": {}, "seconds": {}}
        for row in (*self._makers, *(row for row in self._s.sanity if row in SPOILT)):
            made = self._make(row, squares)
            tensors |= self._describe(row, made.image_BCHW, source_BCHW, num_shown)
            told["failed"][row], told["failure"][row], told["seconds"][row] = (
                made.num_failed,
                made.failure,
                made.seconds,
            )
        return {**told, TENSORS: tensors}

    def _make(self, row: str, squares: Squares) -> Made:
        if row in self._makers:
            return self._makers[row](squares)
        return spoil(row, squares, self._pictures[0], self._s.seed)

    def _describe(
        self, row: str, image_BCHW: Tensor, source_BCHW: Tensor | None, num_shown: int = 0
    ) -> dict[str, Tensor]:
        source_BCHW = source_BCHW if source_BCHW is None else source_BCHW.to(self._device)
        described = describe_images(
            self._networks, image_BCHW.to(self._device), source_BCHW, self._s.seed, *self._judges
        )
        if source_BCHW is not None and self._classifier:
            described[CLASSES] = classify(self._classifier.network, image_BCHW)
        if num_shown:
            # Evenly over the part: neighbours in a folder are often of one class.
            num_shown = min(num_shown, len(image_BCHW))
            described[SHOWN] = to_uint8(image_BCHW[torch.arange(num_shown) * len(image_BCHW) // num_shown])
        return {f"{row}/{name}": tensor for name, tensor in described.items()}

    def _of_package(self, model: PanelModel) -> Maker:
        loaded = load_package(model.package_uri, model.sha256)
        return self._maker(loaded.generator, {style: loaded.styles[style] for style in model.styles})

    def _of_network(self, name: str) -> Maker:
        """A recolouring, whose styles are the pictures."""
        network = build_network(name)
        pictures = {str(n): to_float(torch.from_numpy(pixels[None])) for n, pixels in enumerate(self._pictures)}
        return self._maker(network, {style: network.encode_style(image)[0] for style, image in pictures.items()})

    def _maker(self, generator: torch.nn.Module, codes: Mapping[str, Tensor]) -> Maker:
        s = self._s
        drawing = Drawing(s.seed, dict.fromkeys(codes, 1.0), strength=s.strength)
        return Maker(generator, codes, drawing, s.precision, s.use_gpu)
