"""The page that a person looks at: one self-contained HTML file made from plain values.

Reads no image and no store: the caller brings bytes. No request leaves the page and its Content-Security-Policy allows
only its own style sheet and script, by digest, so text that came with the data stays text.
"""

import base64
import hashlib
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stylejobs.report import wording

IMAGE_MIMES = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})
_DONE_WORDS = {"stylize": "stylized", "ingest": "ingested", "evaluate": "judged", "verify": "verified"}
_STATUS = {
    0: ("Complete", "good"),
    3: ("Partial, can be resumed", "warn"),
    4: ("Stopped by a gate", "bad"),
    5: ("Stopped: inputs or model changed", "bad"),
    6: ("Stopped: infrastructure", "bad"),
}


@dataclass(frozen=True)
class ModelLine:
    """The model that ran: its name, version and the SHA-256 of its weights (hexadecimal)."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class RowCounts:
    """Rows of the source (`total`), of the result (`ok`), and dead letters (`bad`)."""

    total: int
    ok: int
    bad: int


@dataclass(frozen=True)
class UnitCounts:
    """Units of work: all, done by this run, skipped because an earlier run did them, failed."""

    total: int
    done: int
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class FailureExample:
    """One row that failed: its key and one sentence why."""

    key: str
    message: str


@dataclass(frozen=True)
class FailureRow:
    """All rows that failed for one `reason`, with a few examples."""

    reason: str
    count: int
    examples: tuple[FailureExample, ...] = ()


@dataclass(frozen=True)
class GalleryItem:
    """A source image beside its result, both encoded. Sizes are those of the result, in pixels.

    Raises:
        ValueError: a MIME type that browsers do not all show (see `IMAGE_MIMES`), or a side below one pixel.
    """

    source_bytes: bytes
    source_mime: str
    result_bytes: bytes
    result_mime: str
    key: str
    style: str
    strength: float | None
    width: int
    height: int
    caption: str = ""

    def __post_init__(self) -> None:
        for mime in (self.source_mime, self.result_mime):
            if mime not in IMAGE_MIMES:
                raise ValueError(
                    f"gallery images must be one of {sorted(IMAGE_MIMES)}, got {mime!r}; encode it as JPEG"
                )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"gallery image needs a size of at least 1 x 1 px, got {self.width} x {self.height}")


@dataclass(frozen=True)
class Report:
    """Everything that the page says, as plain values.

    Attributes:
        seconds: wall clock of the run. `images_per_second`: None when nothing was measured.
        started_at: when, as text for people, with its time zone.
        parameters: (name, value) pairs in the order to show.
        stage_seconds: (stage, seconds summed over workers) in the order of the pipeline: read decode generate ...
        rate_points: (seconds since the start, images per second) in order of time.
        gallery_note: why there is no gallery, where that is meant.
    """

    verb: str
    exit_code: int
    code_version: str
    started_at: str
    seconds: float
    source_uri: str
    dest_uri: str
    rows: RowCounts
    units: UnitCounts
    images_per_second: float | None = None
    model: ModelLine | None = None
    styles: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    resume_command: str | None = None
    stage_seconds: tuple[tuple[str, float], ...] = ()
    rate_points: tuple[tuple[float, float], ...] = ()
    failures: tuple[FailureRow, ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""


def build_environment(autoescape: bool) -> Environment:
    """A Jinja environment over the templates of this package; every printed value passes `wording.to_printable`."""
    environment = Environment(
        loader=PackageLoader("stylejobs.report", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        finalize=wording.to_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=wording.format_count,
        rate=wording.format_rate,
        duration=wording.format_duration,
        hide_secret=wording.hide_secret,
    )
    environment.globals["share"] = wording.format_share
    return environment


def render_report(report: Report) -> str:
    """One HTML page: what ran, on what, how fast, what failed and why, and a gallery of source beside result.

    Args:
        report: plain values; all text in it is treated as hostile.

    Returns:
        HTML text to be written as UTF-8; works from file:// and asks for nothing outside itself.
    """
    environment = build_environment(autoescape=True)
    style_sheet = _read_part(environment, "page.css")
    script = _read_part(environment, "page.js")
    status, tone = _STATUS.get(report.exit_code, ("Failed", "bad"))
    return environment.get_template("page.html.j2").render(
        report=report,
        headline=_headline(report),
        status=status,
        tone=tone,
        bars=_stage_bars(report.stage_seconds),
        curve=_rate_curve(report.rate_points),
        data_uri=_data_uri,
        style_sheet=Markup(style_sheet),
        script=Markup(script),
        style_digest=_csp_digest(style_sheet),
        script_digest=_csp_digest(script),
    )


def _read_part(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _csp_digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(data: bytes, mime: str) -> Markup:
    """Safe as it is: the MIME type is one of `IMAGE_MIMES` and base64 has no character that HTML knows."""
    return Markup(f"data:{mime};base64,{base64.b64encode(data).decode()}")


def _headline(report: Report) -> str:
    done = _DONE_WORDS.get(report.verb)
    if done is None:
        return report.verb.capitalize()
    if report.rows.ok == 0:
        return f"No images {done}"
    return f"{wording.format_count(report.rows.ok)} image{'s' if report.rows.ok != 1 else ''} {done}"


def _stage_bars(stage_seconds: tuple[tuple[str, float], ...]) -> list[dict[str, float | str]]:
    """Segments of the stage bar: `x` and `width` in thousandths of the sum over stages."""
    total = sum(seconds for _, seconds in stage_seconds)
    bars: list[dict[str, float | str]] = []
    x = 0.0
    for name, seconds in stage_seconds:
        width = 1000 * seconds / total if total else 0.0
        share = wording.format_share(seconds, total)
        bars.append({"name": name, "seconds": seconds, "x": round(x, 3), "width": round(width, 3), "share": share})
        x += width
    return bars


def _rate_curve(points: tuple[tuple[float, float], ...]) -> dict[str, str | float] | None:
    """The line of images/s over time in a box of 1000 x 100, from zero to its peak; None below two points."""
    if len(points) < 2:
        return None
    start, end = points[0][0], points[-1][0]
    peak = max(rate for _, rate in points)
    span = max(end - start, 1e-9)
    line = " ".join(f"{1000 * (t - start) / span:.1f},{100 - 100 * rate / (peak or 1):.2f}" for t, rate in points)
    return {"line": line, "area": f"0,100 {line} 1000,100", "peak": peak, "end_seconds": end}
