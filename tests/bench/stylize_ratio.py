"""`make bench`: the stylizing worker against the loop that a good engineer writes in an afternoon.

Both read one Parquet file, decode, run the same generator, encode as JPEG and write Parquet, on one core and without
Ray. Prints images/s of each and the ratio, as medians over paired runs in one process, so that a busy machine moves
both. A ratio of 1 means that lineage, dead letters, digests, markers and atomic files cost nothing.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
import torch
from PIL import Image

from stylejobs.core.networks import build_network
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.writer import WriteSettings, schema_to_text
from stylejobs.records.codec import Limits
from stylejobs.storage.packages import load_package, save_package
from stylejobs.storage.sources import plan_source

NUM_IMAGES = 160
PAIRS = 7
SIDE_PX = 128
BATCH = 8


def plain_loop(source: Path, dest: Path, generator: torch.nn.Module, code_D: torch.Tensor) -> None:
    """Read, decode, generate in batches, encode, write."""
    rows = pq.read_table(source).to_pylist()
    made = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        pixels = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in batch]
        content_BCHW = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            stylized_BCHW = generator(content_BCHW, code_D.expand(len(batch), -1))
        stylized_BHWC = ((stylized_BCHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for row, picture in zip(batch, stylized_BHWC, strict=True):
            sink = io.BytesIO()
            Image.fromarray(picture).save(sink, "JPEG", quality=92)
            made.append({"key": row["key"], "image": sink.getvalue()})
    pq.write_table(pa.Table.from_pylist(made), dest)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(name: str, folder: Path, source: Path) -> None:
    """One network: paired runs, then a line."""
    loaded = load_package(str(folder / name))
    plan = plan_source(str(source), 2**30)
    write = WriteSettings(str(folder / "ours"), schema_to_text(plan.carried_schema), 2**26, 32 * 2**20)
    settings = StylizeSettings(
        write=write, package_uri=str(folder / name), model_name=name, model_version="", styles=("style",),
        model_sha256=loaded.package.sha256, package_sha256=loaded.package.sha256, variants=1, strength=1.0, seed=0,
        short_side_px=None, format="jpeg", quality=92, micro_batch=BATCH, precision="float32", limits=Limits(),
        threads=1, codec_threads=1,
    )  # fmt: skip
    worker = Stylizer(settings)
    ours, plain = [], []
    for pair in range(PAIRS + 1):
        ours.append(seconds(lambda: worker.process(plan.units[0], 0, f"{pair:064d}")))  # noqa: B023 (called at once)
        plain.append(seconds(lambda: plain_loop(source, folder / "plain", loaded.generator, loaded.styles["style"])))
    ratio = statistics.median(b / a for a, b in zip(ours[1:], plain[1:], strict=True))
    rates = [NUM_IMAGES / statistics.median(runs[1:]) for runs in (ours, plain)]
    print(f"{name:10s} ours {rates[0]:7.1f} images/s   plain loop {rates[1]:7.1f} images/s   ratio {ratio:.3f}")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stylejobs-bench-") as scratch:
        folder = Path(scratch)
        photo = skimage.data.coffee()
        crops = [photo[n : n + SIDE_PX, 2 * n : 2 * n + SIDE_PX] for n in range(NUM_IMAGES)]
        sinks = [io.BytesIO() for _ in crops]
        for crop, sink in zip(crops, sinks, strict=True):
            Image.fromarray(crop).save(sink, "JPEG", quality=90)
        keys = [f"{n:04d}" for n in range(NUM_IMAGES)]
        source = folder / "source.parquet"
        pq.write_table(pa.table({"image": [sink.getvalue() for sink in sinks], "key": keys}), source)
        johnson = build_network("johnson", width=12, blocks=2)
        options = {"width": 12, "blocks": 2}
        save_package(str(folder / "johnson"), "johnson", options, johnson.state_dict(), {"style": torch.zeros(0)}, {})
        code_D = torch.tensor([-0.5, 0.1, 0.0, 0.3, 0.1, 0.1])
        save_package(str(folder / "moments"), "moments", {}, {}, {"style": code_D}, {})
        print(f"{NUM_IMAGES} JPEGs of {SIDE_PX} px, micro-batch {BATCH}, one torch thread, medians of {PAIRS} pairs")
        for name in ("moments", "johnson"):
            compare(name, folder, source)


if __name__ == "__main__":
    main()
