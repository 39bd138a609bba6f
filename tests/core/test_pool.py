import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.draws import Draws
from stylejobs.core.pool import ImagePool


def numbered(first: int, batch: int) -> torch.Tensor:
    """Images whose every pixel is their number."""
    return torch.arange(first, first + batch, dtype=torch.float32)[:, None, None, None].expand(batch, 3, 2, 2)


def run(pool: ImagePool, first: int, steps: int, batch: int, rng: torch.Generator) -> list[float]:
    given_back = [pool.query(numbered(first + step * batch, batch), Draws(rng)) for step in range(steps)]
    return torch.cat(given_back)[:, 0, 0, 0].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_images_that_come_back_had_come_and_each_only_once_from_the_pool(size, batch, seed):
    pool, rng = ImagePool(size), torch.Generator().manual_seed(seed)
    back = run(pool, 0, 12, batch, rng)
    for position, number in enumerate(back):
        assert number <= position
    # One comes back at most twice: when it came while the pool filled, and when it is swapped out.
    assert all(back.count(number) <= 2 for number in back)
    assert pool.state_dict()["images_NCHW"].shape[0] == min(size, 12 * batch)


def test_the_first_images_fill_the_pool_and_come_back_as_they_are():
    assert run(ImagePool(5), 0, 5, 1, torch.Generator().manual_seed(0)) == [0, 1, 2, 3, 4]


def test_half_of_the_images_are_old_and_every_place_is_swapped():
    pool, rng = ImagePool(4), torch.Generator().manual_seed(0)
    back = run(pool, 0, 2000, 1, rng)[4:]
    old = sum(number != position for position, number in enumerate(back, start=4)) / len(back)
    assert old == pytest.approx(0.5, abs=0.045)  # four standard deviations
    assert min(pool.state_dict()["images_NCHW"][:, 0, 0, 0].tolist()) > 1900


def test_size_0_passes_through_without_draws():
    rng, images = torch.Generator().manual_seed(0), numbered(0, 3).clone().requires_grad_()
    before = rng.get_state()
    back = ImagePool(0).query(images, Draws(rng))
    assert torch.equal(back, images)
    assert not back.requires_grad
    assert torch.equal(rng.get_state(), before)


def test_draws_do_not_depend_on_how_full_the_pool_is():
    states = []
    for size in (1, 50):
        rng = torch.Generator().manual_seed(0)
        run(ImagePool(size), 0, 10, 2, rng)
        states.append(rng.get_state())
    assert torch.equal(*states)


def test_two_workers_have_draws_of_their_own():
    """Each has a pool, and of the draws for all rows those for its own."""
    drawn = torch.rand(8, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for rank in (0, 1):
        pool = ImagePool(4)
        pool.load_state_dict({"images_NCHW": numbered(0, 4)})
        back = pool.query(numbered(10, 4), Draws(torch.Generator().manual_seed(3), rank, 2))[:, 0, 0, 0].tolist()
        kept = [0.0, 1.0, 2.0, 3.0]
        for row, (coin, place) in enumerate(drawn[rank::2].tolist()):
            swapped = coin >= 0.5
            assert back[row] == (kept[int(4 * place)] if swapped else 10 + row)
            kept[int(4 * place)] = 10 + row if swapped else kept[int(4 * place)]
    assert drawn[:, 0].min() < 0.5
    assert drawn[:, 0].max() > 0.5


def test_kept_images_are_detached_copies():
    pool, rng = ImagePool(1), torch.Generator().manual_seed(0)
    images = torch.ones(1, 3, 2, 2, requires_grad=True)
    assert not pool.query(images * 1.0, Draws(rng)).requires_grad
    buffer = torch.full((1, 3, 2, 2), 5.0)
    pool = ImagePool(1)
    pool.query(buffer, Draws(rng))
    buffer.zero_()
    assert (pool.state_dict()["images_NCHW"] == 5.0).all()


def test_training_goes_on_exactly_from_a_saved_state(tmp_path):
    rng = torch.Generator().manual_seed(7)
    pool = ImagePool(6)
    run(pool, 0, 20, 2, rng)
    torch.save(pool.state_dict(), tmp_path / "pool.pt")
    state, rng_state = torch.load(tmp_path / "pool.pt", weights_only=True), rng.get_state()
    expected = run(pool, 40, 20, 2, rng)
    resumed, rng = ImagePool(6), torch.Generator()
    rng.set_state(rng_state)
    resumed.load_state_dict(state)
    assert run(resumed, 40, 20, 2, rng) == expected


def test_an_empty_pool_saves_and_loads():
    pool = ImagePool(3)
    pool.load_state_dict(ImagePool(3).state_dict())
    assert run(pool, 0, 3, 1, torch.Generator().manual_seed(0)) == [0, 1, 2]


def test_a_loaded_pool_gives_images_of_the_dtype_and_device_that_come():
    pool, rng = ImagePool(2), torch.Generator().manual_seed(0)
    pool.load_state_dict({"images_NCHW": numbered(0, 2).double()})
    back = pool.query(numbered(2, 8), Draws(rng))
    assert back.dtype == torch.float32
    assert back[:, 0, 0, 0].tolist() != list(range(2, 10))


def test_wrong_sizes_and_shapes_are_refused():
    pool, rng = ImagePool(2), torch.Generator().manual_seed(0)
    pool.query(numbered(0, 1), Draws(rng))
    with pytest.raises(ValueError, match="one shape"):
        pool.query(torch.zeros(1, 3, 4, 4), Draws(rng))
    with pytest.raises(ValueError, match="at most 2 images"):
        pool.load_state_dict({"images_NCHW": numbered(0, 3)})
    with pytest.raises(ValueError, match="size >= 0"):
        ImagePool(-1)
    with pytest.raises(ValueError, match="B, C, H, W"):
        pool.query(torch.zeros(3, 2, 2), Draws(rng))
