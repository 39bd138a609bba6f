"""The keys of `augment`: those of `ViewOptions`, with its defaults and bounds."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

from stylejobs.config.training import Augment
from stylejobs.core.views import ViewOptions


def test_keys_and_defaults_are_those_of_the_views():
    options = {field.name: field.default for field in fields(ViewOptions) if field.name not in ("size_px", "load_px")}
    assert Augment().model_dump() == options
    assert list(Augment.model_fields) == list(options)


@pytest.mark.parametrize("name", [name for name in Augment.model_fields if name not in ("scale", "mosaic")])
def test_bounds_are_those_of_the_views(name: str):
    low, high = (
        next(getattr(m, b) for m in Augment.model_fields[name].metadata if hasattr(m, b)) for b in ("ge", "le")
    )
    for value in (low, high):
        assert getattr(ViewOptions(32, **{name: value}), name) == getattr(Augment(**{name: value}), name) == value
    for value in (low - 0.01, high + 0.01):
        with pytest.raises(ValueError, match=name):
            ViewOptions(32, **{name: value})
        with pytest.raises(ValidationError):
            Augment(**{name: value})


def test_the_smallest_crop_has_room_for_every_mosaic():
    assert ViewOptions(32, mosaic=Augment(mosaic=8).mosaic).mosaic == 8
    with pytest.raises(ValidationError):
        Augment(mosaic=9)


@pytest.mark.parametrize("given", ["0.8,1.25", " 0.8 , 1.25", [0.8, 1.25], ("0.8", "1.25")])
def test_a_scale_is_a_pair(given: object):
    assert ViewOptions(32, **Augment(scale=given).model_dump()).scale == (0.8, 1.25)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("1.2,0.8", "wanted LOW,HIGH, such as 0.8,1.25; got 1.2,0.8"),
        ("0.8", "wanted LOW,HIGH, such as 0.8,1.25; got 0.8"),
        ("0.8,1,1.2", "wanted LOW,HIGH"),
        ("0.2,1", "0.25"),
        ("1,5", "4"),
        ("1,nan", "finite"),
    ],
)
def test_what_is_no_scale_is_refused(given: str, reason: str):
    with pytest.raises(ValidationError, match=reason):
        Augment(scale=given)
