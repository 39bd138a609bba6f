"""What the tests of plans share: one set of pictures as a source of every kind, and jobs that are planned, not run."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.unit_job import UnitJob
from tests.engine.stylizing import pixels, png

SIZES = [(40, 60), (600, 500), (60, 40)]


def images(count: int) -> list[bytes]:
    return [png(pixels(n, *SIZES[n % 3])) for n in range(count)]


def write_source(folder: Path, kind: str, count: int = 12) -> Path:
    """The same pictures as a source of some kind."""
    folder.mkdir(parents=True, exist_ok=True)
    made = images(count)
    if kind in ("shards", "parquet"):
        rows = [{"image": {"bytes": data, "path": None}, "key": f"k{n}"} for n, data in enumerate(made)]
        for n, row in enumerate(rows if kind == "shards" else ()):
            row |= {"height": SIZES[n % 3][0], "width": SIZES[n % 3][1]}
        for part in (0, 1):
            table = pa.Table.from_pylist(rows[part::2])
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=4, compression="none")
    elif kind == "tar":
        with tarfile.open(folder / "a.tar", "w") as tar:
            for n, data in enumerate(made):
                member = tarfile.TarInfo(f"{n}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for n, data in enumerate(made):
            (folder / f"{n:02d}.png").write_bytes(data)
        if kind == "list":
            (folder / "all.txt").write_text("\n".join(f"{n:02d}.png" for n in range(count)))
            return folder / "all.txt"
    return folder


def plan_job(
    folder: Path, style_image: Path, source: object, **keys: object
) -> tuple[StylizeConfig, UnitJob, PinnedModel]:
    """The config, the opened job, its lease given back, and its model; `dest` is folder/out."""
    usual = {"dest": str(folder / "out"), "model": "builtin:moments", "plan": True, "cluster": {"actors": 3}}
    if not keys.get("model"):
        usual["styles"] = [str(style_image)]
    config = StylizeConfig(**{**usual, "source": str(source), **keys})
    job, model = plan_stylize(config)
    job.release()
    return config, job, model
