"""Ray Data reads a worker's share of its training sets; in the order that image_order.py asks for.

Not `ray.train`'s streaming split: it deals rows out as they arrive, drops what does not divide by the number of
workers, lets all workers wait for each other at the end of a pass, and cannot go on in the middle of one
(infra/adr/0008-a-training-is-a-function-of-its-cursor.md).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stylejobs.engine.image_order import EncodedImage, ImageOrder, KeptOrder, Place, Rows, StreamedOrder, StreamedSet
from stylejobs.engine.training_sets import TrainingSet, read_rows

_UNITS_AT_ONCE = 512


def open_orders(
    sets: Mapping[str, TrainingSet],
    places: Mapping[str, Place],
    batch: int,
    max_bytes: int,
    readers: int,
) -> dict[str, ImageOrder]:
    """The order of each set for this worker; a set that fits in memory is read here.

    Args:
        batch: images of the content that a pass must have at least.
        max_bytes: of one image file or tar member; larger ones are not read.
        readers: Ray tasks that read for this worker at the same time.

    Raises:
        SourceError: a set has too few images.
    """
    orders: dict[str, ImageOrder] = {}
    for role, planned in sets.items():
        fewest = batch if role == "content" else 1
        if planned.fits_in_memory:
            units = range(len(planned.source.units))
            rows = _read(planned, units, None, max_bytes, readers)
            orders[role] = KeptOrder([image for _, images in rows for image in images], places[role], fewest)
        else:
            orders[role] = StreamedOrder(streamed_set(planned, max_bytes, readers), places[role], fewest)
    return orders


def streamed_set(planned: TrainingSet, max_bytes: int, readers: int) -> StreamedSet:
    """A set that is read again in every pass."""
    return StreamedSet(
        [unit.num_bytes for unit in planned.source.units],
        planned.units_of_domain,
        lambda units, domain: _read(planned, units, domain, max_bytes, readers),
    )


def _read(planned: TrainingSet, units: Sequence[int], domain: int | None, max_bytes: int, readers: int) -> Rows:
    """Rows of units in their order: Ray tasks read ahead, as many as `readers` at a time."""
    for start in range(0, len(units), _UNITS_AT_ONCE):
        numbers = list(units[start : start + _UNITS_AT_ONCE])
        for batch in _dataset(planned, numbers, domain, max_bytes, readers).iter_batches(
            batch_size=None, batch_format="numpy", prefetch_batches=1
        ):
            yield from _by_unit(batch)


def _by_unit(batch: Mapping[str, Any]) -> Iterator[tuple[int, list[EncodedImage]]]:
    images: dict[int, list[EncodedImage]] = {}
    for unit, key, domain, data in zip(batch["unit"], batch["key"], batch["domain"], batch["image"], strict=True):
        images.setdefault(int(unit), []).append(EncodedImage(str(key), int(domain), data))
    yield from images.items()


def _dataset(planned: TrainingSet, numbers: list[int], domain: int | None, max_bytes: int, readers: int) -> Any:
    import ray.data

    described = [{"number": number, "unit": json.dumps(asdict(planned.source.units[number]))} for number in numbers]
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        return ray.data.from_items(described, override_num_blocks=len(described)).map_batches(
            read_rows,
            fn_args=(planned.labelling, max_bytes, domain),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.TaskPoolStrategy(size=min(readers, len(described))),
        )
