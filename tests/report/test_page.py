import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.report.page import (
    FailureExample,
    FailureRow,
    GalleryItem,
    ModelLine,
    Report,
    RowCounts,
    UnitCounts,
    render_report,
)

HOSTILE = (
    "</script><script>alert(1)</script>",
    '" onerror="alert(1)" x=\'',
    "' onmouseover='alert(1)",
    "<img src=x onerror=alert(1)>",
    "--><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    '"},"x":{"</style><style>*{display:none}',
    "javascript:alert(1)",
    "a\x00b\ud800c\x1b[31m",
)
# Every attribute that the page is made of. What comes with data can only ever be the value of one of them.
ATTRIBUTES = set(
    re.findall(
        r"\S+",
        """
        lang charset http-equiv content name rel href class id type min max value step src width height
        alt draggable data-item scope tabindex role x y points viewbox preserveaspectratio
        aria-label aria-labelledby aria-hidden
        """,
    )
)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of each script and style."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        self.raw[self._inside].append(data) if self._inside in self.raw else self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (value, 80, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def _item(key: str, style: str = "starry", caption: str = "") -> GalleryItem:
    return GalleryItem(_jpeg(10), "image/jpeg", _jpeg(200), "image/jpeg", key, style, 0.8, 16, 12, caption)


def _report(text: str = "plain", verb: str = "stylize") -> Report:
    return Report(
        verb=verb,
        exit_code=0,
        code_version=f"0.1.0 {text}",
        started_at=f"today {text}",
        seconds=3725.0,
        source_uri=f"s3://photos/{text}",
        dest_uri=f"s3://out/{text}",
        rows=RowCounts(total=1_236, ok=1_234, bad=2),
        units=UnitCounts(total=9, done=7, skipped=2),
        images_per_second=12.34,
        model=ModelLine(f"model {text}", f"3 {text}", f"ab12 {text}"),
        styles=("starry", text),
        parameters=(("quality", text), (text, "1")),
        resume_command=f"python -m pipelines.stylize source={text}",
        stage_seconds=(("read", 1.0), ("decode", 2.0), ("generate", 6.0), ("encode", 0.5), (f"write {text}", 0.5)),
        rate_points=((0.0, 1.0), (10.0, 12.0), (20.0, 6.0)),
        failures=(FailureRow(f"truncated {text}", 2, (FailureExample(f"key {text}", f"message {text}"),)),),
        gallery=(_item("a.jpg"), _item(f"key {text}", f"style {text}", f"caption {text}")),
    )


def _assert_inert(html: str, plain_html: str) -> Page:
    page, plain = Page(html), Page(plain_html)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    for (tag, attributes), (_, plain_attributes) in zip(page.tags, plain.tags, strict=True):
        assert set(attributes) == set(plain_attributes) <= ATTRIBUTES, tag
    assert page.raw == plain.raw, "scripts and style sheets never hold data"
    return page


def test_the_page_says_what_ran_and_in_numbers_for_people():
    text = " ".join(" ".join(Page(render_report(_report())).text).split())
    for words in ("1,234 images stylized", "model plain", "3 plain", "ab12 plain", "1 h 02 min", "12.3", "starry"):
        assert words in text, words
    for words in ("Complete", "0.16 % of rows", "generate 60 % 6.0 s", "truncated plain", "message plain"):
        assert words in text, words
    assert "python -m pipelines.stylize source=plain" in text
    assert "Nothing failed" not in text


def test_the_page_asks_for_nothing_outside_itself():
    page = Page(render_report(_report()))
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|innerHTML", page.raw["script"][0] + page.raw["style"][0])


def test_the_policy_allows_this_script_and_this_style_sheet_only():
    page = Page(render_report(_report()))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for kind in ("script", "style"):
        (body,) = page.raw[kind]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not any(name == "style" or name.startswith("on") for _, attributes in page.tags for name in attributes)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    html = render_report(_report(text))
    page = _assert_inert(html, render_report(_report()))
    html.encode("utf-8")
    if text.isprintable():
        assert page.all("img")[2]["alt"] == f"Result for key {text} in style style {text}"
        assert f"message {text}" in page.text


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("<>\"'&/=;`{}%- \n\ud800\x00abcsrciptonload!"), min_size=1, max_size=60))
def test_any_text_stays_text(text):
    _assert_inert(render_report(_report(text)), render_report(_report())).close()


def test_every_gallery_item_can_be_compared_and_opened_without_a_mouse():
    page = Page(render_report(_report()))
    figures = [f for f in page.all("figure") if "data-item" in f]
    ranges = [i for i in page.all("input") if i["type"] == "range"]
    assert len(figures) == 2 and len(ranges) == 3, "one slider an item, one in the lightbox"
    assert all(slider["aria-label"] for slider in ranges)
    assert sum(button.get("class") == "open" for button in page.all("button")) == 2
    assert [dialog["id"] for dialog in page.all("dialog")] == ["lightbox"]
    pictures = [i["src"] for i in page.all("img") if "src" in i]
    assert len(pictures) == 4
    assert base64.b64decode(pictures[0].removeprefix("data:image/jpeg;base64,")) == _jpeg(200)
    assert base64.b64decode(pictures[1].removeprefix("data:image/jpeg;base64,")) == _jpeg(10)


def test_a_run_of_nothing_still_has_a_page():
    empty = Report("stylize", 0, "0.1.0", "now", 0.0, "in", "out", RowCounts(0, 0, 0), UnitCounts(0, 0))
    text = " ".join(Page(render_report(empty)).text)
    for words in ("No images stylized", "No pictures to show", "Nothing failed.", "No stage times"):
        assert words in text, words


def test_nothing_failed_is_said_only_when_it_is_true():
    fine = replace(_report(), rows=RowCounts(5, 5, 0), failures=())
    assert "Nothing failed." in render_report(fine)
    assert "Nothing failed." not in render_report(replace(fine, exit_code=6))
    assert "Nothing failed." not in render_report(replace(fine, units=UnitCounts(9, 8, 0, failed=1)))
    assert "Nothing failed." not in render_report(replace(fine, rows=RowCounts(5, 4, 1)))


@pytest.mark.parametrize("points", [((0.0, 0.0), (0.0, 0.0)), ((0.0, 5.0),), ((3.0, 0.0), (4.0, 0.0))])
def test_odd_rates_and_zero_stages_still_render(points):
    html = render_report(replace(_report(), rate_points=points, stage_seconds=(("read", 0.0), ("write", 0.0))))
    assert "nan" not in html.split("<section")[2].lower()


def test_secrets_do_not_reach_the_page():
    report = replace(
        _report(),
        source_uri="s3://key:hunter2@bucket/x",
        parameters=(("db_password", "hunter2"),),
        resume_command="python -m pipelines.stylize source=https://h/x?X-Amz-Signature=hunter2",
        failures=(FailureRow("read", 1, (FailureExample("k", "401 at https://me:hunter2@host/"),)),),
    )
    assert "hunter2" not in render_report(report)


@pytest.mark.parametrize("mime", ["image/svg+xml", "text/html", 'image/jpeg" onload="x'])
def test_other_than_plain_images_are_refused(mime):
    with pytest.raises(ValueError, match="encode it as JPEG"):
        GalleryItem(b"", mime, b"", "image/png", "k", "s", None, 1, 1)
