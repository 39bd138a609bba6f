import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from stylejobs.report.card import Card, render_readme
from stylejobs.report.page import ModelLine, RowCounts
from stylejobs.report.wording import to_printable

CARD = Card(
    title="Photographs in starry",
    source_uri="s3://photos/shards",
    dest_uri="s3://out/starry",
    rows=RowCounts(1_236, 1_234, 2),
    columns=(("image", "struct<bytes: binary, path: string>"), ("key", "string"), ("boxes", "list<float>")),
    code_version="0.1.0",
    made_at="21 November 2026, 14:05 UTC",
    model=ModelLine("starry-fields", "7", "ab12" * 16),
    styles=("starry",),
    parameters=(("quality", "92"),),
    resume_command="python -m pipelines.stylize source=a dest=b",
)


def _header(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n", 1)[0][4:])


def test_the_card_says_what_from_what_and_how():
    text = render_readme(CARD)
    for words in (
        "1,234 stylized images",
        "`s3://photos/shards`",
        "`starry-fields` version `7`",
        "ab12ab12",
        "| rows read",
    ):
        assert words in text, words
    assert "| `boxes` | `list<float>` | from the source, unchanged |" in text
    assert "`_SUCCESS` is written last" in text and "pipelines.verify" not in text
    assert _header(text)["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert _header(text)["size_categories"] == ["1K<n<10K"]


def test_a_license_is_stated_only_when_it_is_known():
    assert "license" not in _header(render_readme(CARD))
    assert _header(render_readme(replace(CARD, license="cc-by-4.0")))["license"] == "cc-by-4.0"


def test_a_card_without_model_styles_or_rows_renders():
    text = render_readme(
        replace(CARD, model=None, styles=(), parameters=(), resume_command=None, rows=RowCounts(0, 0, 0))
    )
    assert "0 stylized images" in text and "weights SHA-256" not in text


@given(st.text(max_size=80))
@example('\U0001f600 \u2028 \ufeff \uffff \x85 \n--- " \\')
def test_any_title_keeps_the_header_valid_and_alone(title):
    text = render_readme(replace(CARD, title=f"x{title}"))
    assert set(_header(text)) == {"pretty_name", "tags", "size_categories", "configs"}
    assert _header(text)["pretty_name"] == to_printable(f"x{title}")


@pytest.mark.parametrize("name", ["a|b", "``` `` `", "<script>", "line\nbreak", "| x |\n|---|"])
def test_a_hostile_column_name_stays_in_its_cell(name):
    def num_lines(card):
        return len(render_readme(card).splitlines())

    hostile = replace(CARD, columns=((name, "string"),))
    assert num_lines(hostile) == num_lines(replace(CARD, columns=(("a", "string"),)))


def test_secrets_do_not_reach_the_card():
    card = replace(
        CARD, source_uri="s3://k:hunter2@b/x", dest_uri="s3://k:hunter2@b/y", parameters=(("token", "hunter2"),)
    )
    assert "hunter2" not in render_readme(card)


def test_datasets_loads_the_folder_by_its_card(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 10, 10)).save(buffer, "PNG")
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "key": {"dtype": "string", "_type": "Value"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(
        {"image": pa.array([{"bytes": buffer.getvalue(), "path": "a.png"}] * 3, struct), "key": ["a", "b", "c"]}
    )
    folder = tmp_path / "dest"
    for part in ("data", "dead_letter"):
        (folder / part).mkdir(parents=True)
        pq.write_table(table.replace_schema_metadata(meta), folder / part / "part-0.parquet")
    (folder / "README.md").write_text(render_readme(CARD), encoding="utf-8")
    dataset = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(dataset) == {"train"} and dataset["train"].num_rows == 3, "dead letters are not data"
    assert dataset["train"][0]["image"].size == (9, 7)
