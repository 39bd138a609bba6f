import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylejobs.core.draws import Draws
from stylejobs.core.methods import Curve, InverseDecay, Phase, linear_decay, moment_at

DRAWS = Draws(torch.Generator())
TWO = (
    Phase("warm", 0.25, ("a",), {"content": 2.0, "style": Curve(((0.0, 0.0), (1.0, 4.0)))}),
    Phase("main", 0.75, ("a", "b"), every={"a": 5}),
)


def test_linear_decay_is_the_published_schedule():
    """CycleGAN: 100 epochs at the full rate, 100 epochs down to 0."""
    decay = linear_decay(0.5)
    assert [decay.at(epoch / 200) for epoch in (0, 50, 100, 150, 200)] == [1.0, 1.0, 1.0, 0.5, 0.0]


def test_inverse_decay_is_the_published_schedule():
    """AdaIN: lr / (1 + 5e-5 * step) at batch 8."""
    decay = InverseDecay(5e-5 / 8)
    for step in (0, 1000, 160_000):
        assert decay.at(0.3, 8 * step) == pytest.approx(1.0 / (1.0 + 5e-5 * step), rel=1e-12)


@given(
    st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=6, unique=True),
    st.floats(0.0, 1.0),
    st.data(),
)
def test_a_curve_interpolates_and_stays_between_its_values(shares, share, data):
    values = data.draw(st.lists(st.floats(-5, 5), min_size=len(shares), max_size=len(shares)))
    points = tuple(zip(sorted(shares), values, strict=True))
    curve = Curve(points)
    assert min(values) - 1e-9 <= curve.at(share) <= max(values) + 1e-9
    for x, y in points:
        assert curve.at(x) == pytest.approx(y, abs=1e-9)


@pytest.mark.parametrize(
    "points", [(), ((0.5, 1.0), (0.5, 2.0)), ((0.6, 1.0), (0.5, 2.0)), ((-0.1, 1.0),), ((1.1, 1.0),)]
)
def test_curves_out_of_order_are_refused(points):
    with pytest.raises(ValueError, match="rising shares"):
        Curve(points)


def test_phases_follow_images_seen():
    names = [moment_at(TWO, 1, seen, 100, DRAWS).phase.name for seen in (0, 24, 25, 99, 100, 130)]
    assert names == ["warm", "warm", "main", "main", "main", "main"]
    assert moment_at(TWO, 1, 50, 100, DRAWS).share == 0.5
    assert moment_at(TWO, 1, 130, 100, DRAWS).share == 1.0


def test_weights_of_a_phase_run_over_the_phase():
    weights = [moment_at(TWO, 1, seen, 1000, DRAWS).weights for seen in (0, 125, 249)]
    assert [w["style"] for w in weights] == pytest.approx([0.0, 2.0, 3.984])
    assert {w["content"] for w in weights} == {2.0}
    assert moment_at(TWO, 1, 250, 1000, DRAWS).weights == {}


@given(st.integers(1, 64), st.integers(1, 8), st.integers(0, 500))
def test_the_number_of_workers_does_not_change_the_recipe(batch, workers, step):
    """What holds after n images holds after n images, however many workers saw them."""
    seen = step * batch * workers
    one = moment_at(TWO, step * workers + 1, seen, 10_000, DRAWS)
    many = moment_at(TWO, step + 1, seen, 10_000, DRAWS)
    assert (one.phase, one.weights, one.share) == (many.phase, many.weights, many.share)


def test_some_players_move_more_rarely():
    moves = [moment_at(TWO, step, 50, 100, DRAWS).moves("a") for step in range(1, 11)]
    assert [index + 1 for index, moved in enumerate(moves) if moved] == [5, 10]
    assert all(moment_at(TWO, step, 50, 100, DRAWS).moves("b") for step in range(1, 11))


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        moment_at((Phase("a", 0.5, ("x",)),), 1, 0, 10, DRAWS)
    with pytest.raises(ValueError, match="add up to 1"):
        moment_at((), 1, 0, 10, DRAWS)
