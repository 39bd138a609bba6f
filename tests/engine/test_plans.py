"""What a plan says, and what it is compared with when it is applied; no Ray."""

import io
import json
import shutil
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
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
from stylejobs.engine.plans import check_drift, describe_plan, list_inputs, read_plan
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.unit_job import UnitJob
from stylejobs.errors import DriftError, GateError, SourceError
from stylejobs.records.codec import Limits
from stylejobs.storage import locations
from stylejobs.storage.markers import Marker
from stylejobs.storage.packages import read_package, save_package
from stylejobs.storage.sources import plan_source
from stylejobs.tracking import registry
from stylejobs.tracking.registry import ModelVersion
from tests.engine.stylizing import pixels, png

SIZES = [(40, 60), (600, 500), (60, 40)]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def images(count: int) -> list[bytes]:
    return [png(pixels(n, *SIZES[n % 3])) for n in range(count)]


def write_source(folder: Path, kind: str, count: int = 12) -> Path:
    """The same pictures as a source of some kind."""
    folder.mkdir(parents=True, exist_ok=True)
    made = images(count)
    if kind in ("shards", "parquet"):
        rows = [{"image": {"bytes": data, "path": None}, "key": f"k{n}"} for n, data in enumerate(made)]
        for n, row in enumerate(rows if kind == "shards" else ()):
            row |= {"height": SIZES[n % 3][0], "width": SIZES[n % 3][1]}
        for part in (0, 1):
            table = pa.Table.from_pylist(rows[part::2])
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=4, compression="none")
    elif kind == "tar":
        with tarfile.open(folder / "a.tar", "w") as tar:
            for n, data in enumerate(made):
                member = tarfile.TarInfo(f"{n}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        for n, data in enumerate(made):
            (folder / f"{n:02d}.png").write_bytes(data)
        if kind == "list":
            (folder / "all.txt").write_text("\n".join(f"{n:02d}.png" for n in range(count)))
            return folder / "all.txt"
    return folder


@pytest.fixture
def plan(tmp_path: Path, style_image: Path) -> Callable[..., tuple[StylizeConfig, UnitJob, PinnedModel]]:
    """plan("photos", rate=2): the config, the opened job and its model."""

    def call(source: object, **keys: object) -> tuple[StylizeConfig, UnitJob, PinnedModel]:
        usual = {"dest": str(tmp_path / "out"), "model": "builtin:moments", "plan": True, "cluster": {"actors": 3}}
        if not keys.get("model"):
            usual["styles"] = [str(style_image)]
        config = StylizeConfig(**{**usual, "source": str(source), **keys})
        job, model = plan_stylize(config)
        job.release()
        return config, job, model

    return call


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


class TestDrift:
    @pytest.mark.parametrize("kind", ["shards", "tar", "files", "list"])
    def test_inputs_change_with_their_files_and_with_nothing_else(self, tmp_path: Path, kind: str) -> None:
        uri = write_source(tmp_path / "in", kind)
        before = list_inputs(plan_source(str(uri), 20_000))
        assert list_inputs(plan_source(str(uri), 20_000)) == before
        changed = sorted(path for path in (tmp_path / "in").iterdir() if path.suffix != ".txt")[-1]
        changed.write_bytes(changed.read_bytes())
        after = list_inputs(plan_source(str(uri), 20_000))
        differing = [name for name in before if before[name] != after[name]]
        assert before.keys() == after.keys() and len(differing) == 1
        assert differing == [changed.name] or kind == "list"

    def test_every_difference_is_named_up_to_twenty(self) -> None:
        plan = {
            "identity": {"model": {"version": "3"}},
            "styles": {"a": "1"},
            "inputs": {"same": "1", "gone": "1", "other": "1"},
        }
        check_drift(plan, "p", plan["identity"], plan["styles"], plan["inputs"])
        with pytest.raises(DriftError) as caught:
            check_drift(plan, "p", {"model": {"version": "4"}}, {"a": "2"}, {"same": "1", "new": "1", "other": "2"})
        assert str(caught.value).splitlines()[1:-1] == [
            "  model.version: it was made with '3', this command says '4'",
            "  styles.a: it was made with '1', this command says '2'",
            "  added: new",
            "  gone: gone",
            "  changed: other",
        ]
        with pytest.raises(DriftError, match="1,000 difference") as caught:
            check_drift(plan | {"inputs": {}}, "p", plan["identity"], {"a": "1"}, {f"f{n}": "1" for n in range(1000)})
        lines = str(caught.value).splitlines()
        assert len(lines) == 23 and lines[-2] == "  ... and 980 more"

    @pytest.mark.parametrize(
        ("text", "said"),
        [(None, "nothing is there"), ("{", "not a plan.json"), ("{}", "lists no inputs"), ("[]", "lists")],
    )
    def test_what_is_no_plan_is_refused(self, tmp_path: Path, text: str | None, said: str) -> None:
        if text is not None:
            (tmp_path / "plan.json").write_text(text)
        with pytest.raises(SourceError, match=said):
            read_plan(str(tmp_path / "plan.json"))


ALIAS = "models:/demo@champion"


class TestApplied:
    @pytest.fixture
    def versions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """A registry with two versions of a model; versions["champion"] moves the alias."""
        aliases = {"champion": "1"}
        for number in ("1", "2"):
            save_package(str(tmp_path / "registry" / number), "moments", {}, {}, {"s": torch.ones(6) * int(number)}, {})

        def resolve(uri: str) -> ModelVersion:
            version = aliases["champion"] if "@" in uri else uri.rsplit("/", 1)[-1]
            sha256 = read_package(str(tmp_path / "registry" / version)).sha256
            return ModelVersion("demo", version, None, sha256, (), f"models:/demo/{version}")

        monkeypatch.setattr(registry, "resolve_version", resolve)
        monkeypatch.setattr(
            registry, "download_package", lambda version, into: str(tmp_path / "registry" / version.version)
        )
        return aliases

    @pytest.fixture
    def planned(self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str]) -> Path:
        folder = write_source(tmp_path / "in", "shards")
        describe_plan(*plan(folder, model=ALIAS, rate=1))
        return Path(shutil.copy(tmp_path / "out" / "_stylejobs" / "plan.json", tmp_path / "reviewed.json"))

    @pytest.mark.parametrize("dest", ["out", "elsewhere"])
    def test_an_alias_that_has_moved_means_what_it_meant_in_the_plan(
        self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str], planned: Path, dest: str
    ) -> None:
        versions["champion"] = "2"
        keys = {"model": ALIAS, "dest": str(tmp_path / dest)}
        for _ in range(2):
            _, job, model = plan(tmp_path / "in", plan=str(planned), **keys)
            assert (model.uri, model.version) == (ALIAS, "1")
            assert job.identity == json.loads(planned.read_text())["identity"]
        held = json.loads((tmp_path / dest / "_stylejobs" / "plan.json").read_text())
        assert held["inputs"] == json.loads(planned.read_text())["inputs"] and held["forecast"]["rate"]["value"] == 1
        assert plan(tmp_path / "in", plan=False, **keys)[2].version == "1"
        fresh = {"model": ALIAS, "dest": str(tmp_path / "fresh")}
        assert plan(tmp_path / "in", plan=False, **fresh)[2].version == "2"

    def test_another_model_or_parameter_is_drift_and_takes_nothing(
        self, plan: Callable[..., tuple], tmp_path: Path, planned: Path
    ) -> None:
        dest = tmp_path / "new"
        keys = {"plan": str(planned), "dest": str(dest)}
        with pytest.raises(DriftError, match=r"model.version: it was made with '1', this command says '2'"):
            plan(tmp_path / "in", model="models:/demo/2", **keys)
        with pytest.raises(DriftError, match=r"parameters.strength"):
            plan(tmp_path / "in", model=ALIAS, strength=0.5, **keys)
        assert not dest.exists()

    def test_after_a_failed_canary_an_alias_is_asked_for_a_better_model(
        self, plan: Callable[..., tuple], tmp_path: Path, versions: dict[str, str], planned: Path
    ) -> None:
        versions["champion"] = "2"
        assert plan(tmp_path / "in", model=ALIAS)[2].version == "1"
        (tmp_path / "out" / "_stylejobs" / "canary.json").write_text('{"passed": false}')
        assert plan(tmp_path / "in", model=ALIAS)[2].version == "2"


def test_a_table_for_people_and_the_numbers_for_programs(
    plan: Callable[..., tuple], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = describe_plan(*plan(write_source(tmp_path / "in", "shards"), rate=2, prices={"cpu_hour": 36}))
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("12 rows", "up to 0.25 MP", "8 pictures", "given with rate=", "0:00:03", "0.06"):
        assert words in said.err
    held = json.loads((tmp_path / "out" / "_stylejobs" / "plan.json").read_text())
    assert held["forecast"] == result.details["forecast"] and held["inputs"].keys() == {"0.parquet", "1.parquet"}
    assert held["model"]["sha256"] == result.model["sha256"] and np.isfinite(held["forecast"]["hours"]["expected"])
