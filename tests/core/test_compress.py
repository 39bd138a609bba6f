"""Pruning and distilling generators: what may go, goes without a trace."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import nn

from stylejobs.core.compress import _relu_std, distill, measure, prune_blocks
from stylejobs.core.networks import build_network
from stylejobs.core.networks.layers import ResidualBlock
from tests.core.compressing import PRUNABLE, batch_for, build, draw


def blocks_of(generator):
    return [module for module in generator.modules() if isinstance(module, ResidualBlock)]


@pytest.mark.parametrize("name", PRUNABLE)
def test_channels_that_nobody_reads_are_the_ones_that_go_and_nothing_changes(name):
    generator = build(name)
    dead = torch.randperm(16, generator=torch.Generator().manual_seed(3))[:8]
    with torch.no_grad():
        for block in blocks_of(generator):
            block.conv2.weight[:, dead] = 0.0
    options, state = prune_blocks(generator, 0.5)
    assert options == {"inner": 8}
    pruned = build_network(name, **{**PRUNABLE[name], **options}).eval()
    pruned.load_state_dict(state)
    batch = batch_for(generator)
    torch.testing.assert_close(pruned(*batch), generator(*batch), rtol=0, atol=1e-5)
    assert sum(w.numel() for w in pruned.parameters()) < sum(w.numel() for w in generator.parameters())


@pytest.mark.parametrize("shift", [0.0, 0.7, -3.0])
def test_channels_whose_norm_has_scale_0_are_constant_and_go_without_a_trace(shift):
    # A constant behind the ReLU is taken out by the norm after the next convolution.
    generator = build("johnson")
    with torch.no_grad():
        for block in blocks_of(generator):
            block.norm1.weight[::2] = 0.0
            block.norm1.bias[::2] = shift
    options, state = prune_blocks(generator, 0.5)
    pruned = build_network("johnson", **{**PRUNABLE["johnson"], **options})
    pruned.load_state_dict(state)
    batch = batch_for(generator)
    torch.testing.assert_close(pruned(*batch), generator(*batch), rtol=0, atol=2e-5)


def test_keeping_all_keeps_everything_and_the_generator_is_left_alone():
    generator = build("johnson")
    before = copy.deepcopy(generator.state_dict())
    options, state = prune_blocks(generator, 1.0)
    assert options == {"inner": 16}
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    prune_blocks(generator, 0.1)
    assert all(torch.equal(generator.state_dict()[name], tensor) for name, tensor in before.items())


@settings(max_examples=12, deadline=None)
@given(st.floats(0.001, 1.0))
def test_any_fraction_leaves_a_network_that_works(keep_fraction):
    generator = build("johnson")
    options, state = prune_blocks(generator, keep_fraction)
    assert options["inner"] == max(1, round(16 * keep_fraction))
    pruned = build_network("johnson", **{**PRUNABLE["johnson"], **options})
    pruned.load_state_dict(state)
    assert pruned(*batch_for(generator, side=16)).isfinite().all()
    assert prune_blocks(pruned, 1.0)[0] == options


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_blocks_of_every_norm_can_be_pruned(norm):
    torch.manual_seed(0)
    generator = build_network("resnet", width=4, blocks=2, norm=norm).eval()
    with torch.no_grad():
        for block in blocks_of(generator):
            block.conv2.weight[:, 3:6] = 0.0
            block.conv1.weight.mul_(30.0)
            block.conv2.weight.mul_(30.0)
    options, state = prune_blocks(generator, 13 / 16)
    pruned = build_network("resnet", width=4, blocks=2, norm=norm, **options).eval()
    pruned.load_state_dict(state)
    batch = batch_for(generator)
    torch.testing.assert_close(pruned(*batch), generator(*batch), rtol=0, atol=1e-4)


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ValueError, match="residual blocks"):
        prune_blocks(nn.Conv2d(3, 3, 1), 0.5)
    with pytest.raises(ValueError, match="one inner width"):
        prune_blocks(nn.Sequential(ResidualBlock(4), ResidualBlock(4, inner=2)), 0.5)
    for fraction in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="keep_fraction"):
            prune_blocks(build("johnson"), fraction)
    with pytest.raises(ValueError, match="inner >= 1"):
        build_network("johnson", inner=0)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.6, 0.8), (-1.5, 0.7), (4.0, 0.5), (0.3, -1.2)])
def test_standard_deviation_after_a_relu_against_quadrature(mean, std):
    def moment(power):
        return integrate.quad(
            lambda x: x**power * stats.norm.pdf(x, mean, abs(std)), 0, max(mean, 0) + 12 * abs(std), limit=200
        )[0]

    found = _relu_std(torch.tensor([mean]), torch.tensor([std])).item()
    assert found == pytest.approx(math.sqrt(moment(2) - moment(1) ** 2), rel=1e-6)


def test_distilling_brings_a_pruned_student_near_its_teacher():
    teacher = build("johnson")
    options, state = prune_blocks(teacher, 0.5)
    student = build_network("johnson", **{**PRUNABLE["johnson"], **options})
    student.load_state_dict(state)
    before = copy.deepcopy(teacher.state_dict())
    batches = [(draw(1, 3, 16, 16, seed=seed), torch.zeros(1, 0)) for seed in range(2)]
    losses = distill(student, teacher, batches, steps=30, learning_rate=3e-3)
    assert len(losses) == 30
    # The loss is what it says it is, and it falls.
    content, style = batches[0]
    pruned = build_network("johnson", **{**PRUNABLE["johnson"], **options})
    pruned.load_state_dict(state)
    target = teacher(content, style)
    assert losses[0] == pytest.approx((pruned(content, style) - target).abs().mean().item(), rel=1e-5)
    assert (student(content, style) - target).abs().mean().item() < 0.6 * losses[0]
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in before.items())
    with pytest.raises(ValueError, match="steps >= 1"):
        distill(student, teacher, batches, steps=0)
    with pytest.raises(ValueError, match="batches"):
        distill(student, teacher, [], steps=1)


def test_a_report_is_the_median_of_ratios_in_turn():
    generator = build("johnson")
    # Readings of a clock: pairs of runs that take (original, compressed) seconds.
    seconds = [(4.0, 2.0), (9.0, 3.0), (1.0, 4.0)]
    readings = itertools.accumulate(
        itertools.chain.from_iterable((0.0, taken) for pair in seconds for taken in pair), initial=0.0
    )
    next(readings)
    content, style = batch_for(generator, rows=2, side=16)
    report = measure(generator, generator, content, style, lambda: next(readings), pairs=3)
    assert report.speed_ratios == (2.0, 3.0, 0.25)
    assert report.speed_ratio == 2.0
    assert (report.ssim, report.ssim_min) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (report.weight_ratio, report.threads) == (1.0, torch.get_num_threads())
    with pytest.raises(ValueError, match="pairs >= 1"):
        measure(generator, generator, content, style, lambda: 0.0, pairs=0)
