"""MS-SSIM against scipy in float64 and scikit-image; the Gram distance against its definition."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import gram_matrix
from stylejobs.core.metrics import ms_ssim, style_distance

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
