"""Blur: the score falls with it whatever the size, and the two remedies against scipy's and scikit-image's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, laplace
from skimage.restoration import wiener
from torch import Tensor

from stylejobs.core.sharpness import Deblur, blur_score, deconvolve_wiener, sharpen_unsharp

SIGMAS_PX = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


def to_image(pixels_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_HWC / 127.5 - 1.0).permute(2, 0, 1)[None].float()


def blurred(pixels_HWC: np.ndarray, sigma_px: float) -> np.ndarray:
    """What a camera would have given: blurred by scipy, rounded to 8 bits."""
    return gaussian_filter(pixels_HWC.astype(float), (sigma_px, sigma_px, 0), mode="reflect").round()


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * np.log10(4.0 / float((a - b).square().mean()))


@pytest.fixture(scope="module")
def crops(photos: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """256 px out of the middle of each photograph."""
    places = {name: ((image.shape[0] - 256) // 2, (image.shape[1] - 256) // 2) for name, image in photos.items()}
    return {name: photos[name][top : top + 256, left : left + 256] for name, (top, left) in places.items()}


class TestScore:
    def test_it_is_the_variance_of_the_laplacian_over_that_of_luma(self, crops: dict[str, np.ndarray]) -> None:
        for pixels_HWC in crops.values():
            small_HWC = pixels_HWC[:90, :128]  # below the reference size: nothing is scaled
            luma_HW = (small_HWC / 127.5 - 1) @ np.array([0.299, 0.587, 0.114])
            wanted = laplace(luma_HW, mode="nearest").var() / (luma_HW.var() + 1e-4)
            assert blur_score(to_image(small_HWC)).item() == pytest.approx(wanted, rel=1e-4)

    def test_law_it_falls_with_sigma_on_photographs(self, crops: dict[str, np.ndarray]) -> None:
        for pixels_HWC in crops.values():
            scores = [blur_score(to_image(blurred(pixels_HWC, sigma_px))).item() for sigma_px in SIGMAS_PX]
            assert [blur_score(to_image(pixels_HWC)).item(), *scores] == sorted(
                [blur_score(to_image(pixels_HWC)).item(), *scores], reverse=True
            )
            assert scores[3] < 0.4 * blur_score(to_image(pixels_HWC)).item()

    def test_law_twice_the_size_is_about_the_same_score(self, crops: dict[str, np.ndarray]) -> None:
        for pixels_HWC in crops.values():
            for sigma_px in (0.0, 2.0):
                image_BCHW = to_image(blurred(pixels_HWC, sigma_px))
                half_BCHW = F.interpolate(image_BCHW, scale_factor=0.5, mode="bilinear", antialias=True)
                double_BCHW = F.interpolate(image_BCHW, scale_factor=2.0, mode="bicubic")
                score = blur_score(image_BCHW).item()
                assert blur_score(half_BCHW).item() == pytest.approx(score, rel=0.25)
                assert blur_score(double_BCHW).item() == pytest.approx(score, rel=0.25)

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.3, 1.0), st.floats(-0.3, 0.3), st.integers(0, 99))
    def test_law_contrast_and_brightness_do_not_matter(self, contrast: float, brightness: float, seed: int) -> None:
        image_BCHW = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6
        changed = blur_score(contrast * image_BCHW + brightness).item()
        assert changed == pytest.approx(blur_score(image_BCHW).item(), rel=0.02)

    def test_a_row_depends_on_itself_and_any_size_has_a_finite_score(self) -> None:
        rng = torch.Generator().manual_seed(0)
        for size in ((1, 1), (1, 7), (2, 300), (129, 131)):
            batch_BCHW = torch.rand(3, 3, *size, generator=rng) * 2 - 1
            scores = blur_score(batch_BCHW)
            assert scores.shape == (3,) and scores.isfinite().all() and (scores >= 0).all()
            alone = torch.cat([blur_score(batch_BCHW[n : n + 1]) for n in range(3)])
            assert torch.allclose(scores, alone, rtol=1e-5)
        assert blur_score(torch.full((1, 3, 9, 9), 0.3)).item() < 1e-6


class TestUnsharp:
    def test_it_is_the_formula_with_scipys_gaussian(self, crops: dict[str, np.ndarray]) -> None:
        pixels_HWC = crops["coffee"][:101, :75].astype(float)
        smooth_HWC = gaussian_filter(pixels_HWC, (2.0, 2.0, 0), mode="reflect", truncate=8)
        wanted_HWC = (pixels_HWC + 0.7 * (pixels_HWC - smooth_HWC)).clip(0, 255)
        found_BCHW = sharpen_unsharp(to_image(pixels_HWC), 2.0, 0.7)
        assert (found_BCHW - to_image(wanted_HWC)).abs().max() < 2e-4

    def test_amount_zero_changes_nothing(self, crops: dict[str, np.ndarray]) -> None:
        image_BCHW = to_image(crops["chelsea"])
        assert torch.allclose(sharpen_unsharp(image_BCHW, 1.5, 0.0), image_BCHW, atol=1e-5)


class TestWiener:
    def test_it_is_that_of_scikit_image_on_the_mirrored_picture(self, crops: dict[str, np.ndarray]) -> None:
        grey_HW = (crops["astronaut"][:62, :81] / 127.5 - 1).mean(axis=2) * 0.4
        mirrored = np.block([[grey_HW, grey_HW[:, ::-1]], [grey_HW[::-1], grey_HW[::-1, ::-1]]])
        offsets = np.arange(-20, 21)
        bell = np.exp(-(offsets**2) / (2 * 1.5**2))
        psf = np.outer(bell, bell) / bell.sum() ** 2
        rows, columns = np.fft.fftfreq(124)[:, None], np.fft.rfftfreq(162)
        root = np.sqrt(4 - 2 * np.cos(2 * np.pi * rows) - 2 * np.cos(2 * np.pi * columns))
        wanted = wiener(mirrored, psf, 0.02, reg=root.astype(complex), clip=False)[:62, :81]
        image_BCHW = torch.from_numpy(grey_HW).float().expand(1, 3, -1, -1)
        found = deconvolve_wiener(image_BCHW, 1.5, 0.02)[0, 1].numpy()
        assert np.abs(found - wanted).max() < 1e-4

    @pytest.mark.parametrize("sigma_px", [1.5, 2.0, 3.0])
    def test_it_restores_a_blur_and_beats_unsharp(self, crops: dict[str, np.ndarray], sigma_px: float) -> None:
        for pixels_HWC in crops.values():
            sharp_BCHW, blurry_BCHW = to_image(pixels_HWC), to_image(blurred(pixels_HWC, sigma_px))
            before = psnr(blurry_BCHW, sharp_BCHW)
            gain = psnr(deconvolve_wiener(blurry_BCHW, sigma_px, 0.01), sharp_BCHW) - before
            assert gain > 1.0
            assert gain > psnr(sharpen_unsharp(blurry_BCHW, sigma_px, 1.0), sharp_BCHW) - before

    def test_without_rounding_and_noise_it_undoes_the_blur_up_to_the_border(self, crops: dict[str, np.ndarray]) -> None:
        pixels_HWC = gaussian_filter(crops["rocket"].astype(float), (1.5, 1.5, 0), mode="reflect")
        blurry_HWC = gaussian_filter(pixels_HWC, (1.5, 1.5, 0), mode="reflect", truncate=8)
        restored_BCHW = deconvolve_wiener(to_image(blurry_HWC), 1.5, 1e-5)
        difference_BCHW = (restored_BCHW - to_image(pixels_HWC)).abs()
        assert difference_BCHW.mean() < 0.1 * (to_image(blurry_HWC) - to_image(pixels_HWC)).abs().mean()
        assert difference_BCHW[..., 0, :].mean() < 3 * difference_BCHW.mean()

    def test_it_raises_the_score(self, crops: dict[str, np.ndarray]) -> None:
        for pixels_HWC in crops.values():
            blurry_BCHW = to_image(blurred(pixels_HWC, 2.0))
            for deblur in (Deblur("wiener", sigma_px=2.0), Deblur("unsharp", sigma_px=2.0)):
                assert blur_score(deblur(blurry_BCHW)).item() > 1.3 * blur_score(blurry_BCHW).item()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from(["unsharp", "wiener"]), st.floats(0.3, 4.0))
def test_law_size_mean_and_flat_pictures_are_kept(height: int, width: int, method: str, sigma_px: float) -> None:
    deblur = Deblur(method, sigma_px=sigma_px)
    image_BCHW = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height)) * 0.1 - 0.3
    sharp_BCHW = deblur(image_BCHW)
    assert sharp_BCHW.shape == image_BCHW.shape and sharp_BCHW.dtype == image_BCHW.dtype
    if sharp_BCHW.abs().max() < 1:
        assert torch.allclose(sharp_BCHW.mean(dim=(2, 3)), image_BCHW.mean(dim=(2, 3)), atol=1e-4)
    flat_BCHW = torch.full((1, 3, height, width), 0.4)
    assert torch.allclose(deblur(flat_BCHW), flat_BCHW, atol=1e-5)


def test_below_names_the_pictures() -> None:
    assert Deblur("wiener").applies_to(99.0)
    assert Deblur("wiener", below=0.1).applies_to(0.09) and not Deblur("wiener", below=0.1).applies_to(0.1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda image: sharpen_unsharp(image, 0.0, 1.0), "wanted sigma_px > 0"),
        (lambda image: sharpen_unsharp(image, 1.0, -1.0), "wanted amount >= 0"),
        (lambda image: deconvolve_wiener(image, float("nan"), 0.1), "wanted sigma_px > 0"),
        (lambda image: deconvolve_wiener(image, 1.0, 0.0), "wanted noise > 0"),
        (lambda image: Deblur("median"), "out of unsharp, wiener; got 'median'"),
    ],
)
def test_wrong_numbers_are_refused(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(torch.zeros(1, 3, 4, 4))
