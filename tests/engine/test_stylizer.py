"""The stylizing worker, without Ray: every row once, in order, the same pixels whenever it is done again."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from stylejobs.core.match import embed, fit_match
from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.core.sharpness import Deblur, blur_score
from stylejobs.engine import stylizer
from stylejobs.engine.stylizer import Stylizer, StylizeSettings
from stylejobs.engine.writer import Converted, Stopwatch, WriteSettings, schema_to_text
from stylejobs.errors import DecodeError, ModelError, RowError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import draw
from stylejobs.records.schema import DEAD_LETTER, STYLIZED_FIELDS
from stylejobs.storage.packages import LoadedPackage, Package, load_package, save_package
from stylejobs.storage.reading import UnitRows
from stylejobs.storage.sources import plan_source
from stylejobs.storage.units import digest, read_markers

NO_COLUMNS = pa.schema([])
SIZES = [(16, 24), (17, 23), (24, 16)]


def pixels(number: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels_HWC: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC).save(sink, "PNG")
    return sink.getvalue()


def rows_of(images: list[bytes | RowError], carried: pa.Table | None = None) -> UnitRows:
    keys = [f"k{number}" for number in range(len(images))]
    if carried is None:
        carried = pa.table({"row": list(range(len(images)))}).select([])
    positions = [(0, number) for number in range(len(images))]
    return UnitRows(keys, images, keys, positions, ["/source"] * len(images), carried)


def decoded(row: dict) -> np.ndarray:
    return decode_image(row["image"]["bytes"], Limits(min_side_px=1, max_aspect=1e6))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Package]]:
    """name -> folder and description of each model."""
    root = tmp_path_factory.mktemp("packages")

    def save(name: str, network: str, options: dict, weights: dict, styles: dict, match=None) -> tuple[str, Package]:
        return str(root / name), save_package(str(root / name), network, options, weights, styles, {}, match)

    torch.manual_seed(0)
    tiny = {"width": 4, "blocks": 1}
    weights = build_network("johnson", **tiny).state_dict()
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    moments = build_network("moments")
    codes = {name: moments.encode_style(torch.rand(1, 3, 8, 8) * 2 - 1)[0] for name in ("red", "blue", "green")}
    none = {"mosaic": torch.zeros(0)}
    content = [to_float(torch.from_numpy(pixels(n) // (1 + n % 3))[None]) for n in range(100, 120)]
    colours = {"red": (250, 20, 30), "blue": (20, 30, 250), "green": (20, 250, 30)}
    flat = {name: np.broadcast_to(np.uint8(rgb), (16, 24, 3)).copy() for name, rgb in colours.items()}
    match = fit_match(content, {name: [to_float(torch.from_numpy(image)[None])] for name, image in flat.items()})
    return {
        "johnson": save("johnson", "johnson", tiny, weights, none),
        "broken": save("broken", "johnson", tiny, broken, none),
        "moments": save("moments", "moments", {}, {}, codes),
        "matched": save("matched", "moments", {}, {}, codes, match),
        "one bad style": save("half", "moments", {}, {}, {**codes, "nan": torch.full((6,), torch.nan)}),
    }


def settings_for(packages: dict, model: str, dest: str, carried: pa.Schema = NO_COLUMNS) -> StylizeSettings:
    folder, package = packages[model]
    return StylizeSettings(
        write=WriteSettings(dest, schema_to_text(carried), 10**8, 10**6),
        package_uri=folder,
        model_name="demo",
        model_version="3",
        model_sha256="base",
        package_sha256=package.sha256,
        styles=package.styles,
        variants=1,
        strength=1.0,
        seed=0,
        short_side_px=None,
        format="png",
        quality=90,
        micro_batch=3,
        precision="float32",
        limits=Limits(),
    )


@pytest.fixture
def build(packages: dict[str, tuple[str, Package]], tmp_path: Path) -> Callable[..., Stylizer]:
    """A worker: build("moments", variants=2)."""

    def call(model: str = "moments", carried: pa.Schema = NO_COLUMNS, **changes: object) -> Stylizer:
        return Stylizer(replace(settings_for(packages, model, str(tmp_path / "out"), carried), **changes))

    return call


@pytest.fixture
def build_spying(build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stylizer]:
    """A worker whose generator inverts, is not finite for the pixels that `is_bad` names, and remembers batches."""

    class Inverting(nn.Module):
        def __init__(self, is_bad: Callable[[Tensor], bool]):
            super().__init__()
            self.is_bad, self.batches = is_bad, []

        def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
            self.batches.append(content_BCHW)
            made_BCHW = -content_BCHW
            for image_CHW, content_CHW in zip(made_BCHW, content_BCHW, strict=True):
                if self.is_bad(content_CHW):
                    image_CHW[0, 0, 0] = torch.inf
            return made_BCHW

    def call(is_bad: Callable[[Tensor], bool] = lambda content_CHW: False, **changes: object) -> Stylizer:
        generator = Inverting(is_bad)
        package = Package("spy", {}, ("only",))
        loaded = LoadedPackage(package, generator, {"only": torch.zeros(0)})
        monkeypatch.setattr(stylizer, "load_package", lambda uri, sha256: loaded)
        worker = build(**changes, styles=("only",))
        worker.batches = generator.batches
        return worker

    return call


def convert(worker: Stylizer, rows: UnitRows) -> tuple[list[dict], Converted]:
    converted = worker.convert(rows, Stopwatch())
    return converted.table.to_pylist(), converted


class TestPixels:
    @pytest.mark.parametrize("model", ["johnson", "moments"])
    def test_strength_zero_gives_the_source_exactly(self, build: Callable[..., Stylizer], model: str) -> None:
        sources = [pixels(n, *SIZES[n % 3]) for n in range(7)]
        made, _ = convert(build(model, strength=0.0), rows_of([png(p) for p in sources]))
        assert all(np.array_equal(decoded(row), p) for row, p in zip(made, sources, strict=True))

    def test_strength_blends_between_source_and_style(self, build_spying: Callable[..., Stylizer]) -> None:
        source = pixels(0)
        for strength, wanted in ((0.0, source), (1.0, 255 - source), (0.25, 0.75 * source + 0.25 * (255.0 - source))):
            (row,), _ = convert(build_spying(strength=strength), rows_of([png(source)]))
            assert np.abs(decoded(row) - wanted).max() <= 0.51
            assert row["strength"] == strength

    def test_the_generator_is_given_the_rows_own_style(self, build: Callable[..., Stylizer]) -> None:
        worker = build(variants=3, micro_batch=4)
        sources = [pixels(n) for n in range(5)]
        made, _ = convert(worker, rows_of([png(p) for p in sources]))
        for row in made:
            alone, _ = convert(build(styles=(row["style"],)), rows_of([png(sources[int(row["key"][1:])])]))
            assert np.abs(decoded(row).astype(int) - decoded(alone[0])).max() <= 1
        by_key = {row["key"]: {r["style"] for r in made if r["key"] == row["key"]} for row in made}
        assert all(styles == {"red", "blue", "green"} for styles in by_key.values())

    @pytest.mark.parametrize(("format", "ending"), [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
    def test_format_size_and_lineage_are_what_was_asked_for(
        self, build: Callable[..., Stylizer], format: str, ending: str
    ) -> None:
        image = png(pixels(0, 40, 20))
        (row,), _ = convert(build(format=format, short_side_px=10, seed=7, strength=0.5), rows_of([image]))
        data = row["image"]["bytes"]
        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.format.lower(), opened.size) == (format, (10, 20))
        drawn = draw(7, "k0", 0, ("red", "blue", "green"), 0.5)
        assert row == {
            "image": {"bytes": data, "path": f"k0.{ending}"},
            "key": "k0",
            "source_uri": "/source",
            "source_sha256": hashlib.sha256(image).hexdigest(),
            "style": drawn.style,
            "strength": 0.5,
            "variant": 0,
            "seed": drawn.seed,
            "model_name": "demo",
            "model_version": "3",
            "model_sha256": "base",
            "width": 10,
            "height": 20,
            "out_sha256": hashlib.sha256(data).hexdigest(),
            "is_synthetic": True,
            "blur_score": row["blur_score"],
        }
        assert row["blur_score"] > 0

    def test_bf16_is_near_to_float32(self, build: Callable[..., Stylizer]) -> None:
        rows = rows_of([png(pixels(0))])
        (half,), _ = convert(build("johnson", precision="bf16"), rows)
        (full,), _ = convert(build("johnson"), rows)
        difference = np.abs(decoded(half).astype(int) - decoded(full))
        assert difference.max() > 0 and difference.mean() < 5


def run(worker: Stylizer, images: list[np.ndarray]) -> tuple[list[np.ndarray], list[dict]]:
    made, converted = convert(worker, rows_of([png(image) for image in images]))
    assert not converted.errors
    return [decoded(row) for row in made], made


class TestStrength:
    """y = x + strength (G(x) - x)."""

    @settings(max_examples=20, deadline=None)
    @given(
        st.integers(0, 999),
        st.sampled_from(["johnson", "moments", "broken"]),
        st.sampled_from([None, Deblur("wiener"), Deblur("unsharp", below=9.0)]),
        st.booleans(),
        st.sampled_from(["float32", "bf16"]),
    )
    def test_law_zero_is_the_source_whatever_else_is_set(
        self, packages: dict, seed: int, model: str, deblur: Deblur | None, colour: bool, precision: str
    ) -> None:
        changes = {"strength": 0.0, "deblur": deblur, "preserve_colour": colour, "precision": precision}
        worker = Stylizer(replace(settings_for(packages, model, "/unused"), **changes))
        sources = [pixels(seed + n, *SIZES[n % 3]) for n in range(4)]
        found, rows = run(worker, sources)
        assert all(np.array_equal(a, b) for a, b in zip(found, sources, strict=True))
        assert {row["strength"] for row in rows} == {0.0}

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 999))
    def test_law_one_is_the_generator(self, packages: dict, seed: int) -> None:
        folder, _ = packages["johnson"]
        generator, source = load_package(folder).generator, pixels(seed)
        (found,), _ = run(Stylizer(settings_for(packages, "johnson", "/unused")), [source])
        with torch.inference_mode():
            wanted = to_uint8(generator(to_float(torch.from_numpy(source)[None]), torch.zeros(1, 0)))[0].numpy()
        assert np.abs(found.astype(int) - wanted).max() <= 1

    def test_rows_of_strength_zero_are_not_given_to_the_generator(self, build_spying: Callable[..., Stylizer]) -> None:
        worker = build_spying(strength=0.0)
        run(worker, [pixels(n) for n in range(3)])
        assert worker.batches == []

    def test_auto_is_the_match_of_each_row_with_its_style(self, build: Callable[..., Stylizer], packages: dict) -> None:
        match = load_package(packages["matched"][0]).match
        noise = [pixels(n) for n in range(3)]
        styled = [np.full((16, 24, 3), (250, 20, 30), np.uint8)]
        found, rows = run(build("matched", strength="auto", variants=3, micro_batch=2), noise + styled)
        for row, image in zip(rows, found, strict=True):
            source = (noise + styled)[int(row["key"][1:])]
            embedding_BD = embed(to_float(torch.from_numpy(source)[None]))
            assert row["strength"] == pytest.approx(match.strength(embedding_BD, row["style"]).item(), abs=1e-6)
            fixed = build("matched", strength=row["strength"], styles=(row["style"],))
            assert np.abs(image.astype(int) - run(fixed, [source])[0][0]).max() <= 1
        of_red = {row["key"]: row["strength"] for row in rows if row["style"] == "red"}
        assert of_red["k3"] < 0.01 < 0.2 < min(of_red[key] for key in ("k0", "k1", "k2"))
        assert len({row["strength"] for row in rows}) > 4

    def test_auto_is_a_function_of_the_row_alone(self, build: Callable[..., Stylizer]) -> None:
        sources = [pixels(n) for n in range(5)]
        _, together = run(build("matched", strength="auto", micro_batch=5, codec_threads=3), sources)
        for number, row in enumerate(together):
            worker = build("matched", strength="auto", styles=(row["style"],))
            (alone,) = run(worker, [sources[number]])[1]
            assert (alone["strength"], alone["blur_score"]) == (row["strength"], row["blur_score"])


class TestColour:
    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 999), st.floats(0.05, 1.0))
    def test_law_chroma_is_the_sources_where_nothing_is_clipped(
        self, packages: dict, seed: int, strength: float
    ) -> None:
        source = (pixels(seed) // 4 + 96).astype(np.uint8)
        usual = settings_for(packages, "johnson", "/unused")
        (found,), _ = run(Stylizer(replace(usual, preserve_colour=True, strength=strength)), [source])
        difference = found.astype(int) - source
        inside = ((found > 0) & (found < 255)).all(axis=2)
        assert np.ptp(difference, axis=2)[inside].max(initial=0) <= 1  # one rounding
        assert inside.any() and np.abs(difference).max() > 0

    def test_luma_is_that_of_the_stylized_picture(self, build_spying: Callable[..., Stylizer]) -> None:
        source = (pixels(0) // 8 + 112).astype(np.uint8)
        (found,), _ = run(build_spying(preserve_colour=True), [source])
        weights = np.array([0.299, 0.587, 0.114])
        assert np.abs(found @ weights - (255 - source) @ weights).max() <= 0.51


class TestBlur:
    @pytest.fixture
    def sharp_and_blurred(self, photos: dict[str, np.ndarray]) -> list[np.ndarray]:
        sharp = [photos[name][100:196, 120:248] for name in ("coffee", "chelsea")]
        soft = [gaussian_filter(image.astype(float), (2.0, 2.0, 0)).round().astype(np.uint8) for image in sharp]
        return [np.ascontiguousarray(image) for image in [*sharp, *soft]]

    def test_the_score_is_a_column(self, build: Callable[..., Stylizer], sharp_and_blurred: list) -> None:
        _, rows = run(build(), sharp_and_blurred)
        scores = [row["blur_score"] for row in rows]
        wanted = [blur_score(to_float(torch.from_numpy(image)[None])).item() for image in sharp_and_blurred]
        assert scores == wanted and max(scores[2:]) < min(scores[:2])

    @pytest.mark.parametrize("method", ["wiener", "unsharp"])
    def test_the_generator_is_given_sharpened_pictures_of_the_blurry_rows(
        self, build_spying: Callable[..., Stylizer], sharp_and_blurred: list, method: str
    ) -> None:
        images = [to_float(torch.from_numpy(image)[None]) for image in sharp_and_blurred]
        scores = [blur_score(image).item() for image in images]
        between = (max(scores[2:]) + min(scores[:2])) / 2
        for below, expected in ((None, [1, 1, 1, 1]), (between, [0, 0, 1, 1]), (1e-9, [0, 0, 0, 0])):
            deblur = Deblur(method, below=below, sigma_px=2.0)
            worker = build_spying(deblur=deblur, micro_batch=4)
            run(worker, sharp_and_blurred)
            (batch,) = worker.batches
            for seen, image, sharpened in zip(batch, images, expected, strict=True):
                assert torch.allclose(seen, deblur(image)[0] if sharpened else image[0], atol=1e-5)


class TestOrder:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.integers(0, 3), min_size=0, max_size=9), st.integers(1, 3), st.integers(1, 4))
    def test_rows_come_out_in_source_order_each_copy_once(
        self, packages: dict, kinds: list[int], variants: int, micro_batch: int
    ) -> None:
        images = [b"no image" if kind == 3 else png(pixels(n, *SIZES[kind])) for n, kind in enumerate(kinds)]
        usual = settings_for(packages, "moments", "/unused")
        worker = Stylizer(replace(usual, variants=variants, micro_batch=micro_batch))
        made, converted = convert(worker, rows_of(images))
        good = [n for n, kind in enumerate(kinds) if kind < 3]
        wanted = [(f"k{n}", variant) for n in good for variant in range(variants)]
        assert [(row["key"], row["variant"]) for row in made] == wanted
        assert [(row["height"], row["width"]) for row in made] == [
            SIZES[kinds[n]] for n in good for _ in range(variants)
        ]
        assert sorted(converted.errors) == [n for n, kind in enumerate(kinds) if kind == 3]

    def test_batches_hold_one_size_and_are_formed_in_source_order(self, build_spying: Callable[..., Stylizer]) -> None:
        sizes = [SIZES[kind] for kind in (0, 1, 0, 0, 1, 2, 1)]
        images = [png(np.full((*size, 3), 10 * n, np.uint8)) for n, size in enumerate(sizes)]
        worker = build_spying(micro_batch=2)
        convert(worker, rows_of(images))
        batches = [[round((float(image.min()) + 1) * 127.5) // 10 for image in batch] for batch in worker.batches]
        # Full batches as they fill, then what is left, in the order in which its sizes were met.
        assert batches == [[0, 2], [1, 4], [3], [5], [6]]

    def test_variants_draw_other_styles_and_seeds_and_go_round(self, build: Callable[..., Stylizer]) -> None:
        made, _ = convert(build(variants=5), rows_of([png(pixels(0)), png(pixels(1))]))
        for key in ("k0", "k1"):
            styles = [row["style"] for row in made if row["key"] == key]
            assert len(set(styles[:3])) == 3 and styles[3:] == styles[:2]
        assert len({row["seed"] for row in made}) == 10


class TestRepetition:
    @pytest.mark.parametrize("model", ["johnson", "moments"])
    def test_done_again_by_any_worker_it_gives_the_same_bytes(self, build: Callable[..., Stylizer], model: str) -> None:
        rows = rows_of([png(pixels(n, *SIZES[n % 2])) for n in range(9)])
        first, _ = convert(build(model, variants=2), rows)
        for codec_threads in (1, 2, 7):
            worker = build(model, variants=2, codec_threads=codec_threads)
            assert convert(worker, rows)[0] == convert(worker, rows)[0] == first

    def test_how_a_row_is_bad_changes_no_other_row(self, build: Callable[..., Stylizer]) -> None:
        images = [png(pixels(n, *SIZES[n % 2])) for n in range(8)]
        worker = build("johnson")

        def without(bad: bytes | RowError) -> list[dict]:
            return convert(worker, rows_of([*images[:2], bad, *images[3:]]))[0]

        first = without(b"no image")
        assert len(first) == 7
        assert without(images[2][:60]) == first == without(DecodeError("bomb", "not read"))

    def test_a_bad_row_of_a_size_of_its_own_changes_no_other_row(self, build: Callable[..., Stylizer]) -> None:
        images = [png(pixels(n, *SIZES[n % 2])) for n in range(8)]
        lonely = png(pixels(9, *SIZES[2]))
        worker = build("johnson")
        good, _ = convert(worker, rows_of([*images[:4], lonely, *images[4:]]))
        bad, _ = convert(worker, rows_of([*images[:4], b"", *images[4:]]))
        assert [row for row in good if row["key"] != "k4"] == bad

    def test_alone_in_its_batch_a_row_depends_on_no_other(self, build: Callable[..., Stylizer]) -> None:
        images = [png(pixels(n)) for n in range(4)]
        worker = build("johnson", micro_batch=1)
        good, _ = convert(worker, rows_of(images))
        for n in range(4):
            bad, _ = convert(worker, rows_of([b"" if n == m else image for m, image in enumerate(images)]))
            assert bad == [row for row in good if row["key"] != f"k{n}"]


class TestWaitingPixels:
    """Rows that wait for others of their size must not fill the memory."""

    @settings(max_examples=40, deadline=None)
    @given(
        kinds=st.lists(st.integers(8, 14), max_size=20),
        variants=st.integers(1, 3),
        micro_batch=st.integers(1, 8),
        bound=st.integers(50, 900),
    )
    def test_what_waits_stays_below_the_bound_and_every_copy_is_given_once(
        self, packages: dict, kinds: list[int], variants: int, micro_batch: int, bound: int
    ) -> None:
        usual = settings_for(packages, "moments", "/unused")
        worker = Stylizer(replace(usual, variants=variants, micro_batch=micro_batch))
        taken = given = 0
        peak = 0

        def rows() -> Iterator[tuple[int, stylizer._Source]]:
            nonlocal taken, peak
            for row, side in enumerate(kinds):
                peak = max(peak, taken - given)  # asked for the next row: all that it could give away it has
                taken += variants * side * side
                yield row, stylizer._Source(np.zeros((side, side, 3), np.uint8), 0.0, 1.0)

        batches = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stylizer, "_MAX_WAITING_PIXELS", bound)
            for batch in worker._batches(rows(), [f"k{row}" for row in range(len(kinds))]):
                given += sum(copy.source.pixels_HWC[..., 0].size for copy in batch)
                batches.append(batch)
        assert peak <= bound
        copies = sorted((copy.row, copy.draw.variant) for batch in batches for copy in batch)
        assert copies == [(row, variant) for row in range(len(kinds)) for variant in range(variants)]
        assert all(len({copy.source.pixels_HWC.shape for copy in batch}) == 1 for batch in batches)
        assert all(1 <= len(batch) <= micro_batch for batch in batches)

    def test_variants_do_not_multiply_the_bound(
        self, build_spying: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stylizer, "_MAX_WAITING_PIXELS", 1000)
        worker = build_spying(variants=16, micro_batch=16)
        convert(worker, rows_of([png(pixels(0, 20, 20))]))
        assert max(batch[:, 0].numel() for batch in worker.batches) <= 1000 + 400

    def test_the_bound_changes_no_pixel_of_a_generator_that_takes_rows_one_by_one(
        self, build_spying: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = rows_of([png(pixels(n, *SIZES[n % 3])) for n in range(8)])
        free, _ = convert(build_spying(), rows)
        monkeypatch.setattr(stylizer, "_MAX_WAITING_PIXELS", 500)
        worker = build_spying()
        assert convert(worker, rows)[0] == free
        assert max(len(batch) for batch in worker.batches) == 1


class TestBadRows:
    def test_weights_that_are_not_numbers_make_every_row_a_dead_letter(self, build: Callable[..., Stylizer]) -> None:
        for strength in (1.0, 0.001):
            made, converted = convert(build("broken", strength=strength), rows_of([png(pixels(n)) for n in range(4)]))
            assert made == [] and sorted(converted.errors) == [0, 1, 2, 3]
            assert {(error.stage, error.reason) for error in converted.errors.values()} == {("generate", "non_finite")}

    def test_one_infinite_pixel_costs_its_row_and_no_other_of_the_batch(
        self, build_spying: Callable[..., Stylizer]
    ) -> None:
        images = [pixels(n) for n in range(6)]
        images[4][0, 0] = (255, 0, 255)
        worker = build_spying(lambda content_CHW: content_CHW[:, 0, 0].tolist() == [1.0, -1.0, 1.0])
        made, converted = convert(worker, rows_of([png(p) for p in images]))
        assert list(converted.errors) == [4] and converted.errors[4].reason == "non_finite"
        assert [row["key"] for row in made] == ["k0", "k1", "k2", "k3", "k5"]
        assert all(np.array_equal(decoded(row), 255 - images[int(row["key"][1:])]) for row in made)

    def test_one_bad_copy_takes_its_row_and_rows_that_did_not_draw_it_stay(
        self, build: Callable[..., Stylizer]
    ) -> None:
        rows = rows_of([png(pixels(n)) for n in range(12)])
        styles = [draw(0, key, 0, ("red", "blue", "green", "nan"), 1.0).style for key in rows.keys]
        made, converted = convert(build("one bad style"), rows)
        assert sorted(converted.errors) == [n for n, style in enumerate(styles) if style == "nan"] != []
        assert [row["style"] for row in made] == [style for style in styles if style != "nan"]
        made, converted = convert(build("one bad style", variants=4), rows)
        assert made == [] and len(converted.errors) == 12

    def test_each_stage_names_itself(self, build: Callable[..., Stylizer]) -> None:
        long = np.zeros((9, 16_400, 3), np.uint8)  # webp ends at 16383
        images = [png(pixels(0)), b"text", png(long), png(pixels(1))[:100], DecodeError("bomb", "too large")]
        worker = build(format="webp", limits=Limits(max_aspect=10_000))
        made, converted = convert(worker, rows_of(images))
        assert [row["key"] for row in made] == ["k0"]
        found = {row: (error.stage, error.reason) for row, error in converted.errors.items()}
        assert found == {
            1: ("decode", "not_an_image"),
            2: ("encode", "encode"),
            3: ("decode", "truncated"),
            4: ("decode", "bomb"),
        }

    def test_limits_hold(self, build: Callable[..., Stylizer]) -> None:
        worker = build(limits=Limits(min_side_px=16, max_megapixels=16 * 24 / 1e6))
        _, converted = convert(worker, rows_of([png(pixels(0)), png(pixels(0, 15, 20)), png(pixels(0, 16, 25))]))
        assert {row: error.reason for row, error in converted.errors.items()} == {1: "too_small", 2: "bomb"}

    def test_carried_columns_stay_with_their_rows(self, build: Callable[..., Stylizer]) -> None:
        images = [b"" if n % 3 == 1 else png(pixels(n, *SIZES[n % 2])) for n in range(9)]
        carried = pa.table(
            {
                "label": pa.array([f"label {n}" for n in range(9)]).dictionary_encode(),
                "boxes": [[[float(n)]] for n in range(9)],
                "style": [f"theirs {n}" for n in range(9)],
                "width": [1000 + n for n in range(9)],
                "extra": pa.array([{"a": n} if n % 2 else None for n in range(9)]),
            }
        )
        made, converted = convert(build(variants=2, carried=carried.schema), rows_of(images, carried))
        names = [field.name for field in STYLIZED_FIELDS]
        assert converted.table.schema.names == [*names, "label", "boxes", "source_style", "extra"]
        assert len(made) == 12
        for row in made:
            n = int(row["key"][1:])
            assert (row["label"], row["boxes"], row["source_style"]) == (f"label {n}", [[float(n)]], f"theirs {n}")
            assert row["extra"] == ({"a": n} if n % 2 else None) and row["width"] in (23, 24)

    def test_a_unit_without_rows_and_one_without_good_rows(self, build: Callable[..., Stylizer]) -> None:
        for rows in (rows_of([]), rows_of([b""] * 3)):
            made, converted = convert(build(), rows)
            assert made == [] and len(converted.errors) == len(rows)
            assert converted.table.schema.names == [field.name for field in STYLIZED_FIELDS]


def test_a_package_that_is_not_the_planned_one_is_refused(build: Callable[..., Stylizer]) -> None:
    with pytest.raises(ModelError, match="wanted the model"):
        build(package_sha256="0" * 64)


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
        assert read_markers(str(tmp_path / "out"), [digest("unit")]) == {digest("unit"): marker}
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
