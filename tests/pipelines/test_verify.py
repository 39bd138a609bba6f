"""verify and replay as commands, on the shared Ray: prove, damage, find, mend, prove again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stylejobs.storage.lease import hold
from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Verb = Callable[..., Outcome]


def contents(dest: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dest)): path.read_bytes() for path in sorted((dest / "data").glob("*.parquet"))}


def test_damage_is_found_mended_and_proven(verb: Verb, photo_folder: Path, style_image: Path, tmp_path: Path) -> None:
    (photo_folder / "notes.jpg").write_bytes(b"no picture")
    stylize = [f"source={photo_folder}", "dest=out", "model=builtin:moments", f"styles={style_image}"]
    stylize += ["unit_mb=0.012", "max_bad=0.1"]
    assert verb("stylize", *stylize).exit_code == 0
    dest = tmp_path / "out"
    whole, result_json = contents(dest), (dest / "_stylejobs" / "result.json").read_bytes()
    assert len(whole) >= 3

    proven = verb("verify", "dest=out", "sample=6", "seed=1", "cluster.actors=1")
    assert proven.exit_code == 0, proven.stderr
    result = proven.result
    assert result["rows"] == {"in": 21, "ok": 20, "bad": 1, "by_reason": {"not_an_image": 1}}
    assert result["units"]["done"] == result["units"]["total"] and result["units"]["failed"] == 0
    assert result["details"]["sample"]["rows"] == 6 and result["details"]["sample"]["faults"] == 0
    assert result["details"]["problems"] == [] and result["resume_command"] is None
    assert "proven: 21 rows" in proven.stderr and "made again" in proven.stderr
    assert json.loads((dest / "_stylejobs" / "verify.json").read_text())["exit_code"] == 0

    first, second, *_ = sorted(whole)
    (dest / first).write_bytes(whole[first][:-50])
    (dest / second).unlink()
    (dest / "data" / "stranger.parquet").write_bytes(b"x")
    found = verb("verify", "dest=out")
    assert found.exit_code == 4 and found.result["units"]["failed"] == 2
    assert found.result["details"]["by_kind"].keys() == {
        "file_sha256", "unreadable", "file_missing", "row_missing", "stray_file"
    }  # fmt: skip
    assert first in found.stderr and second in found.stderr and "mend=true" in found.stderr
    assert (dest / "_SUCCESS").exists() and contents(dest).keys() >= {first}

    with hold(str(dest), "stylize"):
        assert verb("verify", "dest=out", "mend=true").exit_code == 6
    mended = verb("verify", "dest=out", "mend=true")
    assert mended.exit_code == 4 and mended.result["details"]["withdrawn"] == 2
    assert not (dest / "_SUCCESS").exists() and not (dest / "_stylejobs" / "lease.json").exists()
    assert (dest / "_stylejobs" / "result.json").read_bytes() == result_json
    again = verb("stylize", *stylize)
    assert again.exit_code == 0 and again.result["units"]["done"] == 2
    assert contents(dest) == whole
    assert verb("verify", "dest=out").exit_code == 0

    replayed = verb("replay", "dest=out", "key=coffee/01.jpg", "out=again.jpg")
    assert replayed.exit_code == 0 and replayed.result["details"]["lineage"]["key"] == "coffee/01.jpg", replayed.stderr
    assert (tmp_path / "again.jpg").stat().st_size > 500
    dead = verb("replay", "dest=out", "key=notes.jpg")
    assert dead.exit_code == 0 and "a dead letter (decode): not_an_image" in dead.stderr


def test_what_is_no_dataset_of_stylize_is_refused(verb: Verb, tmp_path: Path) -> None:
    for arguments in (["verify", "dest=nowhere"], ["replay", "dest=nowhere", "key=a"]):
        refused = verb(*arguments)
        assert refused.exit_code == 2 and "there is no plan of one" in refused.stderr
    assert not (tmp_path / "nowhere").exists()
