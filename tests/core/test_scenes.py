import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylejobs.core.scenes import make_scene


def bytes_per_pixel(pixels_HWC: np.ndarray) -> float:
    sink = io.BytesIO()
    Image.fromarray(pixels_HWC).save(sink, "JPEG", quality=92)
    return len(sink.getvalue()) / pixels_HWC[..., 0].size


def test_amplitude_falls_as_that_of_photographs() -> None:
    """Held against numpy's transform: the slope of log amplitude over log frequency."""
    side_px = 256
    green_HW = make_scene(side_px, side_px, seed=3).numpy()[..., 1].astype(np.float64)
    amplitude_FF = np.abs(np.fft.fft2(green_HW - green_HW.mean()))
    frequency_F = np.fft.fftfreq(side_px) * side_px
    radius_FF = np.hypot(frequency_F[:, None], frequency_F[None])
    rings = [(radius_FF >= inner) & (radius_FF < 2 * inner) for inner in (4, 8, 16, 32)]
    log_radius = [np.log(radius_FF[ring]).mean() for ring in rings]
    log_amplitude = [np.log(amplitude_FF[ring]).mean() for ring in rings]
    assert np.polyfit(log_radius, log_amplitude, 1)[0] == pytest.approx(-1.4, abs=0.05)


def test_it_costs_an_encoder_what_photographs_cost(photos: dict[str, np.ndarray]) -> None:
    known = [bytes_per_pixel(photo[:300, :400]) for photo in photos.values()]
    made = [bytes_per_pixel(make_scene(300, 400, seed).numpy()) for seed in range(4)]
    assert min(known) < min(made) and max(made) < 1.5 * max(known)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_every_size_and_seed_gives_a_picture_and_the_same_one_again(height: int, width: int, seed: int) -> None:
    made = make_scene(height, width, seed)
    assert made.shape == (height, width, 3) and made.dtype == torch.uint8
    assert torch.equal(made, make_scene(height, width, seed))


def test_seeds_differ_and_nothing_of_a_caller_is_drawn() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert not torch.equal(make_scene(16, 16, 0), make_scene(16, 16, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_no_side_no_picture() -> None:
    with pytest.raises(ValueError, match="0x4"):
        make_scene(0, 4, 0)
