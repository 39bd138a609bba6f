"""Number 3: the memory of one stylizing worker over mixed images, from small ones to 100 megapixels.

    python -m tests.bench.scale_memory SOURCE DEST MODEL        one worker, in a process of its own

Sizes are spread evenly over the logarithm, so that most images are small and a few large; where they lie in the source
is drawn by lot, and the largest comes in the first quarter. The images are made in another process.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from infra.demo.photos import PHOTOS, read_photo
from stylejobs.config.load import load_config
from tests.bench.pictures import encode, write_parquet
from tests.bench.process import peak_rss_mb

MEGAPIXELS = (0.1, 100.0)
_ASPECT = 1.5
_ROWS_A_FILE = 50


def megapixels(num: int, largest: float) -> np.ndarray:
    """Sizes of images: [num] in 10**6 pixels."""
    smallest, _ = MEGAPIXELS
    sizes = np.exp(np.linspace(np.log(smallest), np.log(largest), num))
    order = np.random.default_rng(0).permutation(num)
    place = int(np.flatnonzero(order == num - 1)[0])
    early = place % max(1, num // 4)
    order[[place, early]] = order[[early, place]]
    return sizes[order]


def write_mixed(folder: Path, sizes: np.ndarray) -> None:
    """Photographs blown up to these sizes, as Parquet files; JPEG like a camera's."""
    photos = [read_photo(label) for label in PHOTOS]

    def make(job: tuple[int, float]) -> bytes:
        number, size = job
        width = int((size * 1e6 * _ASPECT) ** 0.5)
        photo = photos[number % len(photos)]
        return encode(photo.resize((width, int(size * 1e6 / width)), Image.Resampling.BILINEAR), quality=85)

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(sizes), _ROWS_A_FILE):
            part = enumerate(sizes[start : start + _ROWS_A_FILE], start)
            write_parquet(folder / f"{start:05d}.parquet", list(pool.map(make, part)), 10)


def work(source: str, dest: str, model: str) -> dict:
    """All units through one worker, as an actor does them."""
    from stylejobs.engine.stylize import plan_stylize

    # 100 megapixels are allowed by default; rounding may give a row more.
    words = [f"source={source}", f"dest={dest}", f"model={model}", "limits.max_megapixels=110", "cluster.actor_cpus=1"]
    job, _ = plan_stylize(load_config("stylize", words).config)
    worker = job.worker(job.settings)
    before_mb, started, peaks_mb, rows = peak_rss_mb(), time.monotonic(), [], 0
    for item in job.work.values():
        marker = worker.do(item)["marker"]
        rows += marker["rows_ok"]
        peaks_mb.append(peak_rss_mb())
    job.release()
    return {
        "rows": rows,
        "seconds": time.monotonic() - started,
        "before_mb": before_mb,
        "quarter_mb": peaks_mb[len(peaks_mb) // 4],
        "peak_mb": peaks_mb[-1],
        "micro_batch": job.settings.generate.micro_batch,
        "unit_mb": max(item.unit.num_bytes for item in job.work.values()) / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
