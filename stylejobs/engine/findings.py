"""What `verify` finds wrong: a problem a line, bounded for each unit, so that a driver's memory stays O(units)."""

from collections import Counter
from dataclasses import dataclass

_MAX_NAMED = 20


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: one word of a small vocabulary, to count and filter by.
        place: the file, or the unit's range of the source.
        fingerprint: of the unit that has to be done again; None where that would mend nothing.
    """

    kind: str
    place: str
    text: str
    fingerprint: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.text}"


class Findings:
    """Problems of one unit: of each kind the first twenty, and how many more there are."""

    def __init__(self, place: str, fingerprint: str):
        self._place, self._fingerprint = place, fingerprint
        self._problems: list[Problem] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, text: str, can_mend: bool = True) -> None:
        """Notes one problem; `can_mend`: doing the unit again removes it."""
        self._counts[kind] += 1
        if self._counts[kind] <= _MAX_NAMED:
            self._problems.append(Problem(kind, self._place, text, self._fingerprint if can_mend else None))

    def problems(self) -> list[Problem]:
        """All that are kept, then a line for each kind of which there are more."""
        more = [
            Problem(kind, self._place, f"and {count - _MAX_NAMED:,} more", self._fingerprint)
            for kind, count in self._counts.items()
            if count > _MAX_NAMED
        ]
        return self._problems + more
