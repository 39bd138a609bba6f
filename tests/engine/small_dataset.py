"""A small stylized dataset, made without Ray, and what verify finds in it."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.findings import Problem
from stylejobs.engine.replay import open_dataset
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.stylizer import Stylizer
from stylejobs.engine.verifier import Verifier
from stylejobs.engine.verify import verify_settings
from stylejobs.engine.verify_books import check_books, read_markers
from stylejobs.storage.markers import Markers
from stylejobs.storage.units import clear_and_prove, manifest_digest, write_success

NUM_ROWS, NUM_DEAD, VARIANTS = 8, 2, 2


def picture(number: int, height: int = 24, width: int = 32, format: str = "PNG") -> bytes:
    pixels_HWC = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC).save(sink, format)
    return sink.getvalue()


def write_source(folder: Path, first: int = 0) -> Path:
    """Two files of two row groups of two rows; in the second file two rows are no pictures, and keys repeat."""
    folder.mkdir(exist_ok=True)
    for file in range(2):
        numbers = [first + 4 * file + row for row in range(4)]
        images = [b"no picture" if file and row in (1, 3) else picture(number) for row, number in enumerate(numbers)]
        table = pa.table(
            {
                "image": images,
                "key": ["again", "again", "k2", "k3"] if file == 0 else [f"row-{number}" for number in numbers],
                "label": [f"class-{number % 3}" for number in numbers],
                "score": [float("nan") if number % 2 else number / 7 for number in numbers],
            }
        )
        pq.write_table(table, folder / f"{'ab'[file]}.parquet", row_group_size=2)
    return folder


def make(source: Path, dest: Path, **keys: object) -> Path:
    """A whole dataset, made as the command does it, in this process."""
    style = source.parent / "style.png"
    style.write_bytes(picture(99))
    usual = {"model": "builtin:moments", "styles": [str(style)], "variants": VARIANTS, "unit_mb": 1e-6, "format": "png"}
    job, _ = plan_stylize(StylizeConfig(source=str(source), dest=str(dest), **{**usual, **keys}))
    worker = Stylizer(job.settings)
    markers = [worker.process(item.unit, item.index, item.fingerprint) for item in job.work.values()]
    write_success(str(dest), clear_and_prove(str(dest), Markers(str(dest)), markers))
    job.release()
    return dest


def look(dest: Path) -> tuple[list[Problem], Counter]:
    """What verify finds, and the rows that it counts."""
    _, job, _ = open_dataset(str(dest))
    markers = read_markers(Markers(str(dest)), str(dest))
    problems, rows = check_books(job, markers), Counter()
    worker = Verifier(verify_settings(job))
    for name, item in job.work.items():
        if name in markers:
            part = {"marker": asdict(markers[name]), "part": item.part}
            answer = worker.do(replace(item, part=part))
            problems += [Problem(**problem) for problem in json.loads(json.dumps(answer["problems"]))]
            rows.update(answer["rows"])
    return problems, rows


def kinds(problems: list[Problem]) -> set[str]:
    return {problem.kind for problem in problems}


def text(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def shards(dest: Path) -> list[Path]:
    return sorted((dest / "data").glob("*.parquet"))


def change_marker(dest: Path, shard: str, **values: object) -> None:
    for place in (dest / "_stylejobs" / "units").glob("*.json"):
        marker = json.loads(place.read_text())
        if marker["file"] == f"data/{shard}":
            place.write_text(json.dumps({**marker, **values}))


def rewrite(dest: Path, number: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Writes another shard, as whole as the old one, and tells its marker and the proof."""
    shard = shards(dest)[number]
    pq.write_table(change(pq.read_table(shard)), shard)
    change_marker(dest, shard.name, file_sha256=hashlib.sha256(shard.read_bytes()).hexdigest())
    prove(dest)


def prove(dest: Path) -> None:
    markers = Markers(str(dest)).read().values()
    (dest / "_SUCCESS").write_text(json.dumps({"manifest_sha256": manifest_digest(markers)}))


def replaced(column: str, value: object, row: int = 0) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        index = table.schema.get_field_index(column)
        return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))

    return change
