import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stylejobs.core.diversity import DiversityWatch, diversity
from stylejobs.core.ema import Ema
from stylejobs.core.repair import CAUSES, Repairer, RepairOptions, pull_to

OPTIONS = RepairOptions(window_images=100, warmup_images=0, cool_down_images=10**9, recovery_images=1000)


def feed(repairer, start, images, accuracy=0.7, of_outputs=1.0, finite=True):
    """Two images a step for `images` images; returns (events, where to go on)."""
    events = []
    for images_seen in range(start, start + images, 2):
        events += repairer.observe(images_seen, accuracy, of_outputs, finite)
    return events, start + images


def test_a_healthy_training_is_left_alone():
    repairer = Repairer(OPTIONS)
    assert feed(repairer, 0, 5000)[0] == []
    assert (repairer.critic_rate, repairer.augment) == (1.0, 0.0)


def test_saturation_trips_once_and_when_the_average_says_so():
    repairer = Repairer(OPTIONS)
    (event,), _ = feed(repairer, 0, 5000, accuracy=1.0)
    # The average is 1 - 1/2 exp(-n / 100), which passes 0.95 at n = 100 ln 10 = 230.3.
    assert event.images_seen == 232
    assert event.value == pytest.approx(1 - 0.5 * math.exp(-2.32), rel=1e-9)
    assert (event.cause, event.threshold) == ("accuracy", 0.95)
    assert (event.pull, event.critic_rate, event.augment) == (0.5, 0.5, 0.2)


def test_it_trips_again_only_below_the_release_level():
    repairer = Repairer(OPTIONS)
    first, now = feed(repairer, 0, 600, accuracy=1.0)
    # Down to between the two levels and up again: nothing. Down below the lower one and up again: a repair.
    between, now = feed(repairer, now, 600, accuracy=0.9)
    again, now = feed(repairer, now, 600, accuracy=1.0)
    below, now = feed(repairer, now, 600, accuracy=0.8)
    third, now = feed(repairer, now, 600, accuracy=1.0)
    assert [len(events) for events in (first, between, again, below, third)] == [1, 0, 0, 0, 1]
    assert third[0].critic_rate < 0.5


def test_noise_around_the_trip_level_does_not_repeat_a_repair():
    repairer = Repairer(replace(OPTIONS, window_images=1))
    events = []
    for step in range(500):
        events += repairer.observe(2 * step, 0.95 + 0.04 * (-1) ** step, 1.0)
    assert len(events) == 1


def test_what_does_not_go_away_trips_again_after_the_cool_down():
    repairer = Repairer(replace(OPTIONS, cool_down_images=1000))
    events, _ = feed(repairer, 0, 7000, accuracy=1.0)
    assert [event.images_seen for event in events] == [232 + 1000 * n for n in range(7)]
    assert [event.critic_rate for event in events] == [0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0625, 0.0625]
    assert [event.augment for event in events] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])


def test_a_collapse_trips_and_recovers():
    repairer = Repairer(OPTIONS)
    events, now = feed(repairer, 0, 1000, of_outputs=0.1)
    assert [(event.cause, event.threshold) for event in events] == [("diversity", 0.3)]
    assert events[0].value < 0.3
    # Between trip and release nothing recovers.
    _, now = feed(repairer, now, 1000, of_outputs=0.4)
    assert (repairer.critic_rate, repairer.augment) == (0.5, 0.2)
    # Released at 0.5, then a rate that doubles and a strength that falls by 0.2 within 1000 images.
    _, now = feed(repairer, now, 200, of_outputs=0.9)
    rate, augment = repairer.critic_rate, repairer.augment
    feed(repairer, now, 500, of_outputs=0.9)
    assert repairer.critic_rate == pytest.approx(rate * 2**0.5)
    assert repairer.augment == pytest.approx(augment - 0.1)
    feed(repairer, now + 500, 2000, of_outputs=0.9)
    assert (repairer.critic_rate, repairer.augment) == (1.0, 0.0)


def test_two_causes_at_once_are_one_repair():
    repairer = Repairer(replace(OPTIONS, window_images=1))
    events = [event for n in (0, 100) for event in repairer.observe(n, 1.0, 0.0)]
    assert [event.cause for event in events] == ["diversity", "accuracy"]
    assert [event.pull for event in events] == [0.5, 0.0]
    assert {(event.critic_rate, event.augment) for event in events} == {(0.5, 0.2)}


def test_a_loss_that_is_not_finite_trips_at_once_and_pulls_all_the_way():
    repairer = Repairer(replace(OPTIONS, warmup_images=10**6))
    assert repairer.observe(0, 0.7, 1.0) == []
    (event,) = repairer.observe(2, math.nan, 1.0)
    assert (event.cause, event.value, event.threshold, event.pull) == ("non_finite", 1.0, 0.0, 1.0)
    assert repairer.observe(4, 0.7, 1.0, finite=False) == []
    assert repairer.observe(6, 0.7, 1.0) == []
    assert len(repairer.observe(8, 0.7, math.inf)) == 1
    assert math.isfinite(repairer.accuracy)
    assert math.isfinite(repairer.diversity)


def test_no_repair_during_the_warm_up_counted_from_the_first_observation():
    repairer = Repairer(replace(OPTIONS, warmup_images=1000))
    events, _ = feed(repairer, 50_000, 3000, accuracy=1.0, of_outputs=0.0)
    assert {event.images_seen for event in events} == {51_000}


def test_measures_that_are_not_known_leave_their_averages():
    repairer = Repairer(OPTIONS)
    assert feed(repairer, 0, 3000, accuracy=None, of_outputs=None)[0] == []
    assert (repairer.accuracy, repairer.diversity) == (0.5, 1.0)


def test_world_size_does_not_change_the_recipe():
    few, many = Repairer(OPTIONS), Repairer(OPTIONS)
    for images_seen in range(0, 801, 2):
        few.observe(images_seen, 0.93, 0.6)
    for images_seen in range(0, 801, 16):
        many.observe(images_seen, 0.93, 0.6)
    assert few.accuracy == pytest.approx(many.accuracy, rel=1e-9)
    assert few.diversity == pytest.approx(many.diversity, rel=1e-9)


measures = st.lists(
    st.tuples(st.integers(0, 400), st.floats(0, 1), st.floats(0, 1.5), st.booleans()), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(measures, st.integers(0, 59))
def test_any_history_stays_within_bounds_and_goes_on_exactly_from_its_state(history, cut):
    options = replace(OPTIONS, window_images=20, cool_down_images=500)
    repairer, images_seen, tripped = Repairer(options), 0, {cause: [] for cause in CAUSES}
    resumed = Repairer(options)
    for step, (new_images, accuracy, of_outputs, finite) in enumerate(history):
        images_seen += new_images
        events = repairer.observe(images_seen, accuracy, of_outputs, finite)
        if step > cut:
            assert resumed.observe(images_seen, accuracy, of_outputs, finite) == events
        if step == cut:
            resumed.load_state_dict(json.loads(json.dumps(repairer.state_dict(), allow_nan=False)))
        for event in events:
            tripped[event.cause].append((images_seen, event.value))
        assert options.critic_floor <= repairer.critic_rate <= 1.0
        assert 0.0 <= repairer.augment <= options.augment_ceiling
    assert all(value > 0.95 for _, value in tripped["accuracy"])
    assert all(value < 0.3 for _, value in tripped["diversity"])
    if cut < len(history):
        assert resumed.state_dict() == repairer.state_dict()


def test_time_runs_forward_and_states_fit():
    repairer = Repairer(OPTIONS)
    repairer.observe(10, 0.5, 1.0)
    with pytest.raises(ValueError, match="never falls"):
        repairer.observe(8, 0.5, 1.0)
    with pytest.raises(ValueError, match="augment"):
        repairer.load_state_dict({"critic_rate": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy_release": 0.99},
        {"diversity_trip": 0.6},
        {"pull": 1.5},
        {"augment_ceiling": 1.5},
        {"augment_step": -0.1},
        {"critic_cut": 0.0},
        {"critic_floor": 2.0},
        {"window_images": 0},
        {"cool_down_images": -1},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        RepairOptions(**wrong)


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_diversity_against_numpy_and_its_laws():
    images = draw(5, 3, 64, 32)
    cells = images.numpy().reshape(5, 3, 16, 4, 16, 2).mean(axis=(3, 5)).reshape(5, -1)
    distances = [np.sqrt(np.mean((a - b) ** 2)) for i, a in enumerate(cells) for b in cells[:i]]
    assert diversity(images).item() == pytest.approx(np.mean(distances), rel=1e-9)
    assert diversity(images[:1].expand(4, -1, -1, -1)).item() == 0.0
    torch.testing.assert_close(diversity(images + 3.0), diversity(images))
    torch.testing.assert_close(diversity(images.flip(0) * -0.5), 0.5 * diversity(images))
    assert diversity(draw(3, 3, 5, 4).bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="DiversityWatch"):
        diversity(images[:1])


def test_a_watch_of_single_images_says_what_a_batch_would():
    sources, outputs = draw(20, 3, 24, 24), 0.25 * draw(20, 3, 24, 24, seed=1)
    watch = DiversityWatch(window=8)
    ratios = [watch.add(sources[n : n + 1], outputs[n : n + 1]) for n in range(20)]
    assert ratios[:7] == [None] * 7
    for last, ratio in enumerate(ratios[7:], start=8):
        window = slice(last - 8, last)
        assert ratio == pytest.approx((diversity(outputs[window]) / diversity(sources[window])).item(), rel=1e-9)


def test_a_collapse_is_seen_within_a_window_and_is_near_zero():
    watch, sources = DiversityWatch(16), draw(64, 3, 20, 20)
    one = draw(1, 3, 20, 20, seed=2)
    ratios = [watch.add(sources[n : n + 1], sources[n : n + 1] if n < 32 else one) for n in range(64)]
    assert ratios[31] == pytest.approx(1.0)
    assert ratios[47] == pytest.approx(0.0, abs=1e-9)
    assert all(b <= a + 0.1 for a, b in pairwise(ratios[31:48]))


def test_sources_that_are_all_alike_have_no_ratio():
    watch, one = DiversityWatch(3), draw(1, 3, 16, 16)
    assert [watch.add(one, draw(1, 3, 16, 16, seed=n)) for n in range(6)] == [None] * 6


def test_a_watch_goes_on_exactly_and_reports_what_is_not_finite():
    watch, resumed, images = DiversityWatch(4), DiversityWatch(4), draw(9, 3, 16, 16)
    resumed.load_state_dict(watch.state_dict())
    watch.add(images[:6], images[3:])
    resumed.load_state_dict(watch.state_dict())
    assert resumed.add(images[6:7], images[:1]) == watch.add(images[6:7], images[:1])
    assert math.isnan(watch.add(images[:1], images[:1] * math.nan))
    assert math.isfinite(watch.add(images[:4], images[5:]))
    with pytest.raises(ValueError, match="an output for every source"):
        watch.add(images[:2], images[:1])
    with pytest.raises(ValueError, match="window >= 2"):
        DiversityWatch(1)


def test_pull_to_moves_weights_by_a_share_and_heals_at_one():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    ema = Ema(network)
    average = ema.state_dict()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(1.0)
        network[1].num_batches_tracked.add_(5)
    pull_to(network, average, 0.25)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.detach(), average[name] + 0.75)
    assert network[1].num_batches_tracked == 5
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
    pull_to(network, average, 1.0)
    assert all(torch.equal(value, average[name]) for name, value in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())
    with pytest.raises(ValueError, match=r"share in \[0, 1\]"):
        pull_to(network, average, 1.5)
    with pytest.raises(ValueError, match="only on one side"):
        pull_to(nn.Linear(1, 1), average, 0.5)
