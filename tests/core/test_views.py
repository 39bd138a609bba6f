"""Views: the plain crop is today's bit for bit; the rest against Pillow and numpy, which know no torch.

What was drawn is measured on pictures made for it (ramps, greys, one red): the same seed draws the same for any image.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.core.views import ViewOptions, random_view
from tests.core.viewing import drawn_angle, most, noise, numbered, plain, seeded, view

EVERYTHING = ViewOptions(
    32, rotation_degrees=180, scale=(0.25, 4), brightness=1, contrast=1, saturation=1, hue=0.5, mosaic=4
)
seeds = st.integers(0, 2**31)
sides = st.integers(1, 60)


@st.composite
def options(draw: st.DrawFn, **fixed: object) -> ViewOptions:
    size_px = draw(st.integers(1, 48))
    share = st.sampled_from([0.0, 0.3, 1.0])
    drawn = {
        "size_px": size_px,
        "load_px": draw(st.none() | st.integers(size_px, 64)),
        "flip": draw(share),
        "rotation_degrees": draw(st.sampled_from([0.0, 10.0, 180.0])),
        "scale": draw(st.sampled_from([(1.0, 1.0), (0.25, 4.0), (0.5, 0.9), (1.5, 1.5)])),
        **{name: draw(share) for name in ("brightness", "contrast", "saturation")},
        "hue": draw(st.sampled_from([0.0, 0.5])),
        "mosaic": draw(st.integers(1, max(1, size_px // 4))),
    }
    return ViewOptions(**(drawn | fixed))


class TestEveryView:
    @settings(max_examples=80, deadline=None)
    @given(sides, sides, options(), seeds)
    def test_size_dtype_and_repeatability(self, height, width, options, seed):
        image_HWC = torch.from_numpy(noise(height, width))
        before = image_HWC.clone(), torch.get_rng_state()
        views = [random_view(image_HWC, options, seeded(seed)) for _ in range(2)]
        assert views[0].shape == (options.size_px, options.size_px, 3)
        assert views[0].dtype == torch.uint8 and views[0].is_contiguous()
        assert torch.equal(*views)
        assert torch.equal(image_HWC, before[0]) and torch.equal(torch.get_rng_state(), before[1])

    @settings(max_examples=80, deadline=None)
    @given(sides, sides, options(), seeds)
    def test_three_numbers_are_drawn_whatever_the_image_and_the_options(self, height, width, options, seed):
        rng, wanted = seeded(seed), seeded(seed)
        random_view(torch.from_numpy(noise(height, width)), options, rng)
        torch.rand(3, generator=wanted, dtype=torch.float64)
        assert torch.equal(rng.get_state(), wanted.get_state())

    @settings(max_examples=80, deadline=None)
    @given(sides, sides, options(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0), seeds, st.integers(0, 255))
    def test_nothing_moves_in_that_is_not_of_the_image(self, height, width, options, seed, level):
        image_HWC = np.full((height, width, 3), (level, 255, 7), np.uint8)
        assert (view(image_HWC, options, seed) == (level, 255, 7)).all()

    @settings(max_examples=40, deadline=None)
    @given(options(flip=0.0, mosaic=1, hue=0.0, rotation_degrees=30.0, brightness=0.3, contrast=0.3), seeds)
    def test_a_gradient_keeps_its_direction_unless_mirrored(self, options, seed):
        options = replace(options, size_px=48, load_px=64)
        image_HWC = np.broadcast_to(np.linspace(60, 180, 300)[None, :, None], (100, 300, 3)).astype(np.uint8)
        rises = [
            float(one[:, 24:].mean()) - float(one[:, :24].mean())
            for one in (view(image_HWC, replace(options, flip=flip), seed) for flip in (0.0, 1.0))
        ]
        assert rises[0] > 0 > rises[1]
        assert rises[0] == pytest.approx(-rises[1])

    @pytest.mark.parametrize("size_px", [1, 3, 4, 32])
    def test_an_image_of_one_pixel(self, size_px):
        one = replace(EVERYTHING, size_px=size_px, mosaic=max(1, size_px // 4))
        for seed in range(20):
            shown = view(noise(1, 1), one, seed)
            assert shown.shape == (size_px, size_px, 3) and most(shown, shown[:1, :1]) <= 1

    def test_a_setting_changes_nothing_but_its_own_step(self):
        image_HWC = noise(60, 70)
        for seed in range(20):
            turned = view(image_HWC, ViewOptions(32, rotation_degrees=20), seed)
            # Levels from 1 to 127 at most doubled: brightness can be divided out again.
            both = view(image_HWC // 2, ViewOptions(32, rotation_degrees=20, brightness=0.5), seed)
            factor = both.mean() / (turned.mean() / 2 - 0.25)
            assert most(both / factor, turned / 2) < 3


class TestCropAndFlip:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(24, 60), st.integers(24, 60), st.integers(1, 24), seeds)
    def test_by_default_it_is_the_plain_crop(self, height, width, size_px, seed):
        image_HWC = noise(height, width)
        assert np.array_equal(view(image_HWC, ViewOptions(size_px), seed), plain(image_HWC, size_px, seed))

    def test_all_windows_are_reached_mirrored_or_not(self):
        rng, image_HWC = seeded(0), torch.from_numpy(numbered(6, 7))
        seen = set()
        for _ in range(400):
            shown = random_view(image_HWC, ViewOptions(4), rng)
            seen.add((int(shown[0, 0, 0]), int(shown[0, :, 1].min()), bool(shown[0, 0, 1] > shown[0, -1, 1])))
        assert seen == {(top, left, mirrored) for top in range(3) for left in range(4) for mirrored in (False, True)}

    @pytest.mark.parametrize("flip", [0.0, 0.2, 1.0])
    def test_the_share_of_mirrored_views_is_flip(self, flip):
        rng, image_HWC = seeded(1), torch.from_numpy(numbered(4, 4))
        mirrored = [bool(random_view(image_HWC, ViewOptions(4, flip=flip), rng)[0, 0, 1]) for _ in range(2000)]
        assert sum(mirrored) / 2000 == pytest.approx(flip, abs=0.04 if 0 < flip < 1 else 0)

    def test_what_is_drawn_besides_does_not_know_of_the_flip(self):
        rng, levels = seeded(2), {False: [], True: []}
        image_HWC = torch.full((4, 4, 3), 100, dtype=torch.uint8)
        image_HWC[:, 0] = 10
        for _ in range(2000):
            shown = random_view(image_HWC, ViewOptions(4, brightness=1), rng)[0, :, 0].tolist()
            levels[shown[0] > shown[-1]].append(shown[1])
        # A thousand of deviation 58 each: the means are within 8 of 100, more than four of their deviations.
        assert all(len(found) > 900 and abs(np.mean(found) - 100) < 8 for found in levels.values())
        assert all(abs(np.std(found) - 200 / 12**0.5) < 5 for found in levels.values())

    @pytest.mark.parametrize(("shape", "load_px"), [((40, 60), 20), ((12, 9), 20), ((12, 9), None), ((3, 2), None)])
    def test_an_image_is_scaled_to_load_px_or_where_it_is_too_small(self, shape, load_px):
        image_HWC = noise(*shape)
        factor = (load_px or 16) / min(shape)
        height, width = (max(load_px or 16, int(side * factor)) for side in shape)
        scaled = np.asarray(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))
        for seed in range(10):
            assert most(view(image_HWC, ViewOptions(16, load_px), seed), plain(scaled, 16, seed)) <= 1


class TestGeometry:
    def test_a_turned_view_is_what_pillow_turns(self, photos):
        image_HWC = photos["chelsea"][100:164, 150:214]
        options = ViewOptions(64, flip=0, rotation_degrees=40)
        y, x = np.mgrid[:64, :64] - 31.5
        angles = [drawn_angle(options, seed) for seed in range(12)]
        for seed, angle in enumerate(angles):
            turned = np.asarray(Image.fromarray(image_HWC).rotate(angle, Image.Resampling.BILINEAR))
            assert most(view(image_HWC, options, seed)[np.hypot(x, y) < 31], turned[np.hypot(x, y) < 31]) <= 3
        assert -40 < min(angles) < -20 and 20 < max(angles) < 40

    def test_a_magnified_view_is_what_pillow_enlarges(self, photos):
        image_HWC = photos["coffee"][:64, :64]
        shown = view(image_HWC, ViewOptions(64, load_px=64, flip=0, scale=(2, 2)), 0)
        # 64 px of the view are 32 of the image; its window is one px larger than their centres are apart.
        top, left = (int(draw * 32) for draw in torch.rand(2, generator=seeded(0), dtype=torch.float64))
        box = (left + 0.5, top + 0.5, left + 32.5, top + 32.5)
        wanted = Image.fromarray(image_HWC).resize((64, 64), Image.Resampling.BILINEAR, box=box)
        assert most(shown[1:-1, 1:-1], np.asarray(wanted)[1:-1, 1:-1]) <= 1

    def test_a_shrunken_view_is_a_mean_and_not_every_second_pixel(self):
        image_HWC = noise(200, 220)
        for seed in range(5):
            window = plain(image_HWC, 128, seed).reshape(64, 2, 64, 2, 3).mean((1, 3))
            assert most(view(image_HWC, ViewOptions(64, scale=(0.5, 0.5)), seed), window) <= 0.51

    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.25, 4), st.floats(0.25, 4), seeds)
    def test_the_magnification_is_within_its_bounds(self, one, other, seed):
        low, high = sorted((one, other))
        shown = view(numbered(250, 250), ViewOptions(16, flip=0, scale=(low, high)), seed).astype(float)
        step = (shown[:, -1, 1] - shown[:, 0, 1]).mean() / 15
        assert 1 / high - 0.07 < step < 1 / low + 0.07

    def test_magnifications_fill_their_range(self):
        options = ViewOptions(64, flip=0, scale=(0.5, 2))
        views = [view(numbered(250, 250), options, seed).astype(float) for seed in range(200)]
        found = [63 / (one[:, -1, 1] - one[:, 0, 1]).mean() for one in views]
        assert 0.49 < min(found) < 0.53 and 1.93 < max(found) < 2.05
        assert np.mean(found) == pytest.approx(1.25, abs=0.12)

    def test_an_image_that_is_large_enough_is_not_reflected(self):
        """Views of a ramp are planes; a reflection would fold them."""
        y, x = np.mgrid[:48, :48]
        plane = np.stack([x.ravel(), y.ravel(), np.ones(48 * 48)], -1)
        for seed in range(40):
            shown = view(numbered(250, 120), ViewOptions(48, rotation_degrees=180, scale=(0.6, 2)), seed)
            for channel in (0, 1):
                _, (squares,), *_ = np.linalg.lstsq(plane, shown[..., channel].ravel().astype(float), rcond=None)
                assert squares / 48**2 < 0.2

    def test_where_the_image_ends_comes_its_mirror_image(self):
        image_HWC = noise(16, 16)
        shown = view(image_HWC, ViewOptions(16, flip=0, scale=(0.25, 0.25)), 0)
        tiled = np.pad(image_HWC, ((24, 24), (24, 24), (0, 0)), "symmetric").reshape(16, 4, 16, 4, 3).mean((1, 3))
        assert most(shown, tiled) <= 0.51


class TestMosaic:
    @settings(max_examples=40, deadline=None)
    @given(options(), seeds)
    def test_no_pixel_is_changed(self, options, seed):
        image_HWC = noise(50, 60)
        whole = view(image_HWC, replace(options, mosaic=1), seed).reshape(-1, 3)
        mixed = view(image_HWC, options, seed).reshape(-1, 3)
        assert np.array_equal(whole[np.lexsort(whole.T)], mixed[np.lexsort(mixed.T)])

    def test_patches_change_places_in_every_order(self):
        labels = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 8, 0), 8, 1)
        image_HWC = np.repeat(labels[..., None], 3, -1)
        orders = set()
        for seed in range(300):
            patches = view(image_HWC, ViewOptions(16, flip=0, mosaic=2), seed)[..., 0].reshape(2, 8, 2, 8)
            assert (patches == patches[:, :1, :, :1]).all()
            orders.add(tuple(patches[:, 0, :, 0].ravel().tolist()))
        assert len(orders) == 24


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"size_px": 0}, "wanted size_px >= 1; got 0"),
            ({"load_px": 31}, r"wanted load_px of at least size_px \(32\); got 31"),
            ({"flip": 1.1}, r"wanted flip in \[0, 1\]; got 1.1"),
            ({"rotation_degrees": -1}, r"wanted rotation_degrees in \[0, 180\]; got -1"),
            ({"rotation_degrees": float("nan")}, "rotation_degrees.* got nan"),
            ({"brightness": 1.5}, r"wanted brightness in \[0, 1\]; got 1.5"),
            ({"contrast": -0.1}, r"wanted contrast in \[0, 1\]"),
            ({"saturation": 2}, r"wanted saturation in \[0, 1\]"),
            ({"hue": 0.6}, r"wanted hue in \[0, 0.5\]; got 0.6"),
            ({"scale": (1.2, 0.8)}, r"wanted scale as \(low, high\), 0.25 <= low <= high <= 4; got \(1.2, 0.8\)"),
            ({"scale": (0.1, 1)}, "wanted scale"),
            ({"scale": (1,)}, r"wanted scale.* got \(1,\)"),
            ({"mosaic": 9}, r"wanted mosaic in \[1, 8\], patches of 32 px views; got 9"),
            ({"mosaic": 0}, "wanted mosaic"),
        ],
    )
    def test_options_out_of_range(self, changes, message):
        with pytest.raises(ValueError, match=message):
            ViewOptions(**({"size_px": 32} | changes))

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (torch.zeros(4, 4, 3), r"wanted uint8 \[H, W, C\]; got torch.float32 \[4, 4, 3\]"),
            (torch.zeros(4, 4, dtype=torch.uint8), r"wanted uint8 \[H, W, C\]; got torch.uint8 \[4, 4\]"),
            (torch.zeros(4, 0, 3, dtype=torch.uint8), r"wanted H, W >= 1.*got \[4, 0, 3\]"),
            (torch.zeros(4, 4, 1, dtype=torch.uint8), r"C of 3 where colours change; got \[4, 4, 1\]"),
        ],
    )
    def test_what_is_no_image(self, image, message):
        with pytest.raises(ValueError, match=message):
            random_view(image, EVERYTHING, seeded(0))

    def test_any_channels_where_colours_stay(self):
        grey = torch.arange(64, dtype=torch.uint8).reshape(8, 8, 1)
        assert random_view(grey, ViewOptions(8, rotation_degrees=30, mosaic=2), seeded(0)).shape == (8, 8, 1)
