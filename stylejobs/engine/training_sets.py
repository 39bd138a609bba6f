"""What a training reads: a set of content or style images, planned from listings and footers, read unit by unit.

Rows travel as `records.batches.TRAINING_FIELDS`. No torch here, because tasks that only move bytes need not load it;
Ray Data calls `read_rows` (training_reader.py), decoding and cropping is in `datasets.py`.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylejobs.engine.set_names import place_name, unique_names
from stylejobs.errors import RowError, SourceError, StyleError
from stylejobs.records.batches import number_of, training_table
from stylejobs.records.codec import Limits, decode_image
from stylejobs.storage import locations
from stylejobs.storage.reading import UnitRows, read_unit
from stylejobs.storage.sources import PARQUET_ENDINGS, TAR_ENDINGS, Source, Unit, plan_source

LABEL_COLUMN = "label"
"""Where `ingest labels=folder` puts the name of a picture's folder."""
_KEPT_IN_MEMORY_BYTES = 512 * 2**20
_UNIT_BYTES = 32 * 2**20
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
        units_of_domain: domain number -> numbers of the units that hold images of it.
    """

    role: str
    uri: str
    source: Source
    numbers: dict[str, int]
    names: dict[int, str]
    counts: dict[int, int]
    units_of_domain: dict[int, tuple[int, ...]]

    @property
    def labelling(self) -> "Labelling":
        return Labelling(self.numbers, self.source.carried_schema)

    @property
    def fits_in_memory(self) -> bool:
        """Whether a worker can hold the encoded set: it is then read once, and its later passes cost no reading."""
        return self.source.summary()["bytes"] <= _KEPT_IN_MEMORY_BYTES


def plan_content(uri: str, image_column: str | None, labelled: bool = False) -> TrainingSet:
    """Plans the content: image shards, any Parquet with images, a folder of images, or WebDataset tars. Domain 0.

    Args:
        labelled: each label is a domain that is named as it is, numbered from 0 in the order of names: the column
            `label` of Parquet, the folder of image files.

    Raises:
        SourceError: nothing is there, or nothing usable is in it; of a labelled set an image without a label, or fewer
            than two labels.
        StorageError: the storage cannot be reached.
    """
    source = plan_source(uri, _UNIT_BYTES, image_column)
    if labelled:
        by_unit = _count_labels(source)
        labels = sorted({label for counted in by_unit for label in counted})
        if "" in labels or len(labels) < 2:
            few = "images without a label" if "" in labels else f"one label, {labels[0]}, alone"
            raise SourceError(
                f"content={uri}: holds {few}; wanted a label for every image, and two or more of them: the folder of "
                "image files, or the column `label` of Parquet (ingest labels=folder); tars have none"
            )
        numbers = {label: number for number, label in enumerate(labels)}
        return _by_label("content", uri, source, by_unit, (numbers, {label: label for label in labels}))
    counts = {} if source.num_rows is None else {0: source.num_rows}
    every = {0: tuple(range(len(source.units)))}
    return TrainingSet("content", uri, source, {"": 0}, {0: place_name(uri)}, counts, every)


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
    by_unit = _count_labels(source) if labelled else [Counter({"": unit.num_rows or 0}) for unit in source.units]
    raw = {label: label or place_name(uri) for labels in by_unit for label in labels}
    names = dict(zip(raw, unique_names(list(raw.values()), folders=False), strict=True))
    ordered = sorted(names, key=names.__getitem__)
    numbers = {label: number for number, label in enumerate(ordered, start=1)}
    return _by_label("style", uri, source, by_unit, (numbers, names))


def _by_label(
    role: str, uri: str, source: Source, by_unit: list[Counter[str]], labels: tuple[dict[str, int], dict[str, str]]
) -> TrainingSet:
    """A set whose domains are labels; of `labels` the numbers, in order, and the names."""
    numbers, names = labels
    totals = sum(by_unit, Counter())
    counts = {} if source.num_rows is None else {number: totals[label] for label, number in numbers.items()}
    places = {
        number: tuple(unit for unit, counted in enumerate(by_unit) if label in counted)
        for label, number in numbers.items()
    }
    named = {number: names[label] for label, number in numbers.items()}
    return TrainingSet(role, uri, source, numbers, named, counts, places)


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


def _count_labels(source: Source) -> list[Counter[str]]:
    """Images by label, "" for none, of each unit; tars have no labels, and nobody knows how many images."""
    if source.kind == "tar":
        return [Counter({"": 0}) for _ in source.units]
    if source.kind == "files":
        return [Counter(_folder(name) for name in unit.files) for unit in source.units]
    found: list[Counter[str]] = []
    for place, units in itertools.groupby(source.units, lambda unit: unit.source_uri):
        with locations.open_file(place) as file:
            parquet = pq.ParquetFile(file)
            found += [_count_of_row_groups(parquet, unit) for unit in units]
    return found


def _count_of_row_groups(parquet: pq.ParquetFile, unit: Unit) -> Counter[str]:
    if LABEL_COLUMN not in parquet.schema_arrow.names:
        return Counter({"": unit.num_rows or 0})
    values = parquet.read_row_groups(list(range(*unit.row_groups)), [LABEL_COLUMN])[LABEL_COLUMN].to_pylist()
    return Counter("" if value is None else str(value) for value in values)


def _folder(name: str) -> str:
    return os.path.basename(os.path.dirname(name))


@dataclass(frozen=True)
class Labelling:
    """What a task that reads rows must know of their set, small enough to travel with every unit."""

    numbers: dict[str, int]
    carried_schema: pa.Schema

    def of(self, rows: UnitRows, unit: Unit) -> list[int]:
        """The domain of each row."""
        labels: list[object] = [None] * len(rows)
        if self.numbers.keys() - {""}:
            is_files = unit.kind == "files"
            labels = [_folder(key) for key in rows.keys] if is_files else rows.carried[LABEL_COLUMN].to_pylist()
        return [number_of(label, self.numbers) for label in labels]


def read_rows(batch: dict, labelling: Labelling, max_bytes: int, domain: int | None) -> pa.Table:
    """The rows of one unit descriptor, {"number": [its number], "unit": [JSON]}, as a table of `TRAINING_FIELDS`.

    Args:
        max_bytes: of one image file or tar member; larger ones are not read, their `image` is null.
        domain: of the rows that are wanted; None wants all.
    """
    unit = Unit.from_plain(json.loads(str(batch["unit"][0])))
    rows = rows_of_unit(int(batch["number"][0]), unit, labelling, max_bytes)
    return rows if domain is None else rows.filter(pc.equal(rows["domain"], domain))


def rows_of_unit(number: int, unit: Unit, labelling: Labelling, max_bytes: int) -> pa.Table:
    """The rows of one unit as a table of `TRAINING_FIELDS`; an image that cannot be had is null."""
    rows = read_unit(unit, labelling.carried_schema, max_bytes)
    images = [None if isinstance(image, RowError) else image for image in rows.images]
    return training_table(number, rows.keys, labelling.of(rows, unit), images)


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
