"""Markers: written by workers, read, compacted and withdrawn by the job that holds the dataset."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import StorageError
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker, Markers, write_marker
from stylejobs.storage.units import digest


def marker(number: int, **changes: object) -> Marker:
    fields = {"file": f"data/{number}.parquet", "file_sha256": digest(number), "dead_letter": None}
    return Marker(digest(number), number, **{**fields, "rows_in": 3, "rows_ok": 3, "rows_bad": 0, **changes})


def names(dest: str | Path) -> list[str]:
    return sorted(path.name for path in (Path(dest) / "_stylejobs" / "units").iterdir())


def by_fingerprint(*markers: Marker) -> dict[str, Marker]:
    return {one.fingerprint: one for one in markers}


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    full = marker(5, dead_letter="dead_letter/x", rows_ok=1, rows_bad=2, by_reason={"bomb": 2}, seconds={"read": 0.25})
    bare = marker(6, file=None, file_sha256=None)
    for one in (full, bare):
        write_marker(str(tmp_path), one)
    assert Markers(str(tmp_path)).read() == by_fingerprint(full, bare)
    assert Markers(str(tmp_path)).read([bare.fingerprint, digest("not done")]) == by_fingerprint(bare)
    assert Markers(str(tmp_path)).read([]) == {}
    assert Markers(str(tmp_path / "absent")).read() == {}


def test_a_unit_that_is_done_again_has_one_marker(tmp_path: Path) -> None:
    write_marker(str(tmp_path), marker(1))
    write_marker(str(tmp_path), marker(1, rows_ok=1))
    assert Markers(str(tmp_path)).read()[digest(1)].rows_ok == 1
    assert names(tmp_path) == [f"{digest(1)}.json"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 6), st.sets(st.integers(0, 12)))
def test_whatever_the_order_the_last_marker_of_a_unit_counts(numbers: list[int], at: int, kept: set[int]) -> None:
    with TemporaryDirectory() as dest:
        held, last = Markers(dest, compacted_at=at), {}
        for turn, number in enumerate(numbers):
            last[number] = marker(number, rows_ok=turn)
            write_marker(dest, last[number])
            held.add(last[number])
            if turn % 3 == 0:
                held = Markers(dest, compacted_at=at)
        expected = by_fingerprint(*last.values())
        assert held.read() == Markers(dest).read() == expected and len(held) == len(expected)
        assert sum(name.endswith(".json") for name in names(dest)) < max(at, 2)
        held.keep_only({digest(number) for number in kept})
        expected = {name: one for name, one in expected.items() if one.index in kept}
        assert held.read() == Markers(dest).read() == expected


def test_a_thousand_become_one_file_and_a_handful_stay(tmp_path: Path) -> None:
    markers = [marker(number) for number in range(1203)]
    for one in markers:
        write_marker(str(tmp_path), one)
    held = Markers(str(tmp_path))
    held.compact()
    assert len(names(tmp_path)) == 1 + 203
    assert sum(name.startswith("many-") for name in names(tmp_path)) == 1
    assert Markers(str(tmp_path)).read() == by_fingerprint(*markers)


def test_a_crash_while_compacting_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markers = [marker(number) for number in range(9)]
    for one in markers:
        write_marker(str(tmp_path), one)
    deleted = []

    def die_at_the_third(place: str) -> None:
        if len(deleted) == 2:
            raise StorageError("the machine goes away")
        deleted.append(place)
        Path(place).unlink()

    monkeypatch.setattr(locations, "delete", die_at_the_third)
    with pytest.raises(StorageError):
        Markers(str(tmp_path), compacted_at=9).compact()
    monkeypatch.undo()
    assert len(names(tmp_path)) == 1 + 9 - len(deleted)
    assert Markers(str(tmp_path)).read() == by_fingerprint(*markers)


def test_a_file_of_many_holds_the_json_of_each(tmp_path: Path) -> None:
    import gzip

    write_marker(str(tmp_path), marker(1))
    write_marker(str(tmp_path), marker(2))
    single = json.loads((tmp_path / "_stylejobs" / "units" / f"{digest(1)}.json").read_text())
    Markers(str(tmp_path), compacted_at=2).compact()
    (many,) = (tmp_path / "_stylejobs" / "units").iterdir()
    lines = [json.loads(line) for line in gzip.decompress(many.read_bytes()).decode().splitlines()]
    assert single in lines and len(lines) == 2
