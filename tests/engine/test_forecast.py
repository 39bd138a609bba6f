"""Sizes from headers, the pace of a worker, and what a plan makes of them; no Ray."""

import functools
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.forecast import make_forecast
from stylejobs.engine.header_sample import sample_headers
from stylejobs.engine.models import PinnedModel
from stylejobs.engine.pace import measured_pace
from stylejobs.engine.plans import describe_plan
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import GateError, SourceError
from stylejobs.records.codec import Limits
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker
from stylejobs.storage.packages import save_package
from stylejobs.storage.sources import plan_source
from tests.engine.planning import SIZES, images, plan_job, write_source
from tests.engine.stylizing import pixels, png

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def plan(tmp_path: Path, style_image: Path) -> Callable[..., tuple[StylizeConfig, UnitJob, PinnedModel]]:
    """plan("photos", rate=2): see `plan_job`."""
    return functools.partial(plan_job, tmp_path, style_image)


class TestHeaders:
    @pytest.mark.parametrize("kind", ["shards", "parquet", "tar", "files", "list"])
    def test_every_kind_of_source_gives_the_sizes_of_its_pictures(self, tmp_path: Path, kind: str) -> None:
        source = plan_source(str(write_source(tmp_path / "in", kind)), 1)
        sample = sample_headers(source, Limits())
        seen = {size for unit in sample.units for size in unit.sizes}
        assert seen <= set(SIZES) and len(seen) > 1
        buckets = sample.buckets(12)
        assert sum(bucket["rows"] for bucket in buckets) == 12
        assert [bucket["up_to"] for bucket in buckets] == [0.25, 1.0]
        if kind in ("shards", "files", "list"):
            truth = sum(height * width for height, width in SIZES) * 4 / 1e6
            assert sum(bucket["megapixels"] for bucket in buckets) == pytest.approx(truth, abs=2e-3)
            assert [bucket["rows"] for bucket in buckets] == [8, 4]

    def test_large_chunks_of_pictures_are_not_read_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        noise = [png(pixels(n, 300, 300)) for n in range(60)]
        table = pa.table({"image": pa.array(noise, pa.binary())})
        pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, write_batch_size=4)
        num_read = 0
        read = locations._StorageFile.read

        def counting(file: object, size: int = -1) -> bytes:
            nonlocal num_read
            data = read(file, size)
            num_read += len(data)
            return data

        source = plan_source(str(tmp_path), 1e9)
        monkeypatch.setattr(locations._StorageFile, "read", counting)
        sample = sample_headers(source, Limits())
        assert {size for unit in sample.units for size in unit.sizes} == {(300, 300)}
        assert 0 < num_read < 0.4 * sum(map(len, noise))
        large = [replace(source.units[0], num_bytes=2**26) for _ in range(1000)]
        assert len(sample_headers(replace(source, units=large), Limits()).units) == 16

    def test_pictures_that_are_none_are_passed_over_and_a_source_of_them_refused(self, tmp_path: Path) -> None:
        folder = write_source(tmp_path / "in", "files", 6)
        (folder / "00.png").write_bytes(b"not a picture")
        sample = sample_headers(plan_source(str(folder), 1), Limits())
        assert sample.num_images == 5
        for path in folder.iterdir():
            path.write_bytes(b"not a picture")
        with pytest.raises(SourceError, match=r"no picture of the 6 unit\(s\)"):
            sample_headers(plan_source(str(folder), 1), Limits())

    def test_a_header_at_the_end_of_a_long_file_is_found(self, tmp_path: Path) -> None:
        Image.fromarray(pixels(0, 400, 401)).save(tmp_path / "a.tif")
        assert (tmp_path / "a.tif").stat().st_size > 2**18
        sample = sample_headers(plan_source(str(tmp_path), 1), Limits())
        assert sample.units[0].sizes == ((400, 401),)

    def test_units_weigh_by_their_rows(self, tmp_path: Path) -> None:
        """90 small pictures in one file, 2 large ones of the same bytes in another."""
        for name, count, size in (("a", 90, (100, 100)), ("b", 2, (1000, 1000))):
            rows = [{"image": b"", "key": f"{name}{n}", "height": size[0], "width": size[1]} for n in range(count)]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        sample = sample_headers(plan_source(str(tmp_path), 1, image_column="image"), Limits())
        weighted_U, rows_U = sample.megapixels(None)
        assert (weighted_U.sum() / rows_U.sum()).item() == pytest.approx((90 * 0.01 + 2 * 1.0) / 92)
        weighted_U, _ = sample.megapixels(500)
        assert weighted_U.sum().item() == pytest.approx(92 * 0.25)


class TestForecast:
    def test_the_numbers_follow_from_the_rate_and_the_prices(self, plan: Callable[..., tuple], tmp_path: Path) -> None:
        config, job, _ = plan(
            write_source(tmp_path / "in", "shards"),
            unit_mb=1e-6,
            variants=5,
            rate=0.5,
            cluster={"actors": 2, "actor_gpus": 0.5, "actor_cpus": 4},
            prices={"gpu_hour": 3, "cpu_hour": 0.25},
        )
        made = make_forecast(config, job, NOON)
        hours = 12 * 5 / (0.5 * 2 * 3600)
        assert (made["rows"], made["rows_known"], made["images_left"], made["workers"]) == (12, True, 60, 2)
        for name, value in {
            "hours": hours, "gpu_hours": hours, "cpu_hours": 8 * hours, "money": 3 * hours + 2 * hours,
        }.items():  # fmt: skip
            assert made[name] == pytest.approx({"expected": value, "low": value, "high": value}, rel=1e-3)
        assert made["finish"]["expected"] == "2030-01-01T12:01+00:00"
        assert "not measured" in made["bytes_out"]["how"] and made["rate"]["how"] == "given with rate="
        megapixels = sum(height * width for height, width in SIZES) * 4 / 1e6
        assert made["bytes_out"]["value"] == pytest.approx(5 * megapixels * 0.35e6, rel=1e-3)

    def test_money_needs_the_prices_of_what_is_used(self, plan: Callable[..., tuple], tmp_path: Path) -> None:
        folder = write_source(tmp_path / "in", "shards")
        config, job, _ = plan(folder, rate=1, prices={"cpu_hour": 1})
        assert make_forecast(config, job, NOON)["money"] is not None
        config, job, _ = plan(folder, rate=1, prices={"cpu_hour": 1}, cluster={"actors": 1, "actor_gpus": 1})
        assert make_forecast(config, job, NOON)["money"] is None

    @pytest.mark.parametrize("kind", ["shards", "files", "tar"])
    def test_without_a_rate_real_pictures_are_tried(
        self, plan: Callable[..., tuple], tmp_path: Path, kind: str
    ) -> None:
        num_threads = torch.get_num_threads()
        config, job, _ = plan(write_source(tmp_path / "in", kind), unit_mb=1e-6, format="png")
        started = time.monotonic()
        made = make_forecast(config, job, NOON)
        assert time.monotonic() - started < 30
        assert made["rate"]["low"] <= made["rate"]["value"] <= made["rate"]["high"]
        assert "a probe of" in made["rate"]["how"] and torch.get_num_threads() == num_threads
        assert made["rows"] == pytest.approx(12, abs=1)
        assert made["hours"]["low"] <= made["hours"]["expected"] <= made["hours"]["high"]
        hours = made["images_left"] / made["rate"]["value"] / made["workers"] / 3600
        assert made["hours"]["expected"] == pytest.approx(hours, rel=0.01)
        assert made["workers"] == min(3, len(job.pending))
        # Noise as PNG keeps its bytes, whatever the colours.
        assert made["bytes_out"]["value"] == pytest.approx(sum(map(len, images(12))), rel=0.5)

    def test_a_model_that_gives_nothing_is_no_basis_for_a_plan(
        self, plan: Callable[..., tuple], tmp_path: Path
    ) -> None:
        codes = {"nan": torch.full((6,), torch.nan)}
        save_package(str(tmp_path / "broken"), "moments", {}, {}, codes, {})
        config, job, _ = plan(write_source(tmp_path / "in", "shards"), model=str(tmp_path / "broken"))
        with pytest.raises(GateError, match=r"none of the sampled pictures could be stylized .*non_finite"):
            make_forecast(config, job, NOON)

    @given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 9)), min_size=1, max_size=20), st.integers(1, 4))
    def test_a_part_that_is_done_gives_the_rate(self, units: list[tuple[int, float]], copies: int) -> None:
        markers = [
            Marker(str(n), n, "f", "s", None, rows, rows, 0, bytes_out=100 * rows * copies,
                   seconds={"read": seconds, "generate": seconds, "decode": seconds, "encode": seconds, "write": 0.0})
            for n, (rows, seconds) in enumerate(units)
        ]  # fmt: skip
        pace = measured_pace(markers, copies, codec_threads=4)
        rows, seconds = (sum(column) for column in zip(*units, strict=True))
        assert pace.rate.value == pytest.approx(copies * rows / (2 * seconds))
        assert pace.bytes_per_image == pytest.approx(100)
        slack = 1e-9 * pace.rate.value
        assert pace.rate.low - slack <= pace.rate.value <= pace.rate.high + slack
        assert measured_pace([], copies, 1) is None

    def test_forty_thousand_units_cost_memory_of_the_units_and_little_time(
        self, plan: Callable[..., tuple], tmp_path: Path
    ) -> None:
        config, job, model = plan(write_source(tmp_path / "in", "shards"), unit_mb=1e-6, rate=100.0)
        first = job.source.units[0]
        units = [replace(first, name=f"{n}.parquet", num_rows=2500) for n in range(40_000)]
        job.source = replace(job.source, units=units)
        job.__post_init__()
        tracemalloc.start()
        started = time.monotonic()
        result = describe_plan(config, job, model)
        seconds, (_, peak) = time.monotonic() - started, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result.details["forecast"]["rows"] == 100_000_000
        assert seconds < 30 and peak < 200 * 2**20
