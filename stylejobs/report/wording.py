"""How numbers and foreign text are worded for people. Text only: no HTML, no files, no network."""

import math
import re

from markupsafe import Markup

_CREDENTIALS_IN_URI = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_ASSIGNMENT = re.compile(
    r"(?i)((?:x-amz-(?:signature|credential|security-token)|signature|[\w-]*(?:secret|password|passwd|token|api[_-]?key|access[_-]?key)"
    r"[\w-]*)\s*[=:]\s*)[^&\s,;]+"
)
# Control characters and lone surrogates cannot be shown; the latter cannot even be written as UTF-8, and XML knows no
# U+FFFE and U+FFFF.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0d-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
NOTHING = "\N{EN DASH}"


def format_count(count: int) -> str:
    """A whole number with thousands separators.

    >>> format_count(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def format_rate(images_per_second: float | None) -> str:
    """Images per second with three digits that matter; a dash when unknown.

    >>> format_rate(12.34), format_rate(1234.5), format_rate(0.0312)
    ('12.3 img/s', '1,234 img/s', '0.031 img/s')
    """
    if images_per_second is None or not math.isfinite(images_per_second):
        return NOTHING
    if images_per_second >= 100 or images_per_second == 0:
        return f"{images_per_second:,.0f} img/s"
    if images_per_second >= 10:
        return f"{images_per_second:.1f} img/s"
    return f"{images_per_second:.2f} img/s" if images_per_second >= 1 else f"{images_per_second:.2g} img/s"


def format_duration(seconds: float | None) -> str:
    """A span of time in its two largest units; a dash when unknown or negative.

    >>> [format_duration(s) for s in (0.042, 7.25, 59.97, 754, 3725, 183_600)]
    ['42 ms', '7.2 s', '1 min 00 s', '12 min 34 s', '1 h 02 min', '2 d 03 h']
    """
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for unit_seconds, unit, part_seconds, part in (
        (60, "min", 1, "s"),
        (3600, "h", 60, "min"),
        (86400, "d", 3600, "h"),
    ):
        num_parts = round(seconds / part_seconds)
        per_unit = unit_seconds // part_seconds
        # The next larger unit takes over once this one is full *after* rounding: never "60 min 00 s".
        if unit == "d" or num_parts // per_unit < {"min": 60, "h": 24}[unit]:
            return f"{num_parts // per_unit:,} {unit} {num_parts % per_unit:02d} {part}"
    raise AssertionError("the last unit takes every number")


def format_share(part: float, whole: float) -> str:
    """`part / whole` in percent; a dash when there is no whole. Small but not zero never reads as zero.

    >>> format_share(1, 3), format_share(1, 1_000_000), format_share(0, 5)
    ('33 %', '< 0.01 %', '0 %')
    """
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if percent > 99 and part < whole:
        return "> 99.99 %" if percent > 99.99 else f"{percent:.2f} %"
    return f"{percent:.0f} %" if percent >= 10 or not percent else f"{percent:.2g} %"


def without_secrets(text: str) -> str:
    """`text` with user:password@ of URIs and the values of signatures, tokens and passwords blotted out.

    The command line refuses secrets in configs; this is the second fence, since messages of other libraries quote URIs.

    >>> without_secrets("s3://me:pw@bucket/a?X-Amz-Signature=abc&x=1")
    's3://***@bucket/a?X-Amz-Signature=***&x=1'
    """
    return _SECRET_ASSIGNMENT.sub(r"\1***", _CREDENTIALS_IN_URI.sub("***@", text))


def hide_secret(name: str, value: str) -> str:
    """`value`, unless `name` says that it is a secret.

    >>> hide_secret("quality", "92"), hide_secret("db_password", "hunter2")
    ('92', '***')
    """
    return "***" if _SECRET_ASSIGNMENT.match(f"{name}=x") else value


def to_printable(value: object) -> object:
    """What a template may print: foreign text loses secrets and what cannot be shown; `Markup` passes as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", without_secrets(value))
