"""Training sets of every kind: what is planned, which rows come out, and which sample is shown to the method."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stylejobs.core.views import ViewOptions
from stylejobs.engine.datasets import CropSettings, TrainingBatch, iterate_batches
from stylejobs.engine.image_order import Place
from stylejobs.engine.training_reader import open_orders
from stylejobs.engine.training_sets import (
    TrainingSet,
    place_name,
    plan_content,
    plan_style,
    read_rows,
    sample_images,
    unique_names,
)
from stylejobs.errors import SourceError, StyleError
from stylejobs.records.batches import TRAINING_FIELDS
from stylejobs.records.codec import Limits

MAX_BYTES = 2**20


def jpeg(seed: int, mode: str = "RGB", side: int = 40) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(sink, "PNG" if mode == "RGBA" else "JPEG")
    return sink.getvalue()


def write_folder(folder: Path, names: dict[str, bytes]) -> str:
    for name, data in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def write_tar(path: Path, names: dict[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def write_shards(folder: Path, labels: list[str | int | None] | None, count: int = 6) -> str:
    """Two files, as ingest writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (0, 1):
        rows = range(part * count // 2, (part + 1) * count // 2)
        columns = {
            "image": [{"bytes": jpeg(row), "path": f"{row}.jpg"} for row in rows],
            "key": [f"art/{row}.jpg" for row in rows],
        }
        if labels:
            columns["label"] = [labels[row] for row in rows]
        pq.write_table(pa.table(columns), folder / f"part-{part}.parquet", row_group_size=2)
    return str(folder)


def rows_of(planned: TrainingSet) -> list[dict]:
    return [
        row
        for unit in planned.source.units
        for row in read_rows(
            {"number": [7], "unit": [json.dumps(asdict(unit))]}, planned.labelling, MAX_BYTES, None
        ).to_pylist()
    ]


class TestPlan:
    def test_folders_of_images_are_domains_where_labels_are_read(self, tmp_path: Path) -> None:
        names = ["monet/b.jpg", "monet/a.png", "deep/cezanne (late)/c.jpg", "loose.jpg"]
        uri = write_folder(tmp_path / "art.v2", {name: jpeg(n) for n, name in enumerate(names)})
        planned = plan_style(uri, None, labelled=True)
        assert planned.names == {1: "art.v2", 2: "cezanne-late", 3: "monet"}
        assert planned.counts == {1: 1, 2: 1, 3: 2}
        assert {row["key"]: row["domain"] for row in rows_of(planned)} == {
            "deep/cezanne (late)/c.jpg": 2,
            "loose.jpg": 1,
            "monet/a.png": 3,
            "monet/b.jpg": 3,
        }
        one = plan_style(uri, None, labelled=False)
        assert (one.names, one.counts) == ({1: "art.v2"}, {1: 4})
        assert {row["domain"] for row in rows_of(one)} == {1}

    @pytest.mark.parametrize(
        ("labels", "names", "domains"),
        [
            (["b", "a", "a", "b", "c", "b"], {1: "a", 2: "b", 3: "c"}, [2, 1, 1, 2, 3, 2]),
            ([7, 7, 10, 10, 7, 7], {1: "10", 2: "7"}, [2, 2, 1, 1, 2, 2]),
            (["z", None, "z", None, "z", "z"], {1: "shards", 2: "z"}, [2, 1, 2, 1, 2, 2]),
            (None, {1: "shards"}, [1] * 6),
        ],
    )
    def test_labels_of_shards_are_domains_in_sorted_order(
        self, tmp_path: Path, labels: list | None, names: dict, domains: list[int]
    ) -> None:
        planned = plan_style(write_shards(tmp_path / "shards", labels), None, labelled=True)
        assert planned.names == names
        assert [row["domain"] for row in rows_of(planned)] == domains
        assert planned.counts == {number: domains.count(number) for number in names}

    def test_labels_that_become_the_same_name_are_kept_apart(self, tmp_path: Path) -> None:
        planned = plan_style(write_shards(tmp_path / "s", ["a b", "a-b", "a/b"] * 2), None, labelled=True)
        assert planned.counts == {1: 2, 2: 2, 3: 2} and len(set(planned.names.values())) == 3

    def test_one_image_is_a_set_of_one_whatever_its_name_ends_in(self, tmp_path: Path) -> None:
        for name, style in (
            ("starry night.jpg", "starry-night"),
            ("unnamed", "unnamed"),
            ("a.b.picture", "a.b.picture"),
        ):
            planned = plan_style(write_folder(tmp_path, {name: jpeg(0)}) + f"/{name}", None, labelled=False)
            assert planned.names == {1: style} and planned.counts == {1: 1}
            assert [row["image"] for row in rows_of(planned)] == [jpeg(0)]

    def test_tars_are_one_domain_of_unknown_size(self, tmp_path: Path) -> None:
        uri = write_tar(tmp_path / "w" / "a.tar", {"x.jpg": jpeg(0), "x.cls": b"3", "y.jpg": jpeg(1)})
        planned = plan_style(uri, None, labelled=True)
        assert planned.names == {1: "a"} and planned.counts == {} and planned.fits_in_memory
        assert [(row["key"], row["domain"]) for row in rows_of(planned)] == [("a/x", 1), ("a/y", 1)]
        assert rows_of(plan_content(uri, None))[0]["domain"] == 0

    @pytest.mark.parametrize("labelled", [True, False])
    def test_what_is_not_there_is_said(self, tmp_path: Path, labelled: bool) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(StyleError, match=r"absent: no such file or folder; wanted a style image"):
            plan_style(str(tmp_path / "absent"), None, labelled)
        with pytest.raises(StyleError, match=r"empty: wanted images .* found 0 file"):
            plan_style(str(tmp_path / "empty"), None, labelled)

    def test_the_image_column_is_that_of_the_content_and_of_the_style_where_it_has_it(self, tmp_path: Path) -> None:
        table = pa.table({"thumb": [jpeg(0)], "photo": [jpeg(1)]})
        pq.write_table(table, tmp_path / "x.parquet")
        assert plan_content(str(tmp_path / "x.parquet"), "photo").source.units[0].image_column == "photo"
        assert plan_style(str(tmp_path / "x.parquet"), "photo", False).source.units[0].image_column == "photo"
        shards = write_shards(tmp_path / "shards", None)
        assert plan_style(shards, "photo", False).source.units[0].image_column == "image"


class TestRows:
    def test_rows_are_of_their_fields_and_of_one_domain_where_that_is_asked(self, tmp_path: Path) -> None:
        planned = plan_style(write_shards(tmp_path / "shards", list("aabbab")), None, labelled=True)
        assert planned.units_of_domain == {1: (0, 1), 2: (0, 1)}
        unit = {"number": [5], "unit": [json.dumps(asdict(planned.source.units[0]))]}
        every, second = (read_rows(unit, planned.labelling, MAX_BYTES, domain) for domain in (None, 2))
        assert every.schema == pa.schema(TRAINING_FIELDS)
        assert every["unit"].to_pylist() == [5] * 3 and every["domain"].to_pylist() == [1, 1, 2]
        assert every["image"].to_pylist() == [jpeg(row) for row in range(3)]
        assert second["key"].to_pylist() == ["art/2.jpg"]

    def test_a_label_that_came_after_the_plan_is_an_error(self, tmp_path: Path) -> None:
        planned = plan_style(write_shards(tmp_path / "shards", ["a"] * 6), None, labelled=True)
        write_shards(tmp_path / "shards", ["a"] * 5 + ["new"])
        with pytest.raises(SourceError, match="label 'new' was not there when the training was planned"):
            rows_of(planned)

    def test_an_image_that_cannot_be_had_is_null(self, tmp_path: Path) -> None:
        planned = plan_content(
            write_folder(tmp_path / "f", {"a.jpg": jpeg(0), "big.png": b"x" * (MAX_BYTES + 1)}), None
        )
        assert [(row["key"], row["image"] is None) for row in rows_of(planned)] == [("a.jpg", False), ("big.png", True)]


class TestNames:
    def test_names_are_unique_and_plain(self) -> None:
        texts = ["a/x.jpg", "b/x.jpg", "b/x.png", "星.jpg", "  .jpg", "-_y.PNG", "Z z.tar.gz"]
        names = unique_names(texts)
        assert names == ["x", "b-x", "b-x-2", "style", "style-2", "y", "Z-z"]

    def test_places(self) -> None:
        assert place_name("s3://bucket/old.masters/") == "old.masters"
        assert place_name("a/b/Van Gogh.parquet") == "Van-Gogh"


class TestSample:
    def test_it_is_spread_evenly_over_the_sorted_set(self, tmp_path: Path) -> None:
        uri = write_folder(tmp_path / "art", {f"{n:02d}.jpg": jpeg(n) for n in range(20)})
        planned = plan_style(uri, None, False)
        found = sample_images(planned, Limits(), 4, evenly=True)
        assert list(found) == ["02.jpg", "07.jpg", "12.jpg", "17.jpg"] and found["07.jpg"] == jpeg(7)
        assert len(sample_images(planned, Limits(), 24, evenly=True)) == 20
        assert list(sample_images(planned, Limits(), 3, evenly=False)) == ["00.jpg", "01.jpg", "02.jpg"]

    @pytest.mark.parametrize("kind", ["folder", "shards", "tar"])
    def test_every_kind_of_set_is_sampled(self, tmp_path: Path, kind: str) -> None:
        names = {f"{n}.jpg": jpeg(n) for n in range(6)}
        make: dict[str, Callable[[], str]] = {
            "folder": lambda: write_folder(tmp_path / "f", names),
            "shards": lambda: write_shards(tmp_path / "s", None),
            "tar": lambda: write_tar(tmp_path / "t.tar", names),
        }
        found = sample_images(plan_style(make[kind](), None, False), Limits(), 3, evenly=True)
        assert list(found.values()) == [jpeg(1), jpeg(3), jpeg(5)]

    def test_bad_images_are_passed_over(self, tmp_path: Path) -> None:
        names = {f"{n}.jpg": jpeg(n) if n % 2 else b"no picture" for n in range(6)}
        planned = plan_style(write_folder(tmp_path / "f", names), None, False)
        assert list(sample_images(planned, Limits(), 24, evenly=True)) == ["1.jpg", "3.jpg", "5.jpg"]
        assert list(sample_images(planned, Limits(), 2, evenly=True)) == ["1.jpg", "3.jpg"]

    def test_a_set_without_a_picture_says_what_is_wrong(self, tmp_path: Path) -> None:
        uri = write_folder(tmp_path / "f", {"a.jpg": b"no picture", "b.jpg": b"none"})
        with pytest.raises(StyleError, match=r"f: none of 2 images that were tried .* a\.jpg: not_an_image"):
            sample_images(plan_style(uri, None, False), Limits(), 24, evenly=True)
        with pytest.raises(StyleError, match=r"a\.jpg: not an image that we read: a\.jpg: not_an_image"):
            sample_images(plan_style(f"{uri}/a.jpg", None, False), Limits(), 24, evenly=True)
        with pytest.raises(SourceError, match=r"content=.*none of 2 images"):
            sample_images(plan_content(uri, None), Limits(), 64, evenly=False)
        empty = write_tar(tmp_path / "e.tar", {})
        with pytest.raises(StyleError, match="holds no images"):
            sample_images(plan_style(empty, None, False), Limits(), 24, evenly=True)


@pytest.mark.ray
def test_ray_reads_every_kind_of_set(ray_cluster: None, tmp_path: Path) -> None:
    """Parquet by rows, labelled Parquet, folders and tars by units: the same batches as from the units themselves."""
    names = {f"{'ab'[n % 2]}/{n}.png": jpeg(n, "RGBA" if n % 3 else "L") for n in range(6)}
    contents = plan_content(write_shards(tmp_path / "shards", None), None)
    labelled = plan_style(write_shards(tmp_path / "art", list("aabbab")), None, labelled=True)
    folder = plan_style(write_folder(tmp_path / "f", names), None, labelled=True)
    tar = plan_style(
        write_tar(tmp_path / "t.tar", {name.replace("/", "-"): data for name, data in names.items()}), None, False
    )
    crop = CropSettings(ViewOptions(16), 4, 0, Limits())
    for style in (labelled, folder, tar):
        sets = {"content": contents, "style": style}
        domain_of = {row["key"]: row["domain"] for row in rows_of(style)}
        keys: set[str] = set()
        found = list(islice(iterate_batches(open_orders(sets, places(), 4, MAX_BYTES, 1), crop), 6))
        for batch in found:
            assert batch.tensors["style"].shape == (4, 3, 16, 16)
            assert [domain_of[key] for key in batch.keys["style"]] == batch.tensors["style_domain"].tolist()
            assert set(batch.keys["content"]) <= {row["key"] for row in rows_of(contents)}
            keys |= set(batch.keys["style"])
        assert keys == domain_of.keys()
        check_that_readers_change_nothing(sets, crop, found)


def places() -> dict[str, Place]:
    return {role: Place(role, 0) for role in ("content", "style")}


def check_that_readers_change_nothing(sets: dict, crop: CropSettings, found: list[TrainingBatch]) -> None:
    """Three Ray tasks that read in place of one; then the same of sets that are streamed, gone on with half way."""
    again = islice(iterate_batches(open_orders(sets, places(), 4, MAX_BYTES, 3), crop), len(found))
    assert_same(found, list(again))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingSet, "fits_in_memory", False)
        streamed = list(islice(iterate_batches(open_orders(sets, places(), 4, MAX_BYTES, 1), crop), 5))
        orders = open_orders(sets, places(), 4, MAX_BYTES, 2)
        for role, order in orders.items():
            order.seek(streamed[1].cursors[role])
        assert_same(streamed[2:], list(islice(iterate_batches(orders, crop), 3)))


def assert_same(wanted: list[TrainingBatch], found: list[TrainingBatch]) -> None:
    for one, other in zip(wanted, found, strict=True):
        assert one.keys == other.keys
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
