import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.pixels import crop_to, pad_to_multiple, to_float, to_uint8


def test_round_trip_on_every_uint8_value():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_to_float_against_float64():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    expected = np.arange(256, dtype=np.float64) / 127.5 - 1.0
    np.testing.assert_allclose(to_float(levels).numpy().ravel(), expected, atol=1e-7)


def test_axes_are_turned_not_mixed():
    image = torch.randint(0, 256, (2, 3, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    floats = to_float(image)
    assert floats.shape == (2, 3, 3, 5)
    assert floats.is_contiguous()
    assert floats[1, 2, 0, 4].item() == pytest.approx(image[1, 0, 4, 2].item() / 127.5 - 1.0, abs=1e-6)


def test_to_uint8_clamps_and_rounds_half_to_even():
    # -1 + k / 127.5 + 1 / 255 lies exactly between k and k + 1 where float32 can hold it: x = 0 is 127.5.
    image = torch.tensor([0.0, -7.0, 7.0, 1.0]).reshape(1, 1, 1, 4)
    assert to_uint8(image).ravel().tolist() == [128, 0, 255, 255]


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        to_float(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match="floats"):
        to_uint8(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiple"):
        pad_to_multiple(torch.zeros(1, 3, 2, 2), 0)
    with pytest.raises(ValueError, match="crop"):
        crop_to(torch.zeros(1, 3, 2, 2), 3, 2)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40))
def test_padding_is_numpys_reflection_and_cropping_takes_it_off(height, width, multiple, min_px):
    image = torch.arange(2 * height * width, dtype=torch.float32).reshape(1, 2, height, width)
    padded = pad_to_multiple(image, multiple, min_px)
    padded_height, padded_width = padded.shape[-2:]
    for side, padded_side in ((height, padded_height), (width, padded_width)):
        assert padded_side % multiple == 0
        assert padded_side - multiple < max(side, min_px) <= padded_side
    pads = ((0, 0), (0, 0), (0, padded_height - height), (0, padded_width - width))
    np.testing.assert_array_equal(padded.numpy(), np.pad(image.numpy(), pads, mode="reflect"))
    assert torch.equal(crop_to(padded, height, width), image)


def test_nothing_is_copied_when_nothing_is_missing():
    image = torch.zeros(1, 3, 8, 12)
    assert pad_to_multiple(image, 4) is image
