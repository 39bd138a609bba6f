"""The canary's worker: stylizes a few rows as the job would, and measures what would have been written.

Nothing goes to data/. Pictures are decoded from the bytes that the job would write; the source that they are compared
with goes through the same size and, for identity, the same encoder.
"""

import hashlib
import time
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stylejobs.core.metrics import edge_cosine, is_constant, is_identity
from stylejobs.core.pixels import to_float
from stylejobs.engine.samples import take_rows
from stylejobs.engine.stream import Worker, WorkItem
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.writer import Stopwatch, schema_from_text
from stylejobs.errors import RowError
from stylejobs.records.codec import decode_image, encode_image
from stylejobs.records.resize import limit_long_side, resize_short_side
from stylejobs.report.grid import sample_grid
from stylejobs.storage import locations
from stylejobs.storage.reading import read_unit
from stylejobs.storage.unit_rows import UnitRows

MIN_STRENGTH = 0.05
"""Of a weaker style 8 bits cannot tell whether there is one: such copies are not asked whether they are the source."""

_FLAT_STD = 4.0  # levels of 255: a source of less contrast may become a picture of one colour
_DARK_MEAN = 8.0  # levels: a source that is darker may become black
_BLACK_MEAN = 2.0
_MEASURED_SIDE_PX = 512
_SHOWN_SIDE_PX = 512
_SHOWN_QUALITY = 88


class CanaryWorker(Worker):
    """Its items are narrowed units; a part is {"rows": how many to stylize, "pairs": how many to keep to look at}.

    The answer: `rows` taken, `reasons` of bad ones, `images` made, the `seconds` they took, and for each measure its
    values, one for each image that it can be asked of: `constant`, `black`, `identity` (booleans), `similarity`.
    """

    keeps_state = True

    def __init__(self, settings: StylizeSettings):
        self._s = settings
        self._stylizer = Stylizer(settings)
        self._carried = schema_from_text(settings.write.carried_schema)
        self._is_warm = False

    def do(self, item: WorkItem) -> dict:
        rows = take_rows(read_unit(item.unit, self._carried, self._s.limits.max_bytes), item.part["rows"])
        if not self._is_warm and len(rows):  # what is done once must not count as the model's pace
            self._stylizer.convert(rows.select([0]), Stopwatch())
            self._is_warm = True
        started = time.monotonic()
        converted = self._stylizer.convert(rows, Stopwatch())
        seconds = time.monotonic() - started
        reasons = Counter(error.reason for error in converted.errors.values())
        made = converted.table.select(["image", "source_sha256", "strength", "is_synthetic"]).to_pylist()
        made = [row for row in made if row["is_synthetic"]]
        return {
            "rows": len(rows),
            "images": len(made),
            "seconds": seconds,
            "reasons": dict(reasons),
            "measures": self._measure(item, rows, made),
        }

    def _measure(self, item: WorkItem, rows: UnitRows, made: list[dict]) -> dict[str, list]:
        sources = {hashlib.sha256(image).hexdigest(): image for image in rows.images if isinstance(image, bytes)}
        limits = replace(self._s.limits, max_bytes=2**40, max_megapixels=1e9, max_aspect=1e9, min_side_px=1)
        measures: dict[str, list] = defaultdict(list)
        num_kept = 0
        for row in made:
            if row["strength"] <= 0.0:
                continue
            source_HWC = decode_image(sources[row["source_sha256"]], limits)
            if self._s.short_side_px:
                source_HWC = resize_short_side(source_HWC, self._s.short_side_px)
            try:
                made_HWC = decode_image(row["image"]["bytes"], limits)
            except RowError:
                measures["unreadable"].append(True)
                continue
            measures["unreadable"].append(False)
            for name, value in self._compare(source_HWC, made_HWC, row["strength"]).items():
                measures[name].append(value)
            if num_kept < item.part["pairs"]:
                self._keep(f"{item.index:03d}-{num_kept}.jpg", source_HWC, made_HWC)
                num_kept += 1
        return dict(measures)

    def _compare(self, source_HWC: np.ndarray, made_HWC: np.ndarray, strength: float) -> dict[str, bool | float]:
        found: dict[str, bool | float] = {}
        if source_HWC.mean() > _DARK_MEAN:
            found["black"] = bool(made_HWC.mean() < _BLACK_MEAN)
        if source_HWC.std(axis=(0, 1)).max() > _FLAT_STD:
            found["constant"] = is_constant(_batch(made_HWC)).item()
            pair = (_batch(limit_long_side(pixels_HWC, _MEASURED_SIDE_PX)) for pixels_HWC in (source_HWC, made_HWC))
            found["similarity"] = edge_cosine(*pair).item()
        if strength >= MIN_STRENGTH:
            found["identity"] = self._is_source(source_HWC, made_HWC, strength)
        return found

    def _is_source(self, source_HWC: np.ndarray, made_HWC: np.ndarray, strength: float) -> bool:
        """Whether the generator changed the picture by less than one level of 255 on average, before blending."""
        encoded = encode_image(source_HWC, self._s.format, self._s.quality)
        unchanged_HWC = decode_image(encoded, replace(self._s.limits, max_bytes=2**40, max_aspect=1e9, min_side_px=1))
        return is_identity(_batch(unchanged_HWC), _batch(made_HWC), levels=strength).item()

    def _keep(self, name: str, source_HWC: np.ndarray, made_HWC: np.ndarray) -> None:
        pair = [limit_long_side(pixels_HWC, _SHOWN_SIDE_PX) for pixels_HWC in (source_HWC, made_HWC)]
        data = encode_image(sample_grid([pair]), "jpeg", _SHOWN_QUALITY)
        locations.write_atomic(locations.join(self._s.write.dest, "_stylejobs", "canary", name), data)


def _batch(pixels_HWC: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(np.stack([pixels_HWC])))
