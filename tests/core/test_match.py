"""Content match: photographs are stylized in full, images that look like the style already much less."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torch import Tensor

from stylejobs.core.match import EMBEDDING_LENGTH, Match, embed, fit_match, style_target

PAIR = Path(os.environ.get("STYLEJOBS_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "pair256"


def to_image(pixels_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels_HWC) / 127.5 - 1.0).permute(2, 0, 1)[None].float()


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def painted(pixels_HWC: np.ndarray) -> np.ndarray:
    """Flat strokes in warm, dark colours."""
    strokes = Image.fromarray(pixels_HWC).filter(ImageFilter.ModeFilter(7))
    return (np.asarray(strokes) * [0.95, 0.7, 0.45]).astype(np.uint8)


@pytest.fixture(scope="module")
def crops(photos: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """128 px views of photographs: `fit` and, of other places, `test`."""
    views: dict[str, list[np.ndarray]] = {"fit": [], "test": []}
    for image in photos.values():
        places = [(y, x) for y in range(0, image.shape[0] - 128, 90) for x in range(0, image.shape[1] - 128, 90)]
        for number, (y, x) in enumerate(places):
            if image[y : y + 128, x : x + 128].std() > 20:  # a piece of empty sky is no picture
                views["test" if number % 4 == 1 else "fit"].append(image[y : y + 128, x : x + 128])
    return views


@pytest.fixture(scope="module")
def match(crops: dict[str, list[np.ndarray]]) -> Match:
    content = [to_image(crop) for crop in crops["fit"]]
    return fit_match(content, {"painted": [to_image(painted(crop)) for crop in crops["fit"][::2]]})


def strengths(match: Match, images: list[Tensor], style: str) -> np.ndarray:
    return torch.cat([match.strength(embed(image_BCHW), style) for image_BCHW in images]).numpy()


class TestStrength:
    def test_photographs_are_stylized_and_painted_ones_left_alone(
        self, match: Match, crops: dict[str, list[np.ndarray]]
    ) -> None:
        photographs = strengths(match, [to_image(crop) for crop in crops["test"]], "painted")
        paintings = strengths(match, [to_image(painted(crop)) for crop in crops["test"]], "painted")
        assert photographs.mean() > 0.75 and paintings.mean() < 0.65
        assert photographs.mean() - paintings.mean() > 0.3
        assert ((photographs >= 0) & (photographs <= 1)).all() and ((paintings >= 0) & (paintings <= 1)).all()

    def test_it_is_the_formula(self, crops: dict[str, list[np.ndarray]], match: Match) -> None:
        embedding_BD = torch.cat([embed(to_image(crop)) for crop in crops["test"]])
        s = (embedding_BD.double().numpy() - match.origin_D.double().numpy()) @ match.whitening_DD.double().numpy()
        target = match.targets["painted"].double().numpy()
        cosine = s @ target / np.linalg.norm(s, axis=1) / np.linalg.norm(target)
        found = match.strength(embedding_BD, "painted").numpy()
        assert np.allclose(found, np.clip(1 - cosine, 0, 1), atol=1e-4)

    def test_the_style_image_itself_needs_nothing(self, match: Match, crops: dict[str, list[np.ndarray]]) -> None:
        image_BCHW = to_image(painted(crops["test"][0]))
        single = match.with_targets({"one": style_target(match, [image_BCHW])})
        assert strengths(single, [image_BCHW], "one")[0] == pytest.approx(0, abs=1e-5)

    @pytest.mark.skipif(not PAIR.exists(), reason="no development data (STYLEJOBS_DATA or ../shared/data)")
    def test_on_real_paintings(self) -> None:
        def images(folder: str, every: int) -> list[Tensor]:
            return [to_image(Image.open(path).convert("RGB")) for path in sorted((PAIR / folder).glob("*"))[::every]]

        match = fit_match(images("trainA", 3), {"met": images("trainB", 3)})
        photographs = strengths(match, images("testA", 2), "met")
        paintings = strengths(match, images("testB", 1), "met")
        assert photographs.mean() > 0.85 and paintings.mean() < 0.72
        assert (photographs[:, None] > paintings[None]).mean() > 0.8


class TestEmbedding:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(1, 130), st.integers(1, 130), st.integers(1, 3))
    def test_any_size_gives_finite_numbers_and_rows_are_apart(self, height: int, width: int, batch: int) -> None:
        image_BCHW = noise(height, batch, 3, height, width)
        embedding_BD = embed(image_BCHW)
        assert embedding_BD.shape == (batch, EMBEDDING_LENGTH) and embedding_BD.isfinite().all()
        alone = torch.cat([embed(image_BCHW[n : n + 1]) for n in range(batch)])
        assert torch.allclose(embedding_BD, alone, atol=1e-4)

    def test_half_the_size_is_the_same_picture(self, match: Match, photos: dict[str, np.ndarray]) -> None:
        for pixels_HWC in photos.values():
            image_BCHW = to_image(pixels_HWC)
            half_BCHW = F.interpolate(image_BCHW, scale_factor=0.5, mode="bilinear", antialias=True)
            pair = strengths(match, [image_BCHW, half_BCHW], "painted")
            assert abs(pair[0] - pair[1]) < 0.08

    def test_the_first_numbers_are_moments_of_opponent_colours(self) -> None:
        image_BCHW = noise(0, 1, 3, 96, 96)
        red, green, blue = image_BCHW[0].double().numpy()
        channels = np.stack([(red + green + blue) / 3, (red - green) / 2, (red + green - 2 * blue) / 4])
        found = embed(image_BCHW)[0].numpy()
        assert np.allclose(found[:3], channels.mean(axis=(1, 2)), atol=1e-5)
        assert np.allclose(found[3:6], np.log(channels.std(axis=(1, 2))), atol=1e-3)
        assert found[6] == pytest.approx(np.corrcoef(channels[0].ravel(), channels[1].ravel())[0, 1], abs=1e-3)

    def test_it_forgets_where_things_are(self, photos: dict[str, np.ndarray]) -> None:
        image_BCHW = to_image(photos["coffee"])
        assert torch.allclose(embed(image_BCHW), embed(image_BCHW.flip(3)), atol=0.02)

    def test_stripes_have_a_direction_and_noise_has_none(self) -> None:
        stripes_BCHW = torch.sin(torch.arange(96.0))[None, None, None, :].expand(1, 3, 96, 96)
        coherence = slice(17, 18)  # of the first octave
        assert embed(stripes_BCHW)[0, coherence] > 0.9 > 0.5 > embed(noise(0, 1, 3, 96, 96))[0, coherence]

    def test_other_tensors_are_refused(self) -> None:
        with pytest.raises(ValueError, match="wanted a float batch"):
            embed(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


class TestFit:
    def test_with_many_images_the_content_domain_is_white(self) -> None:
        content = [noise(seed, 1, 3, 12, 12) * (0.2 + seed % 7 / 9) + (seed % 5 - 2) / 9 for seed in range(400)]
        match = fit_match(content, {})
        white_ND = match.whitened(torch.cat([embed(image_BCHW) for image_BCHW in content]))
        assert white_ND.mean(dim=0).abs().max() < 1e-2
        correlations = np.corrcoef(white_ND.numpy().T)[~np.eye(EMBEDDING_LENGTH, dtype=bool)]
        assert np.abs(correlations).mean() < 0.1

    def test_with_few_images_it_is_finite_and_nearly_a_division_by_the_spread(self) -> None:
        match = fit_match([noise(0, 2, 3, 20, 20)], {"a": [noise(2, 1, 3, 9, 9)]})
        assert match.whitening_DD.isfinite().all() and match.targets["a"].isfinite().all()
        assert torch.allclose(match.whitening_DD.diagonal() > 0, torch.tensor(True))

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda: fit_match([], {}), "the content domain: wanted 2 image"),
            (lambda: fit_match([noise(0, 1, 3, 9, 9)], {}), "the content domain: wanted 2 image"),
            (lambda: fit_match([noise(0, 2, 3, 9, 9)], {"sea": []}), "style 'sea': wanted 1 image"),
            (lambda: fit_match([torch.full((2, 3, 9, 9), torch.nan)], {}), "holds NaN"),
            (lambda: Match(torch.zeros(3), torch.eye(3), {}), f"targets of {EMBEDDING_LENGTH} numbers"),
        ],
    )
    def test_what_cannot_be_fitted(self, call: Callable[[], object], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            call()
