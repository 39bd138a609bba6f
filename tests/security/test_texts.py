"""Text from data in what people and CI look at: keys, classes, styles, column names and errors stay text."""

import html.parser
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.config.schema import StylizeConfig
from stylejobs.engine.command import run_command
from stylejobs.errors import SourceError
from stylejobs.report.verdict import render_junit, render_summary
from tests.conftest import Outcome
from tests.engine.small_dataset import picture

HOSTILE = [
    "<script>alert(1)</script>", '"onload="alert(1)', "' onmouseover='x", "</title><svg onload=alert(1)>", "<!--",
    "javascript:alert(1)", "[a](javascript:alert(1))", "![a](http://example.org/pixel)", "]]>", "&lt;script&gt;",
    "a|b`c`", "\ud800", "\uffff", "\x00\x1b[2J", "line\n::error::fake", "---\npretty_name: x", "{{ 7919*6733 }}",
    "\u202eabc",
]  # fmt: skip
PRINTABLE = [text for text in HOSTILE if text.isprintable() or "\n" in text]


class Seen(html.parser.HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.places: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names.update(name for name, _ in attrs)
        self.places += [value or "" for name, value in attrs if name in ("href", "src")]


@pytest.mark.ray
class TestDataset:
    """One real job over hostile keys, column names, values and file names; then each page is read back."""

    @pytest.fixture
    def dest(self, verb: Callable[..., Outcome], tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        good = {"image": [picture(number) for number in range(len(PRINTABLE))], "key": PRINTABLE}
        bad = {"image": [b"<script>alert(2)</script>"] * 2, "key": ["<script>alert(3)</script>", "[x](http://y)"]}
        columns = {text: [text] * len(PRINTABLE) for text in PRINTABLE}
        pq.write_table(pa.table({**good, **columns, "label": PRINTABLE}), folder / "a'\"><b>.parquet")
        pq.write_table(pa.table(bad), folder / "z.parquet")
        style = tmp_path / "<svg onload=alert(1)> [a](http:b).png"
        style.write_bytes(picture(99))
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({"styles": [str(style)]}))
        done = verb(
            "stylize", "job.yaml", f"source={folder}", "dest=out", "model=builtin:moments", "max_bad=0.5", "canary=0",
            f"gallery={len(PRINTABLE)}",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        return tmp_path / "out"

    def test_the_page_and_the_card_hold_them_as_text(self, dest: Path) -> None:
        page = (dest / "report" / "index.html").read_text()
        assert "alert(" in page, "the hostile texts are shown"
        seen = Seen(page)
        assert not {name for name in seen.names if name.startswith("on")} and "iframe" not in seen.tags
        assert page.count("<script") == 1 and "<b>.parquet" not in page
        assert all(place.startswith(("data:", "#")) for place in seen.places)

        header, _, body = (dest / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
        assert yaml.safe_load(header)["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
        without_code = re.sub(r"(`+).*?\1", "", body)
        assert not re.search(r"<(script|svg|b)|\]\((?!#)", without_code)
        assert "53318627" not in without_code, "a template in data was filled in"


TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(HOSTILE)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_verdicts_of_any_text_can_be_read_and_link_to_nothing(name: str, words: str, uri: str) -> None:
    verdict = {
        "model": {"uri": uri}, "baseline": {"uri": uri}, "passed": False,
        "gates": [{"name": name, "words": words, "state": state} for state in ("passed", "failed", "not asked")],
        "measures": {"candidate": {name: [0.1, 0.0, 0.2]}, words: {}},
    }  # fmt: skip
    assert len(list(ElementTree.fromstring(render_junit(verdict).encode()).iter("testcase"))) == 3
    summary = render_summary(verdict)
    assert not re.search(r"(?<!\\)[\[\]`]|<", summary) and "\x1b" not in summary
    assert not re.search(r"(?<!\w)@\w", summary), "somebody is called by name"
    lines = summary.splitlines()
    assert lines[0].startswith("## ") and {line[0] for line in lines[3:] if line} <= {"|"}


@pytest.mark.parametrize("debug", ["0", "1"])
def test_errors_reach_no_terminal_as_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: str
) -> None:
    monkeypatch.setenv("STYLEJOBS_DEBUG", debug)

    def recipe(config: StylizeConfig) -> None:
        raise SourceError("a\x1b]0;title\x07\x9b2J.png: damaged")

    assert run_command("stylize", recipe, ["source=a", "dest=b", "model=builtin:fda"]) == 2
    captured = capsys.readouterr()
    assert not set("\x1b\x07\x9b") & set(captured.err + captured.out) and "title" in captured.err
    assert ("Traceback" in captured.err) == (debug == "1")


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"]
)
def test_errors_do_not_repeat_what_the_environment_keeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Other libraries quote what they were given; STYLEJOBS_DEBUG=1 shows their errors as well."""
    monkeypatch.setenv("STYLEJOBS_DEBUG", "1")
    monkeypatch.setenv(name, "canary-5d1e")

    def recipe(config: StylizeConfig) -> None:
        try:
            raise OSError("signed with canary-5d1e")
        except OSError as error:
            raise SourceError("a: cannot be read with canary-5d1e") from error

    assert run_command("stylize", recipe, ["source=a", "dest=b", "model=builtin:fda"]) == 2
    captured = capsys.readouterr()
    assert "canary-5d1e" not in captured.err + captured.out and "signed with ***" in captured.err
