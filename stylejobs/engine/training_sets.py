"""What a training reads: a set of content or style images, planned from listings and footers, then read by Ray Data.

Rows travel as `records.batches.TRAINING_FIELDS`. No torch here, because tasks that only move bytes need not load it;
decoding and cropping is in `datasets.py`.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylejobs.errors import RowError, SourceError, StyleError
from stylejobs.records.batches import number_of, training_rows, training_table
from stylejobs.records.codec import Limits, decode_image
from stylejobs.storage import locations
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sources import IMAGE_ENDINGS, PARQUET_ENDINGS, TAR_ENDINGS, Source, Unit, plan_source

LABEL_COLUMN = "label"
"""Where `ingest labels=folder` puts the name of a picture's folder."""
_KEPT_IN_MEMORY_BYTES = 512 * 2**20
_UNIT_BYTES = 64 * 2**20
_SAMPLED_UNITS = 4
_SAMPLE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TrainingSet:
    """A planned set of images.

    Attributes:
        role: "content" or "style", for messages.
        uri: as the command names it.
        numbers: label -> number of its domain; "" stands for images without a label.
        names: domain number -> name.
        counts: domain number -> images; empty where it is not known (tars have no index).
    """

    role: str
    uri: str
    source: Source
    numbers: dict[str, int]
    names: dict[int, str]
    counts: dict[int, int]

    @property
    def label_column(self) -> str | None:
        return LABEL_COLUMN if self.numbers.keys() - {""} else None

    @property
    def fits_in_memory(self) -> bool:
        """Whether a worker can hold the encoded set: it is then read once, and its later passes cost no reading."""
        return self.source.summary()["bytes"] <= _KEPT_IN_MEMORY_BYTES


def plan_content(uri: str, image_column: str | None) -> TrainingSet:
    """Plans the content: image shards, any Parquet with images, a folder of images, or WebDataset tars. Domain 0.

    Raises:
        SourceError: nothing is there, or nothing usable is in it.
        StorageError: the storage cannot be reached.
    """
    source = plan_source(uri, _UNIT_BYTES, image_column)
    counts = {} if source.num_rows is None else {0: source.num_rows}
    return TrainingSet("content", uri, source, {"": 0}, {0: place_name(uri)}, counts)


def plan_style(uri: str, image_column: str | None, labelled: bool) -> TrainingSet:
    """Plans the style: one image, or a set as for the content.

    Args:
        image_column: used where the set has such a column, else the column is found.
        labelled: each label is a domain, numbered from 1 in the order of names: the column `label` of Parquet, the
            folder of image files. Else, and for images without a label, the domain is named after the place.

    Raises:
        StyleError: nothing is there, or nothing usable is in it.
        StorageError: the storage cannot be reached.
    """
    try:
        source = _plan_style_source(uri, image_column)
    except SourceError as error:
        raise StyleError(f"style={error}") from error
    labels = _count_labels(source) if labelled else {"": source.num_rows}
    raw = {label: label or place_name(uri) for label in labels}
    names = dict(zip(raw, unique_names(list(raw.values()), folders=False), strict=True))
    ordered = sorted(names, key=names.__getitem__)
    numbers = {label: number for number, label in enumerate(ordered, start=1)}
    counts = {numbers[label]: count for label, count in labels.items() if count is not None}
    return TrainingSet("style", uri, source, numbers, {numbers[label]: names[label] for label in ordered}, counts)


def _plan_style_source(uri: str, image_column: str | None) -> Source:
    root = locations.absolute(uri)
    if not locations.exists(root):
        raise StyleError(f"style={uri}: no such file or folder; wanted a style image, or a set of them")
    folder, _, name = root.rpartition("/")
    if not locations.is_folder(root) and not name.lower().endswith(PARQUET_ENDINGS + TAR_ENDINGS):
        # One image, whatever the name of its file ends in.
        info = locations.stat(root)
        unit = Unit("files", folder, "", f"{info['size']}:{info['tag']}", info["size"], 1, files=(name,))
        return Source(uri, "files", [unit], pa.schema([]))
    try:
        return plan_source(uri, _UNIT_BYTES, image_column)
    except SourceError:
        if image_column is None:
            raise
        return plan_source(uri, _UNIT_BYTES)


def _count_labels(source: Source) -> dict[str, int | None]:
    """Images by label, "" for none; {"": None} for tars."""
    if source.kind == "tar":
        return {"": None}
    if source.kind == "files":
        return dict(Counter(_folder(name) for unit in source.units for name in unit.files))
    labels: Counter[str] = Counter()
    for place in sorted({unit.source_uri for unit in source.units}):
        with locations.open_file(place) as file:
            parquet = pq.ParquetFile(file)
            if LABEL_COLUMN in parquet.schema_arrow.names:
                values = parquet.read([LABEL_COLUMN])[LABEL_COLUMN].to_pylist()
            else:
                values = [None] * parquet.metadata.num_rows
        labels.update("" if value is None else str(value) for value in values)
    return dict(labels)


def _folder(name: str) -> str:
    return os.path.basename(os.path.dirname(name))


def place_name(uri: str) -> str:
    """The last part of a place without its ending, as a name.

    >>> place_name("s3://art/old masters.v2/"), place_name("starry night.jpg"), place_name("a/b.tar.gz")
    ('old-masters.v2', 'starry-night', 'b')
    """
    return unique_names([uri.rstrip("/")])[0]


def unique_names(texts: Sequence[str], folders: bool = True) -> list[str]:
    """Names of letters, digits and . _ - for keys or labels, no two the same.

    Args:
        folders: the texts are paths: a name is made of the last part without its ending, and of the whole path where
            that is taken.

    >>> unique_names(["a/one.jpg", "b/one.png", "b/one.jpg"])
    ['one', 'b-one', 'b-one-2']
    """
    endings = sorted(IMAGE_ENDINGS + PARQUET_ENDINGS + TAR_ENDINGS, key=len, reverse=True)
    names: dict[str, None] = {}
    for text in texts:
        path = text
        if folders:
            path = next((text[: -len(ending)] for ending in endings if text.lower().endswith(ending)), text)
        short, whole = (_clean(part) for part in (os.path.basename(path) if folders else path, path))
        name = short if short not in names else whole
        number = 2
        while name in names:
            name, number = f"{whole}-{number}", number + 1
        names[name] = None
    return list(names)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "style"


def read_training_set(planned: TrainingSet, max_bytes: int) -> Any:
    """The set as a `ray.data.Dataset` of `TRAINING_FIELDS`.

    Args:
        max_bytes: of one image file or tar member; larger ones are not read, their `image` is null.
    """
    import ray.data

    # The newer reader of Ray 2.60 starts more processes than reading a set once is worth.
    ray.data.DataContext.get_current().use_datasource_v2 = False
    units = planned.source.units
    columns = {(unit.image_column, unit.key_column) for unit in units}
    if planned.source.kind == "parquet" and len(columns) == 1 and planned.label_column is None:
        image_column, key_column = next(iter(columns))
        places = sorted({unit.source_uri for unit in units})
        filesystem, _ = locations.split(places[0])
        options = {} if locations.is_local(filesystem) else {"filesystem": filesystem}
        dataset = ray.data.read_parquet(places, **options).select_columns([c for c in (image_column, key_column) if c])
        arguments = (image_column, key_column, planned.numbers[""])
        return dataset.map_batches(training_rows, fn_args=arguments, batch_format="pyarrow", zero_copy_batch=True)
    descriptors = [{"unit": json.dumps(asdict(unit))} for unit in units]
    return ray.data.from_items(descriptors, override_num_blocks=len(units)).map_batches(
        read_rows, fn_args=(planned, max_bytes), batch_size=1, batch_format="numpy"
    )


def read_rows(batch: dict, planned: TrainingSet, max_bytes: int) -> pa.Table:
    """The rows of one unit descriptor, {"unit": [JSON]}, as a table of `TRAINING_FIELDS`."""
    described = json.loads(str(batch["unit"][0]))
    unit = Unit(**{**described, "row_groups": tuple(described["row_groups"])})
    return rows_of_unit(unit, planned, max_bytes)


def rows_of_unit(unit: Unit, planned: TrainingSet, max_bytes: int) -> pa.Table:
    """The rows of one unit as a table of `TRAINING_FIELDS`; an image that cannot be had is null."""
    rows = read_unit(unit, planned.source.carried_schema, max_bytes)
    images = [None if isinstance(image, RowError) else image for image in rows.images]
    domains = [number_of(label, planned.numbers) for label in _labels(rows, unit, planned)]
    return training_table(rows.keys, domains, images)


def _labels(rows: UnitRows, unit: Unit, planned: TrainingSet) -> list[object]:
    if planned.label_column is None:
        return [None] * len(rows)
    if unit.kind == "files":
        return [_folder(key) for key in rows.keys]
    return rows.carried[LABEL_COLUMN].to_pylist()


def sample_images(planned: TrainingSet, limits: Limits, most: int, evenly: bool) -> dict[str, bytes]:
    """A sample of images that can be decoded, by key, in the order of the set.

    Args:
        most: how many at most; fewer where all of them would be larger than 64 MB, or have not that many.
        evenly: over the whole set, though at most 4 of its units are read; else its first ones.

    Raises:
        SourceError, StyleError: none of those that were tried can be decoded.
    """
    units = planned.source.units
    units = [units[index] for index in _spread(len(units), _SAMPLED_UNITS)] if evenly else units[:1]
    found: dict[str, bytes] = {}
    errors: list[str] = []
    for number, unit in enumerate(units):
        wanted = (most - len(found)) // (len(units) - number)
        found |= _sample_unit(unit, planned, limits, (wanted, evenly), errors)
    if not found:
        kind = StyleError if planned.role == "style" else SourceError
        many = f"none of {len(errors)} images that were tried is one that we read, such as "
        words = "not an image that we read: " if len(errors) == 1 else many if errors else "holds no images"
        raise kind(f"{planned.role}={planned.uri}: {words}{next(iter(errors), '')}")
    return found


def _sample_unit(
    unit: Unit, planned: TrainingSet, limits: Limits, wanted: tuple[int, bool], errors: list[str]
) -> dict[str, bytes]:
    most, evenly = wanted
    found: dict[int, tuple[str, bytes]] = {}
    num_bytes = 0
    for row, key, image in _candidates(unit, planned, limits, most if evenly else 0):
        if len(found) == most or num_bytes > _SAMPLE_BYTES / _SAMPLED_UNITS:
            break
        try:
            if isinstance(image, RowError):
                raise image
            decode_image(image, limits)
        except RowError as error:
            errors.append(f"{key}: {error}")
        else:
            found[row] = key, image
            num_bytes += len(image)
    return dict(value for _, value in sorted(found.items()))


def _candidates(
    unit: Unit, planned: TrainingSet, limits: Limits, most: int
) -> Iterator[tuple[int, str, bytes | RowError]]:
    """Rows of a unit as (row, key, image): `most` that are spread over it, then the others in order."""
    if unit.kind == "files":
        # Files are read one by one, as they are asked for.
        for row in _spread_first(len(unit.files), most):
            one = replace(unit, files=(unit.files[row],), num_rows=1, labels={})
            yield row, unit.files[row], read_unit(one, planned.source.carried_schema, limits.max_bytes).images[0]
        return
    rows = read_unit(unit, planned.source.carried_schema, limits.max_bytes)
    for row in _spread_first(len(rows), most):
        yield row, rows.keys[row], rows.images[row]


def _spread_first(count: int, most: int) -> Iterable[int]:
    first = _spread(count, most)
    return dict.fromkeys([*first, *range(count)])


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` positions, evenly, in order.

    >>> _spread(10, 4), _spread(2, 4)
    ([1, 3, 6, 8], [0, 1])
    """
    most = min(count, most)
    return [(2 * index + 1) * count // (2 * most) for index in range(most)]
