"""Labels of image files: folder names, or the text of a CSV."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.errors import SourceError
from stylejobs.storage.labels import NAME_COLUMNS, Labels

FILES = ["a.jpg", "b/c.jpg", "d.jpg"]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], dict[str, list[str | None]]]:
    """Label columns of FILES by a CSV with this text."""

    def call(text: str | bytes) -> dict[str, list[str | None]]:
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / "labels.csv").write_bytes(data)
        return Labels.read("csv", str(tmp_path), None, FILES).of(FILES)

    return call


def test_no_labels() -> None:
    assert Labels.read("none", "unused", None, FILES).of(FILES) == {}


@given(st.lists(st.lists(st.text("ab.ü", min_size=1), min_size=1, max_size=4).map("/".join), unique=True))
def test_a_folder_label_is_the_name_of_the_files_own_folder(names: list[str]) -> None:
    labels = Labels.read("folder", "unused", None, names)
    assert labels.columns == ("label",)
    assert labels.of(names) == {"label": [name.split("/")[-2] if "/" in name else None for name in names]}


def test_rows_are_found_by_name_in_any_order_and_missing_ones_are_null(read: Callable) -> None:
    assert read("file_name,label,note\nother.jpg,x,y\nd.jpg,dog,\na.jpg,cat,good\n") == {
        "label": ["cat", None, "dog"],
        "note": ["good", None, ""],
    }


def test_values_are_taken_for_the_files_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("key,label\na.jpg,cat\nd.jpg,dog\n")
    labels = Labels.read("csv", "unused", str(tmp_path / "x.csv"), FILES)
    assert labels.of(["d.jpg"]) == {"label": ["dog"]}
    assert labels.of([]) == {"label": []}


@pytest.mark.parametrize("column", NAME_COLUMNS)
def test_the_column_of_names_has_several_spellings_and_is_no_label(read: Callable, column: str) -> None:
    assert read(f"label,{column}\ncat,a.jpg\n") == {"label": ["cat", None, None]}


def test_the_first_spelling_wins_and_the_other_is_a_label(read: Callable) -> None:
    assert read("image,file_name\nx.png,a.jpg\n") == {"image": ["x.png", None, None]}


def test_a_csv_of_names_alone_has_no_columns(read: Callable) -> None:
    assert read("file_name\na.jpg\n") == {}


def test_quotes_commas_line_breaks_and_a_byte_order_mark(read: Callable) -> None:
    assert read('\ufefffile_name,label\n"a.jpg","one, ""two"""\n')["label"][0] == 'one, "two"'


@pytest.mark.parametrize("value", ["007", "1.50", "true", "1e3", "2020-01-01T00:00:00Z", "NA"])
def test_values_stay_the_text_that_is_in_the_file(read: Callable, value: str) -> None:
    assert read(f"file_name,label\na.jpg,{value}\n")["label"][0] == value


def test_a_missing_csv_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"labels\.csv: no such file; labels=csv reads it \(or set labels_csv=\)"):
        Labels.read("csv", str(tmp_path), None, FILES)


def test_a_folder_in_place_of_the_csv_is_an_error_of_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Labels.read("csv", str(tmp_path), str(tmp_path), FILES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a CSV with a header line"),
        ("file_name,label\na.jpg\n", "not a CSV with a header line: .*Expected 2 columns, got 1"),
        ("name,label\na.jpg,cat\n", r"wanted a column of file names called file_name, .*columns: \['name', 'label'\]"),
        ("file_name,label\n", "names none of the 3 files, such as 'a.jpg'"),
        ("file_name,label\n/data/a.jpg,cat\n", "names none of the 3 files, such as 'a.jpg'"),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused(read: Callable, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read(text)


def test_two_columns_of_one_name_are_refused(read: Callable) -> None:
    with pytest.raises(SourceError, match="label"):
        read("file_name,label,label\na.jpg,cat,dog\n")


def test_a_csv_that_is_not_utf8_is_refused(read: Callable) -> None:
    with pytest.raises(SourceError):
        read("file_name,label\na.jpg,café\n".encode("latin-1"))
