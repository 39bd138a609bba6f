"""What benchmarks stylize and with what: crops of the demo's photographs as Parquet or files, and untrained models."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from infra.demo.photos import PHOTOS, read_photo
from stylejobs.core.networks import build_network
from stylejobs.storage.packages import save_package

MODELS = {
    "moments": ("moments", {}),
    "johnson narrow": ("johnson", {"width": 12, "blocks": 2}),
    "resnet heavy": ("resnet", {"width": 64, "blocks": 9}),
}
"""name -> network, options."""

_MOMENTS_CODE = (-0.5, 0.1, 0.0, 0.3, 0.1, 0.1)


def encode(image: Image.Image, quality: int = 90) -> bytes:
    """As JPEG."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def photo_crops(num: int, sides_px: Iterable[int]) -> Iterator[bytes]:
    """`num` JPEGs: square crops of the demo's photographs, their sides taken in turn from `sides_px`."""
    photos = [read_photo(label) for label in PHOTOS]
    sides = list(sides_px)
    for number in range(num):
        rng = np.random.default_rng(number)
        photo, side = photos[number % len(photos)], sides[number % len(sides)]
        window = min(photo.width, photo.height) * rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, photo.width - window), rng.uniform(0, photo.height - window)
        box = (left, top, left + window, top + window)
        yield encode(photo.resize((side, side), Image.Resampling.BILINEAR, box=box))


def write_parquet(path: Path, images: list[bytes], rows_per_group: int) -> Path:
    """Columns `image` (binary), `key` and `label`."""
    keys = [f"{path.stem}-{number:06d}" for number in range(len(images))]
    labels = [f"class{number % 7}" for number in range(len(images))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, "key": keys, "label": labels}), path, row_group_size=rows_per_group)
    return path


def write_model(folder: Path, name: str) -> str:
    """A model package with one style, `style`; the folder's place."""
    network, options = MODELS[name]
    torch.manual_seed(0)
    code_D = torch.tensor(_MOMENTS_CODE if network == "moments" else ())
    place = str(folder / name.replace(" ", "-"))
    save_package(place, network, options, build_network(network, **options).state_dict(), {"style": code_D}, {})
    return place
