import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.report import wording


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(wording).failed == 0


@given(st.floats(0, 1e9))
def test_durations_are_never_written_with_a_full_part(seconds):
    text = wording.format_duration(seconds)
    assert "60 s" not in text and "60 min" not in text and "24 h" not in text and "1000 ms" not in text, text


@pytest.mark.parametrize("seconds", [None, -1.0, float("nan"), float("inf")])
def test_an_unknown_duration_is_a_dash(seconds):
    assert wording.format_duration(seconds) == wording.NOTHING


def test_shares_never_round_a_failure_away():
    assert wording.format_share(999_999, 1_000_000) == "> 99.99 %"
    assert wording.format_share(1, 10_000_000) == "< 0.01 %"


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAEXAMPLE:hunter2@bucket/x",
        "GET https://h/x?X-Amz-Signature=hunter2&b=1",
        "aws_secret_access_key = hunter2",
        "password: hunter2",
        "--api-key=hunter2",
    ],
)
def test_secrets_are_blotted_out(text):
    assert "hunter2" not in wording.without_secrets(text)


@pytest.mark.parametrize("text", ["s3://bucket/a/b@2x.jpg", "a@b.c", "key: china/1.jpg", "12 of 13 rows"])
def test_ordinary_text_is_left_alone(text):
    assert wording.without_secrets(text) == text
