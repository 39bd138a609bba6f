import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stylejobs.core.draws import Draws, mean_of_one

KINDS = {
    "rand": lambda draws, rows: draws.rand(rows, 3),
    "rand in float64": lambda draws, rows: draws.rand(rows, 2, 2, dtype=torch.float64),
    "randn": lambda draws, rows: draws.randn(rows, 8),
    "randint": lambda draws, rows: draws.randint(1000, rows),
}
counts = st.integers(1, 5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def deal_out(rows: Tensor, num_workers: int) -> list[Tensor]:
    """The rows of each worker, one row to each in turn."""
    hands: list[list[Tensor]] = [[] for _ in range(num_workers)]
    for number, row in enumerate(rows):
        hands[number % num_workers].append(row)
    return [torch.stack(hand) for hand in hands]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), counts, counts)
def test_workers_get_the_rows_of_one_workers_draw(kind, seed, num_workers, rows):
    wanted = deal_out(KINDS[kind](Draws(seeded(seed)), rows * num_workers), num_workers)
    found = [KINDS[kind](Draws(seeded(seed), rank, num_workers), rows) for rank in range(num_workers)]
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), counts, counts, counts)
def test_rows_of_two_batches_joined_keep_their_numbers(seed, num_workers, num_real, num_fake):
    """Each worker joins its share of two batches, one worker joins the batches."""
    drawn = Draws(seeded(seed)).rand((num_real + num_fake) * num_workers)
    of_real, of_fake = drawn.split([num_real * num_workers, num_fake * num_workers])
    of_each = zip(deal_out(of_real, num_workers), deal_out(of_fake, num_workers), strict=True)
    for rank, hands in enumerate(of_each):
        found = Draws(seeded(seed), rank, num_workers).rand(num_real + num_fake)
        assert torch.equal(found, torch.cat(hands))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), counts)
def test_workers_stay_in_step(seed, num_workers):
    """After any draws of their rows, what they share is equal."""
    workers = [Draws(seeded(seed), rank, num_workers) for rank in range(num_workers)]
    for draws in workers:
        for draw_rows in KINDS.values():
            draw_rows(draws, 3)
    assert len({torch.rand((), generator=draws.shared).item() for draws in workers}) == 1


def test_one_worker_draws_as_torch_does():
    draws, rng = Draws(seeded(1)), seeded(1)
    assert torch.equal(draws.rand(3, 8), torch.rand(3, 8, generator=rng))
    assert torch.equal(draws.randn(2, 5), torch.randn(2, 5, generator=rng))
    assert torch.equal(draws.randint(7, 4), torch.randint(7, (4,), generator=rng))
    assert draws.shared.get_state().equal(rng.get_state())
    assert mean_of_one(rng.get_state()).equal(rng.get_state())


@pytest.mark.parametrize(("rank", "num_workers"), [(2, 2), (-1, 2), (0, 0)])
def test_workers_that_are_not_there_are_refused(rank, num_workers):
    with pytest.raises(ValueError, match=f"got {rank} of {num_workers}"):
        Draws(seeded(0), rank, num_workers)
