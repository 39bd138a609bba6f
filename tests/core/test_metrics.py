"""MS-SSIM and edge cosine against scipy in float64 and scikit-image; the Gram distance against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import structural_similarity

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import gram_matrix
from stylejobs.core.metrics import edge_cosine, ms_ssim, style_distance

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """Something like a photograph: blurred noise in [-1, 1], channels first."""
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    image = sum(ndimage.gaussian_filter(noise, (0, sigma, sigma)) * sigma for sigma in (1, 3, 9))
    return image / np.abs(image).max()


def pair(height: int, width: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    first = smooth(height, width, 0)
    return first, np.clip(first + noise * smooth(height, width, 1), -1, 1)


def tensor(image_CHW: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image_CHW)[None]


def reference(a: np.ndarray, b: np.ndarray, num_scales: int) -> float:
    """Wang 2003 by scipy's filters: correlate everything, then keep what a valid window would."""
    weights = WEIGHTS[:num_scales] / WEIGHTS[:num_scales].sum()
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image):
        for axis in (0, 1):
            image = ndimage.correlate1d(image, window, axis=axis)
        return image[5:-5, 5:-5]

    values = []
    for x, y in zip((a + 1) / 2, (b + 1) / 2, strict=True):
        value = 1.0
        for scale, weight in enumerate(weights):
            mx, my = blur(x), blur(y)
            vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            cs = (2 * cov + 9e-4) / (vx + vy + 9e-4)
            index = cs * (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
            value *= max((index if scale == num_scales - 1 else cs).mean(), 0.0) ** weight
            height, width = (side // 2 * 2 for side in x.shape)
            x, y = (
                (
                    im[0:height:2, 0:width:2]
                    + im[1:height:2, 0:width:2]
                    + im[0:height:2, 1:width:2]
                    + im[1:height:2, 1:width:2]
                )
                / 4
                for im in (x, y)
            )
        values.append(value)
    return float(np.mean(values))


@pytest.mark.parametrize(("height", "width", "num_scales"), [(176, 200, 5), (175, 300, 4), (64, 61, 3), (22, 30, 2)])
def test_against_scipy_in_float64(height, width, num_scales):
    first, second = pair(height, width)
    found = ms_ssim(tensor(first), tensor(second))
    assert found.dtype == torch.float64
    assert 0.3 < found.item() < 0.999
    assert found.item() == pytest.approx(reference(first, second, num_scales), abs=1e-10)


def test_one_scale_is_scikit_images_ssim():
    first, second = pair(20, 21)
    expected = []
    for x, y in zip((first + 1) / 2, (second + 1) / 2, strict=True):
        _, full = structural_similarity(
            x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        expected.append(full[5:-5, 5:-5].mean())
    assert ms_ssim(tensor(first), tensor(second)).item() == pytest.approx(np.mean(expected), abs=1e-10)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (10, 10), (11, 40), (200, 180)])
def test_equal_images_score_one_at_any_size(size):
    image = tensor(smooth(*size, 3)) if min(size) > 1 else torch.full((1, 3, *size), 0.4)
    assert ms_ssim(image, image).item() == pytest.approx(1.0, abs=1e-12)


def test_symmetric_per_row_and_falling_with_noise():
    first = tensor(smooth(96, 96, 0))
    noisy = torch.cat([first + amount * tensor(smooth(96, 96, 5)) for amount in (0.05, 0.2, 0.8)])
    repeated = first.expand(3, -1, -1, -1)
    scores = ms_ssim(repeated, noisy)
    torch.testing.assert_close(ms_ssim(noisy, repeated), scores)
    assert scores[0] > scores[1] > scores[2]
    torch.testing.assert_close(ms_ssim(first, noisy[1:2]), scores[1:2])


def test_an_inverted_image_scores_zero_not_nan():
    image = tensor(smooth(64, 64, 0))
    assert ms_ssim(image, -image).item() == 0.0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        ms_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))


def test_style_distance_is_its_formula_and_ignores_places():
    backbone = build_random_backbone(0)
    first, second = (tensor(smooth(64, 64, seed)).float() for seed in (0, 1))
    layers = ("fire2", "fire4")
    expected = []
    for layer in layers:
        grams = [gram_matrix(backbone(image, (layer,))[layer]).double().numpy()[0] for image in (first, second)]
        norms = [np.linalg.norm(gram) for gram in grams]
        expected.append(np.linalg.norm(grams[0] - grams[1]) ** 2 / (norms[0] * norms[1]))
    found = style_distance(backbone, torch.cat([first, second]), second, layers)
    assert found.shape == (2,)
    assert found[0].item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert found[1].item() == pytest.approx(0.0, abs=1e-9)
    shifted = style_distance(backbone, second.roll(16, dims=3), second, layers).item()
    assert shifted < 0.1 * found[0].item()


def edge_reference(a: np.ndarray, b: np.ndarray) -> float:
    """Edge cosine by scipy's filters over whole arrays, cropped where ours stays inside."""
    cosines = []
    a, b = (np.tensordot([0.299, 0.587, 0.114], image, 1) for image in (a, b))
    for _ in range(3):
        maps = []
        for image in (a, b):
            across = ndimage.correlate1d(image, [-1, 0, 1], axis=1, mode="nearest")
            down = ndimage.correlate1d(image, [-1, 0, 1], axis=0, mode="nearest")
            edges = ndimage.gaussian_filter(np.hypot(across, down), 1.0, truncate=2.0)[2:-2, 2:-2]
            size = [max(3, side // 4 | 1) for side in edges.shape]
            sums, counts = (ndimage.uniform_filter(x, size, mode="constant") for x in (edges, np.ones_like(edges)))
            maps.append(edges - sums / counts)
        cosines.append((maps[0] * maps[1]).sum() / np.sqrt((maps[0] ** 2).sum() * (maps[1] ** 2).sum()))
        a, b = (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
        a, b = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).mean(axis=(1, 3)) for x in (a, b))
    return float(np.mean(cosines))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 90), (130, 47)])
def test_edge_cosine_against_scipy_in_float64(height, width):
    first, second = pair(height, width)
    found = edge_cosine(tensor(first), tensor(second))
    assert found.dtype == torch.float64
    assert 0.2 < found.item() < 0.99
    assert found.item() == pytest.approx(edge_reference(first, second), abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    gain=st.one_of(st.floats(0.2, 5.0), st.floats(-5.0, -0.2)),
    offset=st.floats(-2.0, 2.0),
    seed=st.integers(0, 99),
)
def test_edge_cosine_ignores_brightness_contrast_and_inversion(size, gain, offset, seed):
    first, second = (torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(s)) for s in (seed, seed + 100))
    cosine = edge_cosine(first, second)
    torch.testing.assert_close(edge_cosine(first * gain + offset, second), cosine, atol=1e-5, rtol=0)
    torch.testing.assert_close(edge_cosine(second, first), cosine)
    torch.testing.assert_close(edge_cosine(first.mT, second.mT), cosine)
    torch.testing.assert_close(edge_cosine(first[1:], second[1:]), cosine[1:])
    torch.testing.assert_close(edge_cosine(first, first * gain + offset), torch.ones(2).double(), atol=1e-5, rtol=0)
    assert cosine.abs().max() <= 1.0


def test_edge_cosine_of_photographs_falls_with_damage_and_is_nothing_for_others(photos):
    crops = [photo[y : y + 128, x : x + 128] for photo in photos.values() for y, x in ((20, 40), (160, 240))]
    image = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 127.5 - 1
    moved = image.roll(12, dims=3)
    noisy = [
        image + amount * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) for amount in (0.1, 0.4)
    ]
    scores = [edge_cosine(image, other).mean().item() for other in (image, *noisy, moved)]
    assert scores[0] == pytest.approx(1.0)
    assert scores == sorted(scores, reverse=True) and scores[1] > 0.8 and abs(scores[3]) < 0.2
    others = torch.cat([edge_cosine(image, image.roll(shift, dims=0)) for shift in (3, 4, 5, 7)])
    assert abs(others.mean().item()) < 0.03


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 7), (15, 33)])
def test_edge_cosine_at_any_size_and_of_flat_images(size):
    flat, noise = torch.full((1, 3, *size), 0.3), torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert edge_cosine(flat, flat - 0.5).item() == 1.0
    assert edge_cosine(noise, noise).item() == pytest.approx(1.0)
    if min(size) > 1:
        assert edge_cosine(flat, noise).item() == 0.0


def test_edge_cosine_wants_colour_images_of_one_shape():
    for second in (torch.zeros(1, 3, 8, 9), torch.zeros(1, 1, 8, 8)):
        with pytest.raises(ValueError, match="one shape"):
            edge_cosine(second[:, :, :, :8], second)
