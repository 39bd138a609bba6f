"""What stylejobs is compared with: three programs as people write them without it. Same images, same weights.

`plain_loop` is a good engineer's afternoon; `folder_loop` the batch of one of the known stylize-a-folder scripts;
`ray_data_script` is batch inference as Ray Data's documentation teaches it.
"""

import io
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from stylejobs.storage.packages import load_package

QUALITY = 92
BATCH = 8


class PlainStylizer:
    """A generator with one style: uint8 [B, H, W, 3] to the same."""

    def __init__(self, package: str):
        loaded = load_package(package)
        self._generator = loaded.generator
        self._code_D = loaded.styles["style"]

    @torch.inference_mode()
    def __call__(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        content_BCHW = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
        made_BCHW = self._generator(content_BCHW, self._code_D.expand(len(content_BCHW), -1))
        return ((made_BCHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def decode(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(pixels_HWC: np.ndarray) -> bytes:
    """As JPEG."""
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC).save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def plain_loop(source: Path, dest: Path, stylizer: PlainStylizer) -> None:
    """Read, decode, batch by size, generate, encode, write."""
    rows = pq.read_table(source).to_pylist()
    waiting: dict[tuple[int, ...], list[tuple[dict, np.ndarray]]] = defaultdict(list)
    made = []

    def flush(batch: list[tuple[dict, np.ndarray]]) -> None:
        pictures_BHWC = stylizer(np.stack([pixels_HWC for _, pixels_HWC in batch]))
        made.extend({**row, "image": encode(picture)} for (row, _), picture in zip(batch, pictures_BHWC, strict=True))

    for row in rows:
        pixels_HWC = decode(row["image"])
        waiting[pixels_HWC.shape].append((row, pixels_HWC))
        if len(waiting[pixels_HWC.shape]) == BATCH:
            flush(waiting.pop(pixels_HWC.shape))
    for batch in waiting.values():
        flush(batch)
    pq.write_table(pa.Table.from_pylist(made), dest)


def folder_loop(source: Path, dest: Path, generator: nn.Module, code_D: Tensor) -> None:
    """Every image of a folder by itself: open, to a tensor, generate, save."""
    from torchvision.transforms import Compose, Normalize, ToTensor
    from torchvision.utils import save_image

    transform = Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    dest.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        content_1CHW = transform(Image.open(path).convert("RGB")).unsqueeze(0)
        with torch.no_grad():
            made_1CHW = generator(content_1CHW, code_D.unsqueeze(0)).cpu()
        save_image(made_1CHW * 0.5 + 0.5, dest / path.name)


def write_folder(folder: Path, images: Iterable[bytes]) -> Path:
    """The images as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(images):
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return folder


class Predictor:
    """The actor class of `ray_data_script`; says in the folder `ready` when it has its model."""

    def __init__(self, package: str, ready: str):
        torch.set_num_threads(1)
        self._stylizer = PlainStylizer(package)
        (Path(ready) / str(os.getpid())).touch()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        made_BHWC = self._stylizer(np.stack([decode(data) for data in batch["image"]]))
        return {**batch, "image": np.array([encode(made_HWC) for made_HWC in made_BHWC], dtype=object)}


def ray_data_script(source: str, dest: str, package: str, ready: str, actors: int, blocks: int | None) -> None:
    """read_parquet -> map_batches(actors) -> write_parquet; images are of one size.

    Args:
        blocks: parts that the table is split into first, for people who have seen that one actor gets all the work;
            None as the documentation has it.
    """
    import ray

    dataset = ray.data.read_parquet(source)
    if blocks:
        dataset = dataset.repartition(blocks)
    dataset = dataset.map_batches(
        Predictor,
        fn_constructor_args=(package, ready),
        batch_size=BATCH,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    dataset.write_parquet(dest)


def _main(source: str, dest: str, package: str) -> None:
    """`folder_loop` as a program, with the threads that torch takes by itself; prints images/s without start-up."""
    loaded = load_package(package)
    started = time.perf_counter()
    folder_loop(Path(source), Path(dest), loaded.generator, loaded.styles["style"])
    print(len(list(Path(source).iterdir())) / (time.perf_counter() - started))


if __name__ == "__main__":
    _main(*sys.argv[1:])
