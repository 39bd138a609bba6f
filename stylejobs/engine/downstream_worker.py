"""What the tasks of a downstream receipt do: labelled squares and their stylized copies; one training; its answers.

Knows no Ray. Squares are held as bytes at the size of the classifier, all of them: a set that a classifier of minutes
learns from is small.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from stylejobs.core.agreement import classify
from stylejobs.core.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stylejobs.core.networks.classifier import Classifier
from stylejobs.core.pixels import to_float
from stylejobs.core.views import ViewOptions, random_view
from stylejobs.engine.datasets import CropSettings, TrainingBatch
from stylejobs.engine.generating import Content, GenerateSettings, Generating, build_places
from stylejobs.engine.train_settings import TrainSettings, build
from stylejobs.engine.training import Training, Watch
from stylejobs.engine.training_sets import Labelling, rows_of_unit
from stylejobs.errors import GenerateError, RowError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import Drawing, draw_seed
from stylejobs.records.resize import middle_square, resize_short_side
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.packages import load_package

_TOGETHER = 8
_ASKED_TOGETHER = 64
_FOLDS = 5
_MAGNIFICATION = (1.0, 1.25)
_NEVER = 10**9


@dataclass(frozen=True)
class DownstreamSettings:
    """The numbers of a receipt; see the keys of `receipt`.

    Attributes:
        seed: of every draw; trainings have their own, beside it.
    """

    size_px: int = 64
    load_px: int = 128
    width: int = 16
    steps: int = 1200
    batch: int = 32
    seeds: int = 3
    copies: int = 2
    strength: tuple[float, float] = (0.3, 1.0)
    seed: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Stylist:
    """The model that copies are made with: its package, the digest that must be found there, its styles."""

    package_uri: str
    sha256: str
    styles: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """What one task makes of a set: every `of`-th row of a unit.

    Attributes:
        fold: "test" for the fifth of the rows that is held out, "train" for the others, None for all.
    """

    number: int
    unit: Unit
    labelling: Labelling
    index: int = 0
    of: int = 1
    fold: str | None = None


@dataclass(frozen=True)
class Examples:
    """Labelled squares.

    Attributes:
        pixels_NHWC: uint8, the originals.
        class_N: int64, the number of each one's label.
        copies_NKHWC: uint8, K stylized copies of each.
        num_bad: images that could not be decoded or not be stylized; they are in no arm.
    """

    pixels_NHWC: np.ndarray
    class_N: np.ndarray
    copies_NKHWC: np.ndarray
    num_bad: int = 0

    def __len__(self) -> int:
        return len(self.class_N)


def join(parts: Sequence[Examples]) -> Examples:
    """All examples, in the order of the parts."""
    names = ("pixels_NHWC", "class_N", "copies_NKHWC")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Examples(**joined, num_bad=sum(part.num_bad for part in parts))


def prepare(share: Share, settings: DownstreamSettings, stylist: Stylist | None) -> Examples:
    """Reads, squares and stylizes a share of a set.

    Args:
        stylist: None makes no copies.

    Raises:
        SourceError: a label that was not there when the set was planned.
        ModelError: the model is not the one that was planned with.
    """
    torch.set_num_threads(1)
    rows = rows_of_unit(share.number, share.unit, share.labelling, settings.limits.max_bytes)
    rows = [row for row in rows.to_pylist()[share.index :: share.of] if _is_of(row["key"], share.fold, settings.seed)]
    squares: dict[str, tuple[np.ndarray, int]] = {}
    for row in rows:
        try:
            pixels_HWC = decode_image(row["image"] or b"", settings.limits)
            squares[row["key"]] = middle_square(pixels_HWC, settings.load_px, settings.load_px), row["domain"]
        except RowError:
            continue  # counted below; ingest says what is wrong with it
    copies = _stylized({key: pixels for key, (pixels, _) in squares.items()}, settings, stylist)
    side_px, most = settings.size_px, settings.copies if stylist else 0
    whole = [key for key in squares if len(copies[key]) == most]
    pixels = [resize_short_side(squares[key][0], side_px) for key in whole]
    shape = (len(whole), most, side_px, side_px, 3)
    return Examples(
        np.stack(pixels) if pixels else np.empty((0, side_px, side_px, 3), np.uint8),
        np.array([squares[key][1] for key in whole], np.int64),
        np.array([copies[key] for key in whole], np.uint8).reshape(shape),
        len(rows) - len(whole),
    )


def _is_of(key: str, fold: str | None, seed: int) -> bool:
    """A function of the key, so that no image is on both sides, however the sets are read."""
    return fold is None or (draw_seed(seed, f"{key}\0fold", 0) % _FOLDS == 0) == (fold == "test")


def _stylized(
    squares: dict[str, np.ndarray], settings: DownstreamSettings, stylist: Stylist | None
) -> dict[str, list[np.ndarray]]:
    """The copies of each square that could be made, at the size of the classifier; drawn as in a dataset."""
    made: dict[str, list[np.ndarray]] = {key: [] for key in squares}
    if stylist is None:
        return made
    loaded = load_package(stylist.package_uri, stylist.sha256)
    codes = {style: loaded.styles[style] for style in stylist.styles}
    generating = Generating(build_places(loaded.generator, codes, False), GenerateSettings(_TOGETHER))
    drawing = Drawing(settings.seed, dict.fromkeys(codes, 1.0), settings.copies, settings.strength)
    wanted = [(key, draw) for key in squares for draw in drawing.draw(key)]
    for first in range(0, len(wanted), _TOGETHER):
        some = wanted[first : first + _TOGETHER]
        contents = [Content(squares[key], draw.style, draw.strength, 0.0) for key, draw in some]
        for (key, _), pixels_HWC in zip(some, generating(contents), strict=True):
            if not isinstance(pixels_HWC, GenerateError):
                made[key].append(resize_short_side(pixels_HWC, settings.size_px))
    return made


def train_and_ask(
    train: Examples, test: Examples, classes: tuple[str, ...], settings: DownstreamSettings, arm: tuple[bool, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One training of an arm, and whether its answers about the test images are right.

    Args:
        arm: whether copies are trained on too, and the seed.

    Returns:
        bool [N], and under corruption bool [C, V, N].
    """
    torch.set_num_threads(1)
    with_copies, seed = arm
    pixels_MHWC, class_M = train.pixels_NHWC, train.class_N
    if with_copies:
        copies_NKHWC = train.copies_NKHWC
        pixels_MHWC = np.concatenate([pixels_MHWC, copies_NKHWC.reshape(-1, *copies_NKHWC.shape[2:])])
        class_M = np.concatenate([class_M, class_M.repeat(copies_NKHWC.shape[1])])
    network = train_classifier(torch.from_numpy(pixels_MHWC), torch.from_numpy(class_M), classes, settings, seed)
    return ask(network, test, settings.seed)


def train_classifier(
    pixels_MHWC: Tensor, class_M: Tensor, classes: tuple[str, ...], settings: DownstreamSettings, seed: int
) -> Classifier:
    """The classifier after `steps` steps of the training loop that `pipelines.train` has, its last weights."""
    s = settings
    crops = CropSettings(ViewOptions(s.size_px, scale=_MAGNIFICATION), s.batch, seed, s.limits)
    told = TrainSettings(
        method="classifier",
        options={},
        generator={"width": s.width, "size_px": s.size_px},
        critic={},
        backbone=None,
        style_images={},
        style_size_px=s.size_px,
        content_images=(),
        domains=classes,
        num_images=s.steps * s.batch,
        crops=crops,
        seed=seed,
        package_uri="",
        training={},
        log_every=_NEVER,
        sample_every=_NEVER,
    )
    method = build(told, None)
    training = Training(told, method, method.networks, torch.device("cpu"), Watch())
    training.run(_batches(pixels_MHWC, class_M, crops))
    return method.generator.eval()


def _batches(pixels_MHWC: Tensor, class_M: Tensor, crops: CropSettings) -> Iterator[TrainingBatch]:
    """Batches without end, every image once in a pass; what does not fill a batch waits for another pass."""
    number = 0
    for pass_ in itertools.count():
        rng = torch.Generator().manual_seed(draw_seed(crops.seed, "pass of a receipt", pass_))
        for rows in torch.randperm(len(class_M), generator=rng).split(crops.batch):
            if len(rows) < crops.batch:
                continue
            number += 1
            rng = torch.Generator().manual_seed(draw_seed(crops.seed, "views of a receipt", number))
            views = [random_view(pixels_MHWC[row], crops.view, rng) for row in rows.tolist()]
            yield TrainingBatch({"content": to_float(torch.stack(views)), "content_domain": class_M[rows]})


def ask(network: Classifier, test: Examples, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the answers about the test images are right: bool [N], and under corruption bool [C, V, N].

    Every classifier is asked about the same corrupted images, bit for bit.
    """
    class_N = torch.from_numpy(test.class_N)
    clean_N, corrupted_CVN = [], []
    for first in range(0, len(test), _ASKED_TOGETHER):
        image_BCHW = to_float(torch.from_numpy(test.pixels_NHWC[first : first + _ASKED_TOGETHER]))
        class_B = class_N[first : first + _ASKED_TOGETHER]
        clean_N.append(classify(network, image_BCHW) == class_B)
        answers = [
            classify(network, corrupt(image_BCHW, name, severity, draw_seed(seed, name, first))) == class_B
            for name in CORRUPTIONS
            for severity in SEVERITIES
        ]
        corrupted_CVN.append(torch.stack(answers).reshape(len(CORRUPTIONS), len(SEVERITIES), -1))
    return torch.cat(clean_N).numpy(), torch.cat(corrupted_CVN, dim=2).numpy()
