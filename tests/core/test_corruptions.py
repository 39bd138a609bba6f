"""The corruptions: laws that all of them keep, and each against a closed form or another implementation."""

import colorsys
import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from stylejobs.core.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stylejobs.core.corruptions.blur import MOTION, convolve, gaussian_blur, move, smear
from stylejobs.core.corruptions.digital import JPEG_QUALITIES
from stylejobs.core.corruptions.noise import GAUSSIAN_SIGMAS, IMPULSE_SHARES, SHOT_PHOTONS
from stylejobs.core.metrics import edge_cosine
from stylejobs.core.pixels import to_float

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)
DRAWS_NOTHING = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
KEEPS_PLAIN = {"defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform", "pixelate"}


@pytest.fixture(scope="module")
def pictures(photos) -> Tensor:
    """Twenty pieces of photographs, float [20, 3, 128, 128]."""
    pieces = [
        photo[top : top + 128, left : left + 128]
        for photo in photos.values()
        for top, left in ((20, 40), (100, 150), (150, 60), (60, 220))
    ]
    return to_float(torch.from_numpy(np.stack(pieces)))


def plain(level: float, side_px: int = 64, batch: int = 2) -> Tensor:
    return torch.full((batch, 3, side_px, side_px), 2.0 * level - 1.0)


def unit(image_BCHW: Tensor) -> np.ndarray:
    return ((image_BCHW.double() + 1.0) / 2.0).numpy()


def test_they_are_those_of_the_paper():
    assert len(CORRUPTIONS) == 15 and SEVERITIES == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("side_px", [128, 64])
@every_corruption
def test_a_higher_severity_is_a_larger_change(name, side_px, pictures):
    """In pixels; of fog, which is as thick at severity 4 as at 3 but finer, in edges."""
    small = torch.nn.functional.interpolate(pictures, size=side_px, mode="area")
    made = [corrupt(small, name, severity, seed=5) for severity in SEVERITIES]
    changes = [(image - small).abs().mean().item() for image in made]
    if name == "fog":
        changes = [1.0 - edge_cosine(image, small).mean().item() for image in made]
    assert changes[0] > 0.0 and all(now < then for now, then in pairwise(changes)), changes


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (97, 64)])
@every_corruption
def test_shape_type_and_range_stay_and_the_image_is_not_touched(name, size):
    image = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    before = image.clone()
    for severity in (1, 5):
        made = corrupt(image, name, severity, 0)
        assert made.shape == image.shape and made.dtype == torch.float64
        assert made.min() >= -1.0 and made.max() <= 1.0
    assert torch.equal(image, before)


@every_corruption
def test_the_seed_decides_and_nothing_else(name, pictures):
    image, state = pictures[:3, :, :64, :64], torch.random.get_rng_state()
    first = corrupt(image, name, 3, 7)
    assert torch.equal(first, corrupt(image, name, 3, 7))
    assert torch.equal(first, corrupt(image, name, 3, 8)) == (name in DRAWS_NOTHING)
    assert torch.equal(torch.random.get_rng_state(), state)
    twice = corrupt(image[:1].expand(2, -1, -1, -1), name, 3, 7)
    assert torch.equal(twice[0], twice[1]) == (name in DRAWS_NOTHING), "each image is corrupted in its own way"


@pytest.mark.parametrize("name", sorted(KEEPS_PLAIN))
def test_a_plain_image_has_nothing_to_lose_by_blur_and_warp(name):
    for severity in SEVERITIES:
        torch.testing.assert_close(corrupt(plain(0.3), name, severity, 1), plain(0.3), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_its_deviation(severity):
    sigma = GAUSSIAN_SIGMAS[severity - 1]
    found = unit(corrupt(plain(0.5, 256, 1), "gaussian_noise", severity, 0))
    # What is beyond 0 and 1 is clipped, so look where nothing is: the share within half a sigma of the mean.
    inside = np.abs(found - 0.5) < sigma / 2
    expected = math.erf(0.5 / math.sqrt(2.0))
    assert abs(inside.mean() - expected) < 4.0 * math.sqrt(expected * (1 - expected) / inside.size)
    assert abs(found.mean() - 0.5) < 4.0 * sigma / math.sqrt(found.size)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_shot_noise_is_as_large_as_the_root_of_the_light(severity):
    photons, level = SHOT_PHOTONS[severity - 1], 0.2
    found = unit(corrupt(plain(level, 256, 1), "shot_noise", severity, 0))
    assert found.mean() == pytest.approx(level, abs=4.0 * math.sqrt(level / photons / found.size))
    assert found.var() == pytest.approx(level / photons, rel=0.03)
    steps = found * photons
    np.testing.assert_allclose(steps, steps.round(), atol=1e-4)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_replaces_its_share_half_with_white_half_with_black(severity):
    share = IMPULSE_SHARES[severity - 1]
    found = unit(corrupt(plain(0.5, 256, 1), "impulse_noise", severity, 0))
    for level in (0.0, 1.0):
        assert (found == level).mean() == pytest.approx(
            share / 2, abs=4.0 * math.sqrt(share / 2 * (1 - share / 2) / found.size)
        )
    assert np.isin(found, (0.0, 0.5, 1.0)).all()


def test_brightness_adds_to_the_value_of_hsv():
    image = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(1)) * 2 - 1
    image[..., 0, 0] = -1.0
    found = unit(corrupt(image, "brightness", 2, 0))[0].reshape(3, -1).T
    for before, after in zip(unit(image)[0].reshape(3, -1).T, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.2)), atol=1e-6)


def test_contrast_shrinks_towards_the_mean_of_each_channel(pictures):
    found, source = unit(corrupt(pictures, "contrast", 3, 0)), unit(pictures)
    mean = source.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(found, mean + 0.2 * (source - mean), atol=1e-6)


def test_pixels_are_means_of_those_they_cover(pictures):
    source = unit(pictures)
    for severity, side in ((2, 2), (5, 4)):
        blocks = source.reshape(20, 3, 128 // side, side, 128 // side, side).mean(axis=(3, 5))
        expected = blocks.repeat(side, axis=2).repeat(side, axis=3)
        np.testing.assert_allclose(unit(corrupt(pictures, "pixelate", severity, 0)), expected, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_jpeg_keeps_what_a_file_of_that_quality_keeps(severity, pictures):
    for image_CHW in pictures[:8, :, :, :120]:
        pixels = ((image_CHW + 1.0) * 127.5).round().byte().permute(1, 2, 0).numpy()
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "JPEG", quality=JPEG_QUALITIES[severity - 1], subsampling="4:2:0")
        kept = np.asarray(Image.open(sink)).astype(float)
        found = 255.0 * unit(corrupt(image_CHW[None], "jpeg_compression", severity, 0))[0].transpose(1, 2, 0)
        loss = np.abs(kept - pixels).mean()
        assert np.abs(found - kept).mean() < 0.25 * loss, "nearer to the file than the file is to the picture, by far"


def test_defocus_is_the_mean_over_a_disk():
    rng = np.random.default_rng(0)
    image = rng.random((224, 230))
    reach = np.arange(-6, 7)
    disk = np.clip(6.5 - np.hypot(reach[:, None], reach[None]), 0.0, 1.0)
    expected = ndimage.convolve(image, disk / disk.sum(), mode="mirror")
    expected = ndimage.gaussian_filter(expected, 0.5, mode="mirror", truncate=4.0)
    tensor = torch.from_numpy(2.0 * image - 1.0).expand(1, 3, -1, -1)
    np.testing.assert_allclose(unit(corrupt(tensor, "defocus_blur", 3, 0))[0, 1], expected, atol=2e-4)


def test_a_gaussian_mean_is_scipys():
    image = np.random.default_rng(0).random((40, 61))
    found = gaussian_blur(torch.from_numpy(image)[None, None], 2.0)[0, 0].numpy()
    np.testing.assert_allclose(found, ndimage.gaussian_filter(image, 2.0, mode="mirror", radius=6), atol=1e-12)


def test_a_convolution_through_frequencies_is_a_convolution():
    rng = np.random.default_rng(0)
    images, kernels = rng.random((2, 1, 30, 41)), rng.random((2, 5, 5))
    found = convolve(torch.from_numpy(images), torch.from_numpy(kernels)).numpy()
    for row in range(2):
        expected = ndimage.convolve(images[row, 0], kernels[row], mode="mirror")
        np.testing.assert_allclose(found[row, 0], expected, atol=1e-10)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, -45.0])
def test_a_point_is_smeared_along_its_way(degrees):
    point = torch.zeros(1, 1, 61, 61)
    point[..., 30, 30] = 1.0
    radius, sigma = MOTION[1]
    smeared = smear(point, radius / 2, sigma, torch.tensor([degrees]))[0, 0].double()
    steps = torch.linspace(0.0, radius, 1 + 2 * math.ceil(radius), dtype=torch.float64)
    weights = torch.exp(-steps.square() / (2.0 * sigma**2))
    reach = (steps * weights).sum() / weights.sum()
    places = torch.arange(61, dtype=torch.float64) - 30
    assert smeared.sum().item() == pytest.approx(1.0, abs=1e-5)
    across, down = (smeared.sum(dim=0) * places).sum().item(), (smeared.sum(dim=1) * places).sum().item()
    assert across == pytest.approx(reach.item() * math.cos(math.radians(degrees)), abs=1e-3)
    assert down == pytest.approx(reach.item() * math.sin(math.radians(degrees)), abs=1e-3)


def test_pixels_are_moved_by_whole_and_half_pixels(pictures):
    image = pictures[:1]
    shift = torch.tensor([3.0, -2.0]).expand(1, 128, 128, 2)
    torch.testing.assert_close(move(image, shift)[..., 5:120, 5:120], image[..., 3:118, 8:123], rtol=0.0, atol=1e-4)
    halves = move(image, torch.tensor([0.5, 0.0]).expand(1, 128, 128, 2))[..., :120]
    torch.testing.assert_close(halves, (image[..., :120] + image[..., 1:121]) / 2, rtol=0.0, atol=1e-4)


def test_lengths_are_those_of_the_paper_at_224_px_and_shrink_with_the_image():
    """The blur of a large image, made small, is the blur of the small one."""
    large = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = torch.nn.functional.interpolate(large, size=224, mode="bicubic").clamp(-1, 1)
    small = torch.nn.functional.avg_pool2d(large, 4)
    for severity in (3, 5):
        shrunk = torch.nn.functional.avg_pool2d(corrupt(large, "defocus_blur", severity, 0), 4)
        change = (shrunk - small).abs().mean()
        assert (corrupt(small, "defocus_blur", severity, 0) - shrunk).abs().mean() < 0.3 * change


def test_fog_hides_contrast_and_snow_brightens(pictures):
    assert corrupt(pictures, "snow", 5, 0).mean() > pictures.mean() + 0.1
    deviations = [corrupt(pictures, "fog", severity, 0).std(dim=(2, 3)).mean() for severity in (1, 5)]
    assert deviations[1] < deviations[0] < pictures.std(dim=(2, 3)).mean()


@pytest.mark.parametrize(
    ("image", "name", "severity", "said"),
    [
        (torch.zeros(1, 3, 32, 32), "gaussian", 1, "did you mean 'gaussian_noise'"),
        (torch.zeros(1, 3, 32, 32), "fog", 6, "a severity of 1 to 5"),
        (torch.zeros(1, 3, 32, 8), "fog", 1, "at least 16 px"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "fog", 1, "wanted float images"),
        (torch.zeros(1, 1, 32, 32), "fog", 1, "wanted float images"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(image, name, severity, said):
    with pytest.raises(ValueError, match=said):
        corrupt(image, name, severity, 0)
