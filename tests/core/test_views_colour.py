"""Colours of views against Pillow and colorsys, which know no torch."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from stylejobs.core.views import ViewOptions
from tests.core.viewing import drawn_angle, most, numbered, plain, seeded, view


def greys() -> np.ndarray:
    return np.broadcast_to(np.arange(16, 112, 3, dtype=np.uint8)[:, None, None], (32, 32, 3))


def two_colours() -> np.ndarray:
    image_HWC = np.full((32, 32, 3), 128, np.uint8)
    image_HWC[:16, :, 0], image_HWC[16:, :, 0] = 178, 78
    return image_HWC


# Option -> what Pillow calls it; a picture that no factor up to 1.6 clips; what of it grows with the factor alone.
KINDS = {
    "brightness": (ImageEnhance.Brightness, greys(), lambda one: one.mean()),
    "contrast": (ImageEnhance.Contrast, greys() + 64, lambda one: one.std()),
    "saturation": (ImageEnhance.Color, two_colours(), lambda one: (one[..., 0] - one[..., 2]).std()),
}


def drawn_factor(name: str, reach: float, seed: int) -> float:
    _, image_HWC, measure = KINDS[name]
    after, before = (
        measure(view(image_HWC, options, seed).astype(float))
        for options in (ViewOptions(32, **{name: reach}), ViewOptions(32))
    )
    return after / before


def drawn_turns(reach: float, seed: int) -> float:
    """Of the hue, from what becomes of red."""
    red, green, blue = view(np.full((4, 4, 3), (255, 0, 0), np.uint8), ViewOptions(4, hue=reach), seed)[0, 0] / 255
    return (colorsys.rgb_to_hsv(red, green, blue)[0] + 0.5) % 1 - 0.5


class TestColour:
    @pytest.mark.parametrize("seed", range(10, 16))
    @pytest.mark.parametrize("names", [["brightness"], ["contrast"], ["saturation"], list(KINDS)])
    def test_colours_are_those_of_pillow(self, photos, names, seed):
        image_HWC = photos["flower"][100:132, 200:232]
        wanted = Image.fromarray(np.ascontiguousarray(plain(image_HWC, 32, seed)))
        for name in names:
            factor = drawn_factor(name, 0.6, seed)
            assert 0.4 <= factor <= 1.6 and abs(factor - 1) > 0.01
            wanted = KINDS[name][0](wanted).enhance(factor)
        shown = view(image_HWC, ViewOptions(32, **dict.fromkeys(names, 0.6)), seed)
        # Pillow rounds down after every step, and later factors enlarge that.
        assert most(shown, np.asarray(wanted)) <= (2 if len(names) == 1 else 5)

    @pytest.mark.parametrize("seed", range(6))
    def test_the_hue_turns_as_in_hsv(self, photos, seed):
        image_HWC = photos["flower"][100:132, 200:232].copy()
        image_HWC[:4] = np.arange(128).reshape(4, 32, 1) * 2
        turns = drawn_turns(0.5, seed)
        before, after = plain(image_HWC, 32, seed), view(image_HWC, ViewOptions(32, hue=0.5), seed)
        for pixel, shown in zip(before.reshape(-1, 3), after.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
            assert most(shown / 255, colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)) <= 2 / 255

    @pytest.mark.parametrize("name", KINDS)
    def test_factors_fill_their_range(self, name):
        factors = [drawn_factor(name, 0.3, seed) for seed in range(200)]
        assert 0.69 < min(factors) < 0.73 and 1.27 < max(factors) < 1.31

    def test_hues_fill_their_range(self):
        turns = [drawn_turns(0.25, seed) for seed in range(200)]
        assert -0.251 < min(turns) < -0.235 and 0.235 < max(turns) < 0.251


def test_what_is_drawn_for_one_step_says_nothing_of_another():
    magnified = ViewOptions(64, flip=0, scale=(0.5, 2))
    drawn = [
        (
            drawn_angle(ViewOptions(64, flip=0, rotation_degrees=40), seed),
            1 / np.ptp(view(numbered(250, 250), magnified, seed)[0, :, 1].astype(float)),
            drawn_turns(0.25, seed),
            *(drawn_factor(name, 0.3, seed) for name in KINDS),
            *torch.rand(3, generator=seeded(seed), dtype=torch.float64).tolist(),
        )
        for seed in range(200)
    ]
    # Four deviations of a correlation of 200 pairs are 0.28.
    assert (np.abs(np.corrcoef(np.transpose(drawn)) - np.eye(9)) < 0.28).all()
