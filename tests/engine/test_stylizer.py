"""The stylizing worker, without Ray: every row once, in order, the same pixels whenever it is done again."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.engine import stylizer
from stylejobs.engine.decoding import Source
from stylejobs.engine.stylizer import Stylizer
from stylejobs.errors import DecodeError, ModelError, RowError
from stylejobs.records.codec import Limits
from stylejobs.records.lineage import Drawing
from stylejobs.records.schema import STYLIZED_FIELDS
from tests.engine.stylizing import SIZES, changed, convert, decoded, pixels, png, rows_of, settings_for


class TestOrder:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.integers(0, 3), min_size=0, max_size=9), st.integers(1, 3), st.integers(1, 4))
    def test_rows_come_out_in_source_order_each_copy_once(
        self, packages: dict, kinds: list[int], variants: int, micro_batch: int
    ) -> None:
        images = [b"no image" if kind == 3 else png(pixels(n, *SIZES[kind])) for n, kind in enumerate(kinds)]
        usual = settings_for(packages, "moments", "/unused")
        worker = Stylizer(changed(usual, variants=variants, micro_batch=micro_batch))
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
        worker = Stylizer(changed(usual, variants=variants, micro_batch=micro_batch))
        taken = given = 0
        peak = 0

        def rows() -> Iterator[list[stylizer._Copy]]:
            nonlocal taken, peak
            for row, side in enumerate(kinds):
                peak = max(peak, taken - given)  # asked for the next row: all that it could give away it has
                taken += variants * side * side
                source = Source(np.zeros((side, side, 3), np.uint8), 0.0, {})
                yield [stylizer._Copy(row, one, source) for one in worker._s.drawing.draw(f"k{row}")]

        batches = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stylizer, "_MAX_WAITING_PIXELS", bound)
            for batch in worker._batches(rows()):
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
        drawing = Drawing(0, dict.fromkeys(("red", "blue", "green", "nan"), 1.0))
        styles = [drawing.draw(key)[0].style for key in rows.keys]
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
