"""The stylizing worker on whole units: from the source's bytes to shard, dead letters and marker."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylejobs.engine.stylizer import Stylizer
from stylejobs.records.schema import DEAD_LETTER
from stylejobs.storage.markers import Markers
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import digest
from tests.engine.stylizing import pixels, png


class TestWholeUnits:
    """From the source's bytes to shard, dead letters and marker."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        images = [b"not an image" if n in (2, 3) else png(pixels(n)) for n in range(6)] + [None]
        table = pa.table({"image": pa.array(images, pa.binary()), "label": list("abcdefg")})
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
        return tmp_path / "in.parquet"

    def test_marker_shard_and_dead_letters_agree(
        self, build: Callable[..., Stylizer], source: Path, tmp_path: Path
    ) -> None:
        planned = plan_source(str(source), 10**9)
        worker = build(carried=planned.carried_schema, variants=2)
        marker = worker.process(planned.units[0], 4, digest("unit"))
        assert (marker.index, marker.rows_in, marker.rows_ok, marker.rows_bad) == (4, 7, 4, 3)
        assert marker.by_reason == {"not_an_image": 3} and marker.bytes_in == planned.units[0].num_bytes
        data = (tmp_path / "out" / marker.file).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (marker.file_sha256, marker.bytes_out)
        made = pq.read_table(io.BytesIO(data)).to_pylist()
        assert [(row["label"], row["variant"]) for row in made] == [(x, v) for x in "abef" for v in (0, 1)]
        letters = pq.ParquetFile(tmp_path / "out" / marker.dead_letter).read()
        assert letters.schema == DEAD_LETTER
        found = [
            (row["row_group"], row["row"], row["key"], row["stage"], row["attempt"]) for row in letters.to_pylist()
        ]
        assert found == [(g, r, f"in.parquet/{r}", "decode", 1) for g, r in ((0, 2), (1, 3), (2, 6))]
        original = pq.ParquetFile(source).read()["image"].to_pylist()
        assert [original[row["row"]] for row in letters.to_pylist()] == [b"not an image"] * 2 + [None]
        assert Markers(str(tmp_path / "out")).read([digest("unit")]) == {digest("unit"): marker}
        assert marker.seconds.keys() == {"read", "decode", "generate", "encode", "write"}

    def test_done_again_it_writes_the_same_files_with_the_same_bytes(
        self, build: Callable[..., Stylizer], source: Path, tmp_path: Path
    ) -> None:
        def contents() -> dict[str, bytes]:
            places = [*tmp_path.glob("out/data/*"), *tmp_path.glob("out/dead_letter/*")]
            return {str(path): path.read_bytes() for path in places}

        planned = plan_source(str(source), 1)
        assert len(planned.units) == 3
        for unit in planned.units:
            build(carried=planned.carried_schema).process(unit, 0, digest(unit.row_groups))
        first = contents()
        for unit in reversed(planned.units):
            build(carried=planned.carried_schema, codec_threads=1).process(unit, 0, digest(unit.row_groups))
        assert contents() == first and len(first) == 5

    def test_a_unit_of_bad_rows_has_dead_letters_and_no_shard(
        self, build: Callable[..., Stylizer], tmp_path: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.jpg").write_bytes(b"")
        planned = plan_source(str(tmp_path / "in"), 1)
        marker = build().process(planned.units[0], 0, digest("unit"))
        assert (marker.file, marker.file_sha256, marker.bytes_out) == (None, None, 0)
        assert (marker.rows_ok, marker.rows_bad) == (0, 1)
        assert not (tmp_path / "out" / "data").exists()
        (letter,) = pq.read_table(tmp_path / "out" / marker.dead_letter).to_pylist()
        assert (letter["key"], letter["row_group"], letter["row"]) == ("a.jpg", None, None)
        assert Path(letter["source"]) == tmp_path / "in" / "a.jpg"

    @pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
    def test_columns_of_views_are_carried(
        self, build: Callable[..., Stylizer], tmp_path: Path, kind: pa.DataType
    ) -> None:
        labels = pa.array(["a", "b", None]).cast(pa.binary() if kind == pa.binary_view() else pa.string())
        table = pa.table({"image": [b"", png(pixels(0)), png(pixels(1))], "label": labels.cast(kind)})
        pq.write_table(table, tmp_path / "in.parquet")
        planned = plan_source(str(tmp_path / "in.parquet"), 10**9, "image")
        marker = build(carried=planned.carried_schema).process(planned.units[0], 0, digest("unit"))
        assert pq.read_table(tmp_path / "out" / marker.file)["label"].to_pylist() == labels.to_pylist()[1:]
