"""stylize into every sink and out of a list: through the real command's own code, on the shared Ray."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import Outcome

pytestmark = pytest.mark.ray

Stylize = Callable[..., Outcome]


@pytest.fixture
def stylize(verb: Callable[..., Outcome], photo_folder: Path, style_image: Path) -> Stylize:
    def call(*arguments: str) -> Outcome:
        given = {argument.split("=")[0] for argument in arguments}
        usual = {"source": photo_folder, "dest": "out", "model": "builtin:moments", "styles": style_image}
        return verb("stylize", *[f"{key}={value}" for key, value in usual.items() if key not in given], *arguments)

    return call


def pictures(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_webdataset(stylize: Stylize, photo_folder: Path, tmp_path: Path) -> None:
    outcome = stylize("sink=webdataset", "variants=2", "unit_mb=0.012")
    assert outcome.exit_code == 0, outcome.stderr
    tars = sorted((tmp_path / "out" / "data").iterdir())
    assert len(tars) == outcome.result["units"]["total"] > 1
    seen = []
    for path in tars:
        with tarfile.open(path) as tar:
            held = {member.name: tar.extractfile(member).read() for member in tar}
        for name in [name for name in held if name.endswith(".jpg")]:
            lineage = json.loads(held[name.removesuffix("jpg") + "json"])
            assert hashlib.sha256(held[name]).hexdigest() == lineage["out_sha256"]
            assert Image.open(io.BytesIO(held[name])).size == (lineage["width"], lineage["height"])
            seen.append((lineage["key"], lineage["variant"]))
    keys = pictures(photo_folder)
    assert sorted(seen) == sorted((key, variant) for key in keys for variant in (0, 1))
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(rows) == 40 and {row["json"]["key"] for row in rows} == set(keys)
    assert Path(outcome.result["report"]).read_text().count("data:image/jpeg;base64,") >= 40
    before = pictures(tmp_path / "out" / "data")
    again = stylize("sink=webdataset", "variants=2", "unit_mb=0.012")
    assert again.result["units"]["skipped"] == len(tars) and pictures(tmp_path / "out" / "data") == before
    drifted = stylize("variants=2", "unit_mb=0.012")
    assert drifted.exit_code == 5 and "parameters.sink" in drifted.stderr


def test_files_keep_the_tree_and_lose_what_no_longer_belongs(
    stylize: Stylize, photo_folder: Path, tmp_path: Path
) -> None:
    outcome = stylize("sink=files", "unit_mb=0.012")
    assert outcome.exit_code == 0, outcome.stderr
    out = tmp_path / "out"
    lineage = pq.read_table(out / "lineage").to_pylist()
    before = pictures(out)
    assert {row["file"] for row in lineage} == {name for name in before if name.startswith("data/")}
    for row in lineage:
        assert row["file"].startswith(f"data/{row['key'].removesuffix('.jpg')}-v0-")
        assert hashlib.sha256(before[row["file"]]).hexdigest() == row["out_sha256"]
    assert {row["key"] for row in lineage} == set(pictures(photo_folder))
    assert (out / "_SUCCESS").exists()
    assert Path(outcome.result["report"]).read_text().count("data:image/jpeg;base64,") >= 20
    # Another picture under an old name: of its unit everything is made anew, and the rest stays as it is.
    changed = sorted(photo_folder.rglob("*.jpg"))[-1]
    Image.new("RGB", (64, 48), (9, 200, 9)).save(changed)
    again = stylize("sink=files", "unit_mb=0.012")
    assert again.exit_code == 0 and again.result["units"]["done"] == 1, again.stderr
    after = pictures(out / "data")
    table = pq.read_table(out / "lineage")
    assert sorted(table["file"].to_pylist()) == sorted(f"data/{name}" for name in after) and len(after) == 20
    kept = [name for name in after if f"data/{name}" in before]
    assert 0 < len(kept) < 20 and all(after[name] == before[f"data/{name}"] for name in kept)


def test_a_list_with_a_filter_and_a_job_that_keeps_nothing(
    stylize: Stylize, photo_folder: Path, tmp_path: Path
) -> None:
    names = sorted(pictures(photo_folder))
    lines = [f"{name},{Path(name).parent}" for name in names] + ["gone.jpg,coffee", "gone too.jpg,rocket"]
    (photo_folder / "list.csv").write_text("\n".join(["uri,label", *lines]))
    source = (f"source={photo_folder / 'list.csv'}", "where=label=coffee,label=flower", "max_bad=0.2")
    outcome = stylize(*source)
    assert outcome.exit_code == 0, outcome.stderr
    wanted = {name for name in names if name.startswith(("coffee/", "flower/"))}
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert {row["key"] for row in rows} == wanted and {row["label"] for row in rows} == {"coffee", "flower"}
    assert outcome.result["rows"]["in"] == len(wanted) + 1
    (letter,) = pq.read_table(tmp_path / "out" / "dead_letter").to_pylist()
    assert (letter["key"], letter["stage"], letter["reason"]) == ("gone.jpg", "read", "not_an_image")
    other = stylize(source[0], "where=label=coffee", source[2])
    assert other.exit_code == 5 and "parameters.where" in other.stderr

    nothing = stylize("sink=null", "dest=none")
    assert nothing.exit_code == 0 and nothing.result["rows"]["ok"] == 20, nothing.stderr
    left = pictures(tmp_path / "none")
    assert not [name for name in left if name.startswith(("data/", "lineage/"))] and "_SUCCESS" not in left
    assert "sink=null keeps none" in left["report/index.html"].decode()
    assert "keeps no picture" in left["README.md"].decode()
