"""Which image a worker is trained on next: a function of the seed and of a cursor that a checkpoint holds.

Draws of a set are numbered over all workers: worker r of W takes the numbers base + n * W + r, n = 0, 1, 2, ... So one
worker with a batch of 2 B meets the images of two workers with a batch of B, and the crop of a draw depends on its
number alone. Domains take turns; within a domain no image comes twice in a pass, and each pass has an order of its own.

A set that fits in memory is held whole by every worker, and the order is a closed form. A larger one is dealt to the
workers in units (row groups); a few of them at a time are a window, whose rows are shuffled. Which rows a worker of a
larger set gets depends on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from stylejobs.errors import SourceError
from stylejobs.records.lineage import draw_seed

WINDOW_BYTES = 128 * 2**20
_TOO_FEW = "{role}=: a worker has fewer images than {fewest}; lower batch or workers, or give more images"


@dataclass(frozen=True)
class EncodedImage:
    """One picture of a set; `domain` is the number of its label: of content without labels 0, of style from 1 on.

    Attributes:
        data: the whole file; None where it could not be read.
    """

    key: str
    domain: int
    data: bytes | None


@dataclass(frozen=True)
class Place:
    """Whose order it is: set, seed, worker, and how many workers take turns."""

    role: str
    seed: int
    rank: int = 0
    num_workers: int = 1

    def permutation(self, size: int, what: str, number: int) -> list[int]:
        """The same on every worker."""
        rng = torch.Generator().manual_seed(draw_seed(self.seed, f"{self.role}: {what}", number))
        return torch.randperm(size, generator=rng).tolist()

    def too_few(self, fewest: str) -> SourceError:
        return SourceError(_TOO_FEW.format(role=self.role, fewest=fewest))


class ImageOrder(Protocol):
    """Endless images of one set, for one worker."""

    def next(self) -> tuple[EncodedImage, int]:
        """The next image and the number of its draw."""

    def cursor(self) -> dict[str, Any]:
        """Where it stands, as plain values for JSON."""

    def seek(self, cursor: dict[str, Any]) -> None:
        """Goes on from there."""


class Turns:
    """Numbers of draws, and whose turn it is among the domains."""

    def __init__(self, place: Place, domains: Sequence[int]):
        self._place, self._domains = place, list(domains)
        self._deal: tuple[int, list[int]] = (-1, [])
        self.base, self.taken = 0, 0

    def next(self) -> tuple[int, int, int]:
        """(number of the draw, domain, how often the domain had its turn before, on all workers)."""
        number = self.base + self.taken * self._place.num_workers + self._place.rank
        self.taken += 1
        round_, turn = divmod(number, len(self._domains))
        if self._deal[0] != round_:
            self._deal = (round_, self._place.permutation(len(self._domains), "turns", round_))
        return number, self._domains[self._deal[1][turn]], round_


class KeptOrder:
    """A set in memory.

    Args:
        images: the whole set, in the same order on every worker.
        fewest: images that the set must have.

    Raises:
        SourceError: it has fewer.
    """

    def __init__(self, images: Sequence[EncodedImage], place: Place, fewest: int = 1):
        if len(images) < fewest:
            raise place.too_few(f"one batch of {fewest}" if fewest > 1 else "one")
        self._place = place
        self._by_domain: dict[int, list[EncodedImage]] = {}
        for image in images:
            self._by_domain.setdefault(image.domain, []).append(image)
        self._turns = Turns(place, sorted(self._by_domain))
        self._passes: dict[int, tuple[int, list[int]]] = {}

    def next(self) -> tuple[EncodedImage, int]:
        number, domain, turn = self._turns.next()
        images = self._by_domain[domain]
        pass_, index = divmod(turn, len(images))
        if self._passes.get(domain, (-1, []))[0] != pass_:
            self._passes[domain] = pass_, self._place.permutation(len(images), f"pass of domain {domain}", pass_)
        return images[self._passes[domain][1][index]], number

    def cursor(self) -> dict[str, Any]:
        return {"base": self._turns.base, "taken": self._turns.taken}

    def seek(self, cursor: dict[str, Any]) -> None:
        self._turns.base, self._turns.taken = cursor["base"], cursor["taken"]


Rows = Iterator[tuple[int, list[EncodedImage]]]
OpenUnits = Callable[[Sequence[int], int], Rows]
"""(numbers of units, domain) -> (number of the unit, some of its images of that domain), in the order of the units."""


@dataclass
class Stream:
    """Where a worker stands in one domain of a streamed set.

    Attributes:
        pass_: over the domain's units; `left` are those of them that a change of workers left over, None: all of them.
        window: of the pass; `row`: within it.
    """

    pass_: int = 0
    left: list[int] | None = None
    window: int = 0
    row: int = 0
    rows: Iterator[EncodedImage] | None = field(default=None, compare=False, repr=False)

    def cursor(self) -> dict[str, Any]:
        return {"pass": self.pass_, "left": self.left, "window": self.window, "row": self.row}

    @classmethod
    def at(cls, cursor: dict[str, Any]) -> "Stream":
        return cls(cursor["pass"], cursor["left"], cursor["window"], cursor["row"])


@dataclass(frozen=True)
class StreamedSet:
    """A set that is larger than memory, by its units.

    Attributes:
        num_bytes: of each unit.
        domains: domain -> numbers of the units that hold images of it.
    """

    num_bytes: Sequence[int]
    domains: dict[int, Sequence[int]]
    open_units: OpenUnits
    window_bytes: int = WINDOW_BYTES


class StreamedOrder:
    """A set that is read again in every pass.

    Args:
        fewest: images that a worker's share of a pass must have.

    Raises (from `next`):
        SourceError: a pass had fewer.
    """

    def __init__(self, streamed: StreamedSet, place: Place, fewest: int = 1):
        self._set, self._place, self._fewest = streamed, place, fewest
        self._turns = Turns(place, sorted(streamed.domains))
        self._streams = {domain: Stream() for domain in streamed.domains}

    def next(self) -> tuple[EncodedImage, int]:
        number, domain, _ = self._turns.next()
        stream = self._streams[domain]
        while True:
            if stream.rows is None:
                stream.rows = self._read_on(domain, stream)
            image = next(stream.rows, None)
            if image is not None:
                return image, number
            stream.rows = None

    def cursor(self) -> dict[str, Any]:
        streams = {str(domain): stream.cursor() for domain, stream in self._streams.items()}
        return {"base": self._turns.base, "taken": self._turns.taken, "streams": streams}

    def seek(self, cursor: dict[str, Any]) -> None:
        self._turns.base, self._turns.taken = cursor["base"], cursor["taken"]
        self._streams = {int(domain): Stream.at(told) for domain, told in cursor["streams"].items()}

    def _read_on(self, domain: int, stream: Stream) -> Iterator[EncodedImage]:
        """The rest of the present pass, moving the stream's cursor along; at its end the next pass begins."""
        windows, every = windows_of_pass(self._set, self._place, domain, stream)
        units = [unit for window in windows[stream.window :] for unit in window]
        first, seen = (stream.window, stream.row), 0
        rows = _Lookahead(self._set.open_units(units, domain))
        for number in range(stream.window, len(windows)):
            images = rows.take(set(windows[number]))[every]
            order = self._place.permutation(len(images), f"window of unit {windows[number][0]}", stream.pass_)
            stream.window = number
            for row in range(stream.row, len(images)):
                stream.row = row + 1
                seen += 1
                yield images[order[row]]
            stream.row = 0
        if first == (0, 0) and stream.left is None and seen < self._fewest:
            raise self._place.too_few(f"one batch of {self._fewest}" if self._fewest > 1 else "one")
        stream.pass_, stream.left, stream.window, stream.row = stream.pass_ + 1, None, 0, 0


def windows_of_pass(streamed: StreamedSet, place: Place, domain: int, stream: Stream) -> tuple[list[list[int]], slice]:
    """(units of this worker in a pass, by window; which rows of a window are its own)."""
    units = stream.left
    if units is None:
        whole = list(streamed.domains[domain])
        units = [whole[index] for index in place.permutation(len(whole), f"units of domain {domain}", stream.pass_)]
    every = slice(None)
    if len(units) >= place.num_workers:
        units = units[place.rank :: place.num_workers]
    else:
        # Fewer units than workers: all of them read all units and take turns with the rows.
        every = slice(place.rank, None, place.num_workers)
    windows: list[list[int]] = []
    size = streamed.window_bytes
    for unit in units:
        if size >= streamed.window_bytes:
            windows.append([])
            size = 0
        windows[-1].append(unit)
        size += streamed.num_bytes[unit]
    return windows, every


class _Lookahead:
    """Rows of units that come one after the other, taken window by window."""

    def __init__(self, rows: Rows):
        self._rows, self._next = rows, next(rows, None)

    def take(self, units: set[int]) -> list[EncodedImage]:
        images: list[EncodedImage] = []
        while self._next is not None and self._next[0] in units:
            images += self._next[1]
            self._next = next(self._rows, None)
        return images


def deal_anew(cursors: Sequence[dict[str, Any]], streamed: StreamedSet | None, place: Place) -> dict[str, Any]:
    """One cursor for workers of another number, out of those that all the old ones left: nothing comes twice in a pass.

    What an old worker had begun to read of a window counts as read.

    Args:
        cursors: of one set, by old rank.
        streamed: the set; None where it is held in memory.
        place: its role and seed; the rank does not matter.
    """
    old = len(cursors)
    base = max(cursor["base"] + cursor["taken"] * old for cursor in cursors)
    dealt: dict[str, Any] = {"base": base, "taken": 0}
    if streamed is None:
        return dealt
    dealt["streams"] = {}
    for domain in streamed.domains:
        streams = [Stream.at(cursor["streams"][str(domain)]) for cursor in cursors]
        pass_ = max(stream.pass_ for stream in streams)
        left: list[int] = []
        for rank, stream in enumerate(streams):
            # A worker that is still in the pass before has nothing of this one read; what it had left there is let go.
            at = stream if stream.pass_ == pass_ else Stream(pass_)
            windows, _ = windows_of_pass(streamed, replace(place, rank=rank, num_workers=old), domain, at)
            left += [unit for window in windows[at.window + (at.row > 0) :] for unit in window]
        left = list(dict.fromkeys(left))
        dealt["streams"][str(domain)] = (Stream(pass_, left) if left else Stream(pass_ + 1)).cursor()
    return dealt
