"""The books of a job: whose a dataset is, which units are done, and the proof that all are."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.errors import DriftError, SourceError, StorageError
from stylejobs.storage import locations, units
from stylejobs.storage.markers import Marker, Markers, write_marker
from stylejobs.storage.units import (
    clear_and_prove,
    digest,
    find_differences,
    open_books,
    part_name,
    withdraw_success,
    write_success,
)

IDENTITY = {"verb": "stylize", "styles": ["a", "b"], "model": {"name": "m", "sha256": "1"}, "parameters": {"q": 92}}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def marker(name: str, index: int = 0, **changes: object) -> Marker:
    fingerprint = digest(name)
    file = f"data/{part_name(index, fingerprint)}"
    made = Marker(fingerprint, index, file, digest(name + "bytes"), None, rows_in=3, rows_ok=3, rows_bad=0)
    return replace(made, **changes)


def write_outputs(dest: Path, markers: list[Marker]) -> None:
    for one in markers:
        for name in filter(None, (one.file, one.dead_letter)):
            locations.write_atomic(str(dest / name), name.encode())
        write_marker(str(dest), one)


def prove(dest: str, markers: list[Marker]) -> dict:
    return clear_and_prove(dest, Markers(dest), markers)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestDigest:
    @given(values)
    def test_it_depends_on_the_value_and_not_on_how_it_is_written(self, value: object) -> None:
        assert digest(json.loads(json.dumps(value))) == digest(value)
        assert digest({"b": value, "a": 1}) == digest({"a": 1, "b": value})
        assert digest([value, 0]) != digest([0, value]) or value == 0
        assert digest([value]) != digest(value)

    @given(values, values)
    def test_different_values_differ(self, one: object, other: object) -> None:
        assert (digest(one) == digest(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))

    def test_it_is_the_sha256_of_canonical_json(self) -> None:
        # printf '{"a":[1,"\\u00fc"],"b":null}' | sha256sum
        assert digest({"b": None, "a": (1, "ü")}) == "eb7f3d221da616470b6745d0feb6d54ccf9fb5127d2742720fdfc5f887564e4a"


def test_part_names_sort_by_index_and_tell_fingerprints_apart() -> None:
    names = [part_name(index, digest(index)) for index in range(0, 20_000, 371)]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert part_name(7, digest("a")) == f"part-00007-{digest('a')[:12]}.parquet" != part_name(7, digest("b"))


class TestOpenBooks:
    @pytest.mark.parametrize("exists", [False, True])
    def test_a_new_or_empty_dest_is_taken(self, tmp_path: Path, exists: bool) -> None:
        dest = tmp_path / "out"
        if exists:
            dest.mkdir()
        open_books(str(dest), IDENTITY, {"source": {"rows": 3}})
        plan = json.loads((dest / "_stylejobs" / "plan.json").read_text())
        assert plan == {"identity": IDENTITY, "source": {"rows": 3}}
        assert files(dest) == {"_stylejobs/plan.json"}

    def test_the_same_job_goes_on_and_its_plan_is_renewed(self, tmp_path: Path) -> None:
        open_books(str(tmp_path), IDENTITY, {"source": {"rows": 3}})
        write_outputs(tmp_path, [marker("a")])
        before = files(tmp_path)
        open_books(f"{tmp_path}/", {name: IDENTITY[name] for name in reversed(IDENTITY)}, {"source": {"rows": 4}})
        assert files(tmp_path) == before
        assert json.loads((tmp_path / "_stylejobs" / "plan.json").read_text())["source"] == {"rows": 4}

    @pytest.mark.parametrize(
        "name", ["thesis.txt", "data/part-00000-abc.parquet", "_SUCCESS", "_stylejobs/result.json"]
    )
    def test_strangers_are_named_and_left_alone(self, tmp_path: Path, name: str) -> None:
        locations.write_atomic(str(tmp_path / name), b"precious")
        with pytest.raises(SourceError, match=f"holds no job of ours, such as .*{name}; choose a new folder"):
            open_books(str(tmp_path), IDENTITY, {})
        assert files(tmp_path) == {name} and (tmp_path / name).read_bytes() == b"precious"

    def test_another_job_is_refused_and_every_difference_is_named(self, tmp_path: Path) -> None:
        open_books(str(tmp_path), IDENTITY, {"source": 1})
        write_marker(str(tmp_path), marker("a"))
        before = (tmp_path / "_stylejobs" / "plan.json").read_bytes()
        other = {
            "verb": "stylize",
            "styles": ["b", "a"],
            "model": {"name": "m", "sha256": "2"},
            "parameters": {"q": 50, "size": 64},
            "source": "x",
        }
        with pytest.raises(DriftError) as caught:
            open_books(str(tmp_path), other, {"source": 2})
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"dest={tmp_path} holds the output of another job")
        assert lines[1:-1] == [
            "  model.sha256: it was made with '1', this command says '2'",
            "  parameters.q: it was made with 92, this command says 50",
            "  parameters.size: it was made with nothing, this command says 64",
            "  source: it was made with nothing, this command says 'x'",
            "  styles: it was made with ['a', 'b'], this command says ['b', 'a']",
        ]
        assert (tmp_path / "_stylejobs" / "plan.json").read_bytes() == before

    @given(st.dictionaries(st.text(), values, max_size=4), st.dictionaries(st.text(), values, max_size=4))
    @settings(max_examples=50, deadline=None)
    def test_a_dest_is_refused_exactly_when_the_identity_differs(self, held: dict, wanted: dict) -> None:
        with TemporaryDirectory() as dest:
            open_books(dest, held, {})
            write_marker(dest, marker("a"))
            open_books(dest, held, {})
            if json.loads(json.dumps(wanted)) == json.loads(json.dumps(held)):
                open_books(dest, wanted, {})
            else:
                with pytest.raises(DriftError):
                    open_books(dest, wanted, {})

    def test_a_job_of_which_no_unit_was_done_gives_way(self, tmp_path: Path) -> None:
        open_books(str(tmp_path), IDENTITY, {})
        assert find_differences(str(tmp_path), {"verb": "other"}) == []
        open_books(str(tmp_path), {"verb": "other"}, {})
        write_marker(str(tmp_path), marker("a"))
        assert find_differences(str(tmp_path), {"verb": "other"}) == []
        assert find_differences(str(tmp_path), {"verb": "x"}) == [
            "verb: it was made with 'other', this command says 'x'"
        ]
        assert find_differences(str(tmp_path / "empty"), IDENTITY) is None

    def test_a_dest_that_cannot_be_written_is_an_error_of_the_storage(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            open_books(str(tmp_path / "file" / "out"), IDENTITY, {})


class TestProof:
    def test_exactly_what_no_longer_belongs_is_removed(self, tmp_path: Path) -> None:
        open_books(str(tmp_path), IDENTITY, {})
        kept = [marker("a", 0, dead_letter=f"dead_letter/{part_name(0, digest('a'))}"), marker("b", 1)]
        gone = [marker("c", 2, dead_letter=f"dead_letter/{part_name(2, digest('c'))}"), marker("d", 3)]
        write_outputs(tmp_path, kept)
        others = ["README.md", "report/index.html", "_stylejobs/result.json", "_stylejobs/model/model.json"]
        for name in others:
            locations.write_atomic(str(tmp_path / name), b"x")
        belongs = files(tmp_path)
        write_outputs(tmp_path, gone)
        # An earlier attempt at unit b found bad rows where there are none now.
        locations.write_atomic(str(tmp_path / "dead_letter" / part_name(1, digest("b"))), b"x")
        locations.write_atomic(str(tmp_path / "data" / "stray.parquet"), b"x")
        (tmp_path / "data" / f".{part_name(0, digest('a'))}.0123.tmp").write_bytes(b"torn")
        (tmp_path / "_stylejobs" / "units" / ".x.json.0123.tmp").write_bytes(b"torn")
        prove(str(tmp_path), kept)
        assert files(tmp_path) == belongs

    def test_the_proof_says_what_there_is_and_is_the_last_file(self, tmp_path: Path) -> None:
        markers = [marker("a", rows_ok=2, rows_bad=1), marker("b", rows_ok=0, rows_bad=3, file=None, file_sha256=None)]
        proof = prove(str(tmp_path), markers)
        assert not (tmp_path / "_SUCCESS").exists()
        write_success(str(tmp_path), proof)
        said = json.loads((tmp_path / "_SUCCESS").read_text())
        assert said == {"manifest_sha256": proof["manifest_sha256"], "units": 2, "rows": 2, "bad": 4}

    @settings(max_examples=20, deadline=None)
    @given(st.permutations([marker(name, index) for index, name in enumerate("abcde")]))
    def test_it_does_not_depend_on_the_order_in_which_units_got_done(self, markers: list[Marker]) -> None:
        with TemporaryDirectory() as dest:
            in_order = sorted(markers, key=lambda one: one.index)
            assert prove(dest, markers) == prove(dest, in_order)

    @pytest.mark.parametrize("change", [{"file_sha256": "0" * 64}, {"rows_ok": 2}, {"file": "data/other"}])
    def test_the_manifest_changes_with_what_was_written(self, tmp_path: Path, change: dict) -> None:
        def manifest(*markers: Marker) -> str:
            return prove(str(tmp_path), list(markers))["manifest_sha256"]

        one, other = marker("a"), marker("b")
        assert len({manifest(one, other), manifest(one, replace(other, **change)), manifest(one), manifest(other)}) == 4

    def test_it_does_not_change_with_how_long_it_took(self, tmp_path: Path) -> None:
        first, second = (prove(str(tmp_path), [marker("a", seconds={"read": s})]) for s in (1.0, 2.0))
        assert first == second

    def test_it_is_withdrawn_while_work_is_done(self, tmp_path: Path) -> None:
        write_success(str(tmp_path), {})
        withdraw_success(str(tmp_path))
        assert files(tmp_path) == set()
        withdraw_success(str(tmp_path))

    def test_an_old_proof_does_not_outlive_what_it_vouches_for(self, tmp_path: Path) -> None:
        write_outputs(tmp_path, [marker("a"), marker("b")])
        write_success(str(tmp_path), prove(str(tmp_path), [marker("a"), marker("b")]))
        prove(str(tmp_path), [marker("a")])
        # Here the machine may go away: the report comes before the new proof.
        assert not (tmp_path / marker("b").file).exists() and not (tmp_path / "_SUCCESS").exists()


def test_json_files_come_back_and_absent_ones_are_none(tmp_path: Path) -> None:
    units.write_result(str(tmp_path), {"exit_code": 0, "message": "ü"})
    assert units.read_json(str(tmp_path / "_stylejobs" / "result.json")) == {"exit_code": 0, "message": "ü"}
    assert units.read_json(str(tmp_path / "absent" / "x.json")) is None

    def test_a_proof_stays_where_nothing_is_removed(self, tmp_path: Path) -> None:
        write_outputs(tmp_path, [marker("a")])
        write_success(str(tmp_path), prove(str(tmp_path), [marker("a")]))
        prove(str(tmp_path), [marker("a")])
        assert (tmp_path / "_SUCCESS").exists()
