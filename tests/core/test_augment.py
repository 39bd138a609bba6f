import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.augment import random_crop_flip


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


def test_floats_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        random_crop_flip(torch.zeros(4, 4, 3), 2, torch.Generator())
