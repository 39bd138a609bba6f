import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.augment import diff_augment, patch_mosaic, random_crop_flip
from stylejobs.core.draws import Draws


def numbered(height: int, width: int) -> torch.Tensor:
    """An image whose red is the row and whose green is the column."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return torch.stack([rows, columns, torch.zeros_like(rows)], dim=-1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 48), st.integers(0, 2**31))
def test_shape_dtype_and_repeatability(height, width, size_px, seed):
    views = [random_crop_flip(numbered(height, width), size_px, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert views[0].shape == (size_px, size_px, 3)
    assert views[0].dtype == torch.uint8
    assert views[0].is_contiguous()
    assert torch.equal(*views)


def test_a_view_is_a_window_perhaps_mirrored_and_all_are_reached():
    rng = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(400):
        view = random_crop_flip(numbered(6, 7), 4, rng)
        top, left = view[0, 0, 0].item(), view[0, :, 1].min().item()
        mirrored = bool(view[0, 0, 1] > view[0, -1, 1])
        window = numbered(6, 7)[top : top + 4, left : left + 4]
        assert torch.equal(view, window.flip(1) if mirrored else window)
        seen.add((top, left, mirrored))
    assert seen == {(top, left, mirrored) for top in range(3) for left in range(4) for mirrored in (False, True)}


def test_every_image_takes_the_same_number_of_draws():
    states = []
    for shape in ((3, 90), (50, 50)):
        rng = torch.Generator().manual_seed(5)
        random_crop_flip(numbered(*shape), 16, rng)
        states.append(rng.get_state())
    assert torch.equal(*states)


def test_a_small_image_is_scaled_up_and_keeps_its_colour():
    view = random_crop_flip(torch.full((2, 3, 3), 77, dtype=torch.uint8), 32, torch.Generator().manual_seed(0))
    assert torch.equal(view, torch.full((32, 32, 3), 77, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(40, 60), (12, 9)])
def test_an_image_is_scaled_to_load_px_before_the_crop(shape):
    # A ramp along the columns: its slope tells how far the image was scaled, bilinear keeps straight lines.
    height, width = shape
    ramp = torch.linspace(0, 250, width)[None, :, None].expand(height, width, 3).round().to(torch.uint8)
    view = random_crop_flip(ramp, 16, torch.Generator().manual_seed(3), load_px=20).float()
    slope = (view[:, -4, 0] - view[:, 3, 0]).abs().mean() / 9
    assert slope == pytest.approx(250 / (width - 1) * min(shape) / 20, rel=0.1)


def test_a_view_larger_than_the_scaled_image_is_refused():
    with pytest.raises(ValueError, match="load_px"):
        random_crop_flip(torch.zeros(4, 4, 3, dtype=torch.uint8), 32, torch.Generator(), load_px=31)


def test_floats_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        random_crop_flip(torch.zeros(4, 4, 3), 2, torch.Generator())


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_strength_0_gives_the_same_tensor_and_draws_nothing():
    images, rng = draw(2, 3, 8, 8), seeded(0)
    before = rng.get_state()
    assert diff_augment(images, 0.0, Draws(rng)) is images
    assert torch.equal(rng.get_state(), before)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 13), st.integers(1, 13), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_an_augmented_batch_keeps_its_shape_and_repeats(batch, height, width, strength, seed):
    images = draw(batch, 3, height, width).float()
    augmented = [diff_augment(images, strength, Draws(seeded(seed))) for _ in range(2)]
    assert augmented[0].shape == images.shape
    assert augmented[0].dtype == torch.float32
    assert augmented[0].isfinite().all()
    assert torch.equal(*augmented)


def test_strength_is_the_share_of_rows_that_change():
    images = draw(1, 3, 4, 4).expand(2000, 3, 4, 4)
    changed = (diff_augment(images, 0.3, Draws(seeded(0))) != images).flatten(1).any(dim=1)
    # Four standard deviations of a share of 0.3 among 2000.
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.041)


def test_a_row_is_augmented_by_its_own_draws_alone():
    images = draw(3, 3, 9, 7)
    together = diff_augment(images, 1.0, Draws(seeded(4)))
    rng = seeded(4)
    for row in range(3):
        assert torch.equal(diff_augment(images[row : row + 1], 1.0, Draws(rng)), together[row : row + 1])
    for rank in range(3):
        alone = diff_augment(images[rank : rank + 1], 1.0, Draws(seeded(4), rank, 3))
        assert torch.equal(alone, together[rank : rank + 1])


def test_colour_translation_and_cutout_against_numpy():
    images, seed = draw(1, 3, 16, 24), 11
    _, b, s, c, down, right, centre_row, centre_column = torch.rand(
        8, generator=seeded(seed), dtype=torch.float64
    ).tolist()
    x = images[0].numpy() + b - 0.5
    x = x.mean(axis=0) * (1 - 2 * s) + x * 2 * s
    x = x.mean() * (1 - (c + 0.5)) + x * (c + 0.5)
    # An image on a canvas of zeros, seen through a window: 16 / 8 = 2 and 24 / 8 = 3 px of reach.
    canvas = np.zeros((3, 16 + 2 * 2, 24 + 2 * 3))
    canvas[:, 2:18, 3:27] = x
    top, left = int(down * 5), int(right * 7)
    expected = canvas[:, top : top + 16, left : left + 24].copy()
    rows, columns = np.mgrid[:16, :24]
    row, column = int(centre_row * 16), int(centre_column * 24)
    inside = (rows >= row - 4) & (rows < row + 4) & (columns >= column - 6) & (columns < column + 6)
    expected[:, inside] = 0
    np.testing.assert_allclose(diff_augment(images, 1.0, Draws(seeded(seed)))[0].numpy(), expected, atol=1e-12)


def test_gradients_flow_through_augmented_rows_and_match_finite_differences():
    images = draw(2, 3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, 1.0, Draws(seeded(3))).square(), images)
    # A gradient penalty differentiates twice.
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, 1.0, Draws(seeded(3))).square().sum(), images)
    diff_augment(images, 0.7, Draws(seeded(3))).square().sum().backward()
    assert (images.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_wrong_strengths_and_images_are_refused():
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="strength in"):
            diff_augment(draw(1, 3, 4, 4), strength, Draws(seeded(0)))
    with pytest.raises(ValueError, match="floats"):
        diff_augment(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 0.5, Draws(seeded(0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**31))
def test_a_mosaic_holds_the_same_pixels(batch, cells, more_rows, more_columns, seed):
    images = draw(batch, 3, 4 * cells + more_rows, 4 * cells + more_columns)
    mosaic = patch_mosaic(images, cells, seeded(seed))

    def pixels(image_BCHW):
        return sorted(map(tuple, image_BCHW.permute(0, 2, 3, 1).reshape(-1, 3).tolist()))

    assert mosaic.shape == images.shape
    assert pixels(mosaic) == pixels(images)


def test_patches_stay_whole_reach_every_place_and_the_rest_stays_put():
    height, width, cells = 13, 18, 2  # patches of 4 x 8 px, 5 rows and 2 columns left over
    labels = torch.arange(2 * cells * cells).reshape(2, 1, cells, 1, cells, 1)
    grid = labels.expand(2, 1, cells, 4, cells, 8).reshape(2, 1, cells * 4, cells * 8)
    images = torch.full((2, 1, height, width), -1)
    images[:, :, :8, :16] = grid
    places, rng = set(), seeded(0)
    for _ in range(200):
        mosaic = patch_mosaic(images, cells, rng)
        assert (mosaic[:, :, 8:] == -1).all()
        assert (mosaic[:, :, :, 16:] == -1).all()
        patches = mosaic[:, :, :8, :16].reshape(2, cells, 4, cells, 8).permute(0, 1, 3, 2, 4).reshape(8, 32)
        assert (patches == patches[:, :1]).all()
        places |= set(enumerate(patches[:, 0].tolist()))
    assert places == {(place, label) for place in range(8) for label in range(8)}


def test_one_cell_is_the_same_tensor_and_small_images_are_refused():
    images = draw(1, 3, 8, 8)
    assert patch_mosaic(images, 1, seeded(0)) is images
    with pytest.raises(ValueError, match="at least 12 px"):
        patch_mosaic(images, 3, seeded(0))
    with pytest.raises(ValueError, match="cells >= 1"):
        patch_mosaic(images, 0, seeded(0))
