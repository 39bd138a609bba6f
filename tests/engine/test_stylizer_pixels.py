"""What the stylizing worker makes of pixels: strength, colour, sharpening, formats."""

import hashlib
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from stylejobs.core.match import embed
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.core.sharpness import Deblur, blur_score
from stylejobs.engine.stylizer import Stylizer
from stylejobs.records.lineage import Drawing
from stylejobs.storage.packages import load_package
from tests.engine.stylizing import SIZES, changed, convert, decoded, pixels, png, rows_of, run, settings_for


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
        (drawn,) = Drawing(7, dict.fromkeys(("red", "blue", "green"), 1.0), strength=0.5).draw("k0")
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
        worker = Stylizer(changed(settings_for(packages, model, "/unused"), **changes))
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
        (found,), _ = run(Stylizer(changed(usual, preserve_colour=True, strength=strength)), [source])
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
