"""The canary without Ray: bad models fail the gate that is meant for them, good ones none; which rows go first."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float
from stylejobs.engine.canary import CanaryRules, Gate, build_items, count_canary_rows, judge, was_refused
from stylejobs.engine.canary_worker import CanaryWorker
from stylejobs.engine.samples import file_of, narrow, spread_over_files, take_evenly, take_rows
from stylejobs.engine.stream import StreamActor
from stylejobs.engine.stylizer import StylizeSettings
from stylejobs.storage.descriptors import Unit
from stylejobs.storage.packages import Package, save_package
from stylejobs.storage.sources import Source, plan_source
from stylejobs.storage.units import find_differences, write_json
from tests.engine.stylizing import changed, png, rows_of, settings_for

RULES = CanaryRules(share=1.0, max_bad=0.005, min_similarity=0.1)
SIDE_PX = 128
TINY = {"width": 4, "blocks": 0}


def johnson(change: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(name, weight) for name, weight in build_network("johnson", **TINY).state_dict().items()}


def black(name: str, weight: Tensor) -> Tensor:
    return torch.full_like(weight, -9.0) if name == "head.bias" else torch.zeros_like(weight)


def shifting(name: str, weight: Tensor) -> Tensor:
    """Every convolution takes the pixel in the corner of its window: the content lands 14 px away."""
    made = torch.zeros_like(weight)
    if weight.ndim == 4:
        made[:, 0, 0, 0] = 0.5 if name.startswith("head") else 1.0
    elif "norm" in name:
        made.fill_(1.0)
    elif name == "head.bias":
        made.fill_(-0.5)
    return made


@pytest.fixture(scope="module")
def models(photos: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Package]]:
    root = tmp_path_factory.mktemp("models")
    weights = {
        "not finite": johnson(lambda name, weight: torch.full_like(weight, torch.nan)),
        "black": johnson(black),
        "content similarity": johnson(shifting),
    }
    found = {
        name: save_package(str(root / name), "johnson", TINY, weight, {"only": torch.zeros(0)}, {})
        for name, weight in weights.items()
    }
    moments = build_network("moments")
    for name, style in {"good": photos["flower"], "identity": photos["coffee"][:SIDE_PX, :SIDE_PX]}.items():
        code_D = moments.encode_style(to_float(torch.from_numpy(style.copy())[None]))[0]
        found[name] = save_package(str(root / name), "moments", {}, {}, {"only": code_D}, {})
    return {name: (str(root / name), package) for name, package in found.items()}


@pytest.fixture(scope="module")
def source(photos: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Source:
    """40 crops of photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        photo = photos[list(photos)[number % len(photos)]]
        crop = photo[number : number + SIDE_PX, 3 * number : 3 * number + SIDE_PX]
        Image.fromarray(crop).save(folder / f"{number:02d}.png")
    return plan_source(str(folder), 200_000)


@pytest.fixture
def run(models: dict, tmp_path: Path) -> Callable[..., list[Gate]]:
    """The gates of a model on a source, as the workers' answers give them."""

    def call(model: str, source: Source, rules: CanaryRules = RULES, **changes: object) -> list[Gate]:
        settings: StylizeSettings = changed(settings_for(models, model, str(tmp_path / "out")), **changes)
        actor = StreamActor(CanaryWorker, settings, None)
        rows = count_canary_rows(rules.share, source.units)
        items = [item.to_text() for item in build_items(source.units, rows)]
        done = [json.loads(actor({"item": [item]})["answer"][0])["value"] for item in items]
        assert sum(answer["rows"] for answer in done) == rows
        return judge(done, rules)

    return call


def failed(gates: list[Gate]) -> set[str]:
    return {gate.name for gate in gates if not gate.passed}


class TestGates:
    @pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
    def test_a_good_model_passes_all(self, run: Callable[..., list[Gate]], source: Source, format: str) -> None:
        gates = run("good", source, format=format)
        assert failed(gates) == set()
        assert {gate.name for gate in gates} == {
            "bad rows", "not finite", "unreadable", "constant", "black", "identity", "content similarity",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("model", "wanted"),
        [
            ("not finite", {"bad rows", "not finite"}),
            ("black", {"black", "constant", "content similarity"}),
            ("content similarity", {"content similarity"}),
        ],
    )
    def test_a_bad_model_fails_the_gates_that_are_meant_for_it(
        self, run: Callable[..., list[Gate]], source: Source, model: str, wanted: set[str]
    ) -> None:
        assert failed(run(model, source, format="jpeg")) == wanted

    @pytest.mark.parametrize(("strength", "wanted"), [(1.0, {"identity"}), (0.1, {"identity"}), (0.0, set())])
    @pytest.mark.parametrize("format", ["jpeg", "png"])
    def test_what_gives_the_source_back_is_found_where_a_style_was_wanted(
        self,
        run: Callable[..., list[Gate]],
        photos: dict[str, np.ndarray],
        tmp_path: Path,
        strength: float,
        wanted: set[str],
        format: str,
    ) -> None:
        """A moments model whose style is the picture itself."""
        for number in range(32):
            path = tmp_path / "same" / f"{number:02d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(photos["coffee"][:SIDE_PX, :SIDE_PX]).save(path)
        same = plan_source(str(tmp_path / "same"), 200_000)
        assert failed(run("identity", same, strength=strength, format=format)) == wanted

    def test_a_weak_style_is_no_identity(self, run: Callable[..., list[Gate]], source: Source) -> None:
        assert failed(run("good", source, strength=0.05, format="png")) == set()

    @pytest.mark.parametrize("variants", [1, "each"])
    def test_sources_that_go_along_are_not_the_models_work(
        self, models: dict, source: Source, tmp_path: Path, variants: object
    ) -> None:
        settings = settings_for(models, "good", str(tmp_path / "out"))
        drawing = replace(settings.drawing, variants=variants, include_source=True)
        answer = CanaryWorker(replace(settings, drawing=drawing)).do(build_items(source.units, 32)[0])
        assert answer["images"] == answer["rows"] == len(answer["measures"]["identity"]) > 0
        assert not any(answer["measures"]["identity"])

    def test_sources_of_one_colour_may_stay_so(self, run: Callable[..., list[Gate]], tmp_path: Path) -> None:
        for number in range(32):
            path = tmp_path / "flat" / f"{number:02d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), 3 if number % 2 else 250, np.uint8)).save(path)
        gates = run("good", plan_source(str(tmp_path / "flat"), 10**6))
        assert failed(gates) == set() and "constant" not in {gate.name for gate in gates}

    def test_the_pace_is_a_gate_only_where_somebody_counts_on_one(
        self, run: Callable[..., list[Gate]], source: Source
    ) -> None:
        assert failed(run("good", source, replace(RULES, assumed_rate=1e9))) == {"images/s of a worker"}
        assert failed(run("good", source, replace(RULES, assumed_rate=1e-3))) == set()

    def test_a_stricter_floor_is_the_users(self, run: Callable[..., list[Gate]], source: Source) -> None:
        assert failed(run("good", source, replace(RULES, min_similarity=1.0))) == {"content similarity"}

    @pytest.mark.parametrize(("bad", "wanted"), [(1, set()), (4, {"bad rows"}), (40, {"bad rows"})])
    def test_one_bad_row_of_forty_is_no_proof_of_a_bad_source(
        self, run: Callable[..., list[Gate]], source: Source, tmp_path: Path, bad: int, wanted: set[str]
    ) -> None:
        folder = tmp_path / "some bad"
        folder.mkdir()
        for number, path in enumerate(sorted(Path(source.units[0].source_uri).iterdir())):
            (folder / path.name).write_bytes(b"not a picture" if number < bad else path.read_bytes())
        gates = run("good", plan_source(str(folder), 200_000), replace(RULES, max_bad=1.0 if bad == 40 else 0.005))
        assert failed(gates) == wanted

    def test_pairs_are_kept_and_no_data(self, run: Callable[..., list[Gate]], source: Source, tmp_path: Path) -> None:
        run("black", source)
        kept = sorted((tmp_path / "out" / "_stylejobs" / "canary").iterdir())
        assert len(kept) == 8 and {path.suffix for path in kept} == {".jpg"}
        pair = np.asarray(Image.open(kept[0]))
        assert pair.shape[1] >= 2 * SIDE_PX and pair[:, -SIDE_PX:-8].mean() < 20 < pair[:, 8:SIDE_PX].mean()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["_stylejobs"]


def unit(file: int, number: int, rows: int | None) -> Unit:
    return Unit("parquet", f"/data/{file}.parquet", f"{file}.parquet", "tag", 10**6, rows, (number, number + 1))


units_of_files = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=6), min_size=1, max_size=12).map(
    lambda files: [unit(file, n, rows) for file, counts in enumerate(files) for n, rows in enumerate(counts)]
)


class TestWhichRows:
    @given(units_of_files, st.floats(0.001, 1))
    def test_as_many_rows_as_wanted_of_as_many_files_as_that_allows(self, units: list[Unit], share: float) -> None:
        total = sum(unit.num_rows for unit in units)
        wanted = count_canary_rows(share, units)
        assert min(total, 32) <= wanted <= total and wanted >= min(total, share * total)
        items = build_items(units, wanted)
        rows = sum(item.part["rows"] for item in items)
        held = sum(unit.num_rows for unit in units if any(item.unit.source_uri == unit.source_uri for item in items))
        assert rows <= wanted and (rows == wanted or all(i.part["rows"] == whole(i.unit, units) for i in items))
        assert rows > 0 and held > 0
        num_files = len({file_of(unit) for unit in units})
        assert len({file_of(item.unit) for item in items}) == min(num_files, len(items))
        assert len({item.index for item in items}) == len(items)

    @pytest.mark.parametrize(
        ("share", "rows", "wanted"),
        [("auto", 9_999, 0), ("auto", 10_000, 32), ("auto", 50_000_000, 50_000), (0.0, 10**6, 0), (0.5, 10, 10)],
    )
    def test_small_jobs_go_without(self, share: float | str, rows: int, wanted: int) -> None:
        assert count_canary_rows(share, [unit(0, 0, rows)]) == wanted

    def test_tars_do_not_say_how_many_rows_they_hold(self) -> None:
        tar = Unit("tar", "/a.tar", "a.tar", "tag", 2 * 10**9)
        assert count_canary_rows("auto", [tar]) == 32
        assert build_items([tar], 32)[0].part["rows"] == 32

    def test_a_unit_is_narrowed_to_what_holds_the_rows(self) -> None:
        parquet = replace(unit(0, 0, 100), row_groups=(2, 12), first_row=50)
        assert narrow(parquet, 11).row_groups == (2, 4) and narrow(parquet, 11).first_row == 50
        assert narrow(parquet, 1000).row_groups == (2, 12)
        files = Unit("files", "/a", "", "t", 1, 9, files=tuple("abcdefghi"), labels={"label": list("ABCDEFGHI")})
        assert narrow(files, 1).files == ("b", "d", "f", "h") and narrow(files, 1).labels == {"label": list("BDFH")}

    def test_rows_of_all_sizes_are_taken(self) -> None:
        images = [png(np.random.default_rng(n).integers(0, 256, (8 + 8 * n, 8, 3), np.uint8)) for n in range(9)]
        rows = rows_of(images, pa.table({"n": list(range(9))}))
        taken = take_rows(rows, 3)
        assert taken.keys == ["k1", "k4", "k7"] and taken.carried["n"].to_pylist() == [1, 4, 7]
        assert taken.images == [images[n] for n in (1, 4, 7)]

    @given(st.lists(st.integers(), min_size=1, unique=True), st.integers(1, 30))
    def test_even_samples_are_in_order_and_as_many_as_there_are(self, items: list[int], count: int) -> None:
        taken = take_evenly(items, count)
        assert len(taken) == min(count, len(items)) == len(set(taken))
        assert taken == [item for item in items if item in set(taken)]

    def test_a_small_file_is_not_passed_over(self) -> None:
        units = [unit(0, n, 10) for n in range(100)] + [unit(1, 0, 1)]
        assert {file_of(one) for one in spread_over_files(units, 4)} == {"/data/0.parquet", "/data/1.parquet"}


def whole(narrowed: Unit, units: list[Unit]) -> int:
    """Rows of the unit that was narrowed."""
    first = (narrowed.source_uri, narrowed.row_groups[0])
    return next(unit.num_rows for unit in units if (unit.source_uri, unit.row_groups[0]) == first)


def test_a_dest_in_which_only_the_canary_failed_is_free_for_a_better_model(tmp_path: Path) -> None:
    books = tmp_path / "_stylejobs"
    write_json(str(books / "plan.json"), {"identity": {"model": "bad"}})
    assert not was_refused(str(tmp_path))
    write_json(str(books / "canary.json"), {"passed": False})
    assert was_refused(str(tmp_path)) and find_differences(str(tmp_path), {"model": "good"}) == []
    (books / "units").mkdir()
    (books / "units" / "ab.json").write_text("{}")
    assert not was_refused(str(tmp_path))
    (books / "units" / "ab.json").unlink()
    write_json(str(books / "canary.json"), {"passed": True})
    assert not was_refused(str(tmp_path))
