"""What the tests of the stylizing worker share: small pictures, rows of them, and settings."""

import io
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
from PIL import Image

from stylejobs.engine.generating import GenerateSettings
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.writer import Converted, Stopwatch, WriteSettings, schema_to_text
from stylejobs.errors import RowError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import Drawing
from stylejobs.storage.reading import UnitRows

NO_COLUMNS = pa.schema([])
SIZES = [(16, 24), (17, 23), (24, 16)]


def pixels(number: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels_HWC: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC).save(sink, "PNG")
    return sink.getvalue()


def rows_of(images: list[bytes | RowError], carried: pa.Table | None = None) -> UnitRows:
    keys = [f"k{number}" for number in range(len(images))]
    if carried is None:
        carried = pa.table({"row": list(range(len(images)))}).select([])
    positions = [(0, number) for number in range(len(images))]
    return UnitRows(keys, images, keys, positions, ["/source"] * len(images), carried)


def decoded(row: dict) -> np.ndarray:
    return decode_image(row["image"]["bytes"], Limits(min_side_px=1, max_aspect=1e6))


def settings_for(packages: dict, model: str, dest: str, carried: pa.Schema = NO_COLUMNS) -> StylizeSettings:
    folder, package = packages[model]
    return StylizeSettings(
        write=WriteSettings(dest, schema_to_text(carried), 10**8, 10**6),
        package_uri=folder,
        model_name="demo",
        model_version="3",
        model_sha256="base",
        package_sha256=package.sha256,
        drawing=Drawing(0, dict.fromkeys(package.styles, 1.0)),
        short_side_px=None,
        format="png",
        quality=90,
        generate=GenerateSettings(3, model=package.sha256[:12]),
        limits=Limits(),
    )


def changed(settings: StylizeSettings, **changes: object) -> StylizeSettings:
    """The settings with other values, also of those within: `seed`, `styles`, `variants`, `micro_batch` and so on."""
    drawn = {name: changes.pop(name) for name in ("seed", "styles", "variants", "strength") if name in changes}
    if "styles" in drawn:
        drawn["styles"] = dict.fromkeys(drawn["styles"], 1.0)
    ours = {field.name for field in fields(GenerateSettings)}
    generate = {name: changes.pop(name) for name in list(changes) if name in ours}
    return replace(
        settings,
        drawing=replace(settings.drawing, **drawn),
        generate=replace(settings.generate, **generate),
        **changes,
    )


def convert(worker: Stylizer, rows: UnitRows) -> tuple[list[dict], Converted]:
    converted = worker.convert(rows, Stopwatch())
    return converted.table.to_pylist(), converted


def run(worker: Stylizer, images: list[np.ndarray]) -> tuple[list[np.ndarray], list[dict]]:
    made, converted = convert(worker, rows_of([png(image) for image in images]))
    assert not converted.errors
    return [decoded(row) for row in made], made
