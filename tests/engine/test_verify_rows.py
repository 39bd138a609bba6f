"""verify without Ray: rows that are not as they should be, in files that are whole and vouched for."""

import hashlib
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.small_dataset import (
    NUM_DEAD,
    NUM_ROWS,
    kinds,
    look,
    make,
    picture,
    replaced,
    rewrite,
    text,
    write_source,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that is not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    return make(write_source(folder / "in"), folder / "out")


@pytest.fixture
def dest(made: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "out"))


class TestRows:
    """Shards that are whole, with markers and a proof that vouch for them."""

    def test_a_row_is_there_twice(self, dest: Path) -> None:
        rewrite(dest, 1, lambda table: pa.concat_tables([table, table.slice(1, 1)]))
        problems, rows = look(dest)
        assert kinds(problems) == {"row_twice"} and "row 4, key=k2 variant=1" in text(problems)
        assert rows["ok"] == NUM_ROWS - NUM_DEAD

    def test_a_row_is_missing(self, dest: Path) -> None:
        rewrite(dest, 1, lambda table: table.slice(1))
        problems, rows = look(dest)
        assert kinds(problems) == {"row_missing"} and "key=k2 variant=0" in text(problems)
        assert rows["ok"] == NUM_ROWS - NUM_DEAD - 1

    def test_a_row_of_two_with_one_key_is_there_for_both(self, dest: Path) -> None:
        rewrite(dest, 0, lambda table: pa.concat_tables([table.slice(0, 2)] * 2))
        problems, _ = look(dest)
        assert kinds(problems) >= {"source_sha256"} and "key=again" in text(problems)

    def test_a_row_is_of_nobody(self, dest: Path) -> None:
        rewrite(dest, 1, replaced("key", "stranger"))
        assert kinds(look(dest)[0]) == {"row_unknown", "row_missing"}

    def test_rows_are_in_another_order(self, dest: Path) -> None:
        rewrite(dest, 1, lambda table: table.take([2, 3, 0, 1]))
        assert kinds(look(dest)[0]) == {"row_order"}

    @pytest.mark.parametrize(
        ("column", "value", "kind"),
        [
            ("style", "other", "lineage"),
            ("strength", 0.5, "lineage"),
            ("strength", float("nan"), "lineage"),
            ("seed", 7, "lineage"),
            ("model_name", "other", "lineage"),
            ("model_version", "9", "lineage"),
            ("model_sha256", "0" * 64, "lineage"),
            ("is_synthetic", False, "lineage"),
            ("source_sha256", "0" * 64, "source_sha256"),
            ("out_sha256", "0" * 64, "out_sha256"),
            ("width", 31, "image"),
            ("label", "cat", "carried"),
            ("score", 1.0, "carried"),
            ("score", None, "carried"),
        ],
    )
    def test_a_column_is_changed(self, dest: Path, column: str, value: object, kind: str) -> None:
        rewrite(dest, 1, replaced(column, value, row=3))
        problems, rows = look(dest)
        assert kinds(problems) == {kind} and "row 3, key=k3 variant=1" in text(problems)
        assert rows["ok"] == NUM_ROWS - NUM_DEAD - 1

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (picture(5, 10, 10), "10x10 pixels, wanted 32x24"),
            (picture(5, format="JPEG"), "wanted png, came jpeg"),
            (picture(5)[:200], "does not decode"),
            (b"text", "came no image"),
            (None, "there is no picture"),
        ],
    )
    def test_a_picture_is_another(self, dest: Path, data: bytes | None, words: str) -> None:
        sha256 = hashlib.sha256(data or b"").hexdigest()
        new = {"bytes": data, "path": "x"}
        rewrite(dest, 1, lambda table: replaced("out_sha256", sha256)(replaced("image", new)(table)))
        problems, _ = look(dest)
        assert kinds(problems) == {"image"} and words in text(problems)

    def test_a_column_is_gone(self, dest: Path) -> None:
        rewrite(dest, 1, lambda table: table.drop_columns(["label"]))
        assert kinds(look(dest)[0]) == {"columns"}


class TestDeadLetters:
    def letters(self, dest: Path) -> Path:
        return sorted((dest / "dead_letter").glob("*.parquet"))[0]

    def test_they_are_deleted(self, dest: Path) -> None:
        self.letters(dest).unlink()
        problems, _ = look(dest)
        assert kinds(problems) == {"dead_letters", "row_missing", "marker"} and "key=row-5" in text(problems)

    def test_they_are_damaged(self, dest: Path) -> None:
        self.letters(dest).write_bytes(b"PAR1")
        assert kinds(look(dest)[0]) == {"dead_letters", "row_missing", "marker"}

    def test_they_name_another_row(self, dest: Path) -> None:
        place = self.letters(dest)
        pq.write_table(replaced("row", 77)(pq.read_table(place)), place)
        problems, _ = look(dest)
        assert kinds(problems) == {"dead_letters", "row_missing", "marker"}

    def test_they_have_another_reason(self, dest: Path) -> None:
        place = self.letters(dest)
        pq.write_table(replaced("reason", "bomb")(pq.read_table(place)), place)
        assert kinds(look(dest)[0]) == {"marker"}
