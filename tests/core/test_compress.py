import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import nn

from stylejobs.core.compress import _relu_std, distill, measure, prune_blocks, quantise
from stylejobs.core.metrics import ms_ssim
from stylejobs.core.networks import build_network
from stylejobs.core.networks.int8 import Int8Conv, RowNorm, is_available, swap_to_int8
from stylejobs.core.networks.layers import ResidualBlock, build_conv

PRUNABLE = {
    "johnson": {"width": 4, "blocks": 2},
    "resnet": {"width": 4, "blocks": 2},
    "label_conditioned": {"domains": 2, "width": 4, "blocks": 2},
}
QUANTISABLE = PRUNABLE | {
    "adain": {"width_scale": 0.1},
    "encoder_decoder": {"width": 4},
    "moments": {},
    "style_modulated": {"width": 4, "style_dim": 6, "blocks": 1},
}
needs_int8 = pytest.mark.skipif(not is_available(), reason="this PyTorch has no 8-bit convolutions")


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def build(name, seed=0):
    torch.manual_seed(seed)
    generator = build_network(name, **QUANTISABLE[name]).eval()
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.InstanceNorm2d) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    return generator


def batch_for(generator, rows=2, side=24, seed=1):
    content = draw(rows, 3, side, side, seed=seed)
    if hasattr(generator, "encode_style"):
        return content, generator.encode_style(draw(rows, 3, side, side, seed=seed + 1)).detach()
    return content, torch.eye(generator.style_dim or 1)[torch.zeros(rows, dtype=torch.long)][:, : generator.style_dim]


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


def conv_in_numpy(conv, layer, features):
    """The 8-bit convolution in integers of 64 bits, patch by patch, and how far a float32 rounding may be from it."""
    scale, zero = layer.input_scale.item(), layer.input_zero.item()
    exact = features.numpy().astype(np.float64) / scale + zero
    levels = np.clip(np.floor(exact + 0.5), 0, 255).astype(np.int64)
    pad, kernel, stride = conv.padding[0], conv.kernel_size[0], conv.stride[0]
    reflected = {"mode": "reflect"} if conv.padding_mode == "reflect" else {}
    # Half way between two levels float32 may fall to either side: 255 levels hold 24 bits, so within 1e-4 of a level.
    halfway = np.abs(exact - np.floor(exact) - 0.5) < 1e-4

    def convolve(values, weights):
        windows = np.lib.stride_tricks.sliding_window_view(values, (kernel, kernel), axis=(2, 3))
        return np.einsum("bchwij,ocij->bohw", windows[:, :, ::stride, ::stride], weights)

    padding = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    weights = layer.weight.numpy().astype(np.int64)
    sums = convolve(np.pad(levels, padding, **(reflected or {"constant_values": zero})) - zero, weights)
    slack = convolve(np.pad(halfway, padding, **reflected), abs(weights))
    scales = (scale * layer.weight_scale.numpy().astype(np.float64))[:, None, None]
    return sums * scales + layer.bias.numpy()[:, None, None], slack * scales


convs = st.tuples(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 7]), st.integers(1, 2), st.booleans(), st.booleans()
)


@needs_int8
@settings(max_examples=25, deadline=None)
@given(convs, st.integers(1, 3), st.integers(7, 14), st.integers(7, 14), st.integers(0, 1000))
def test_the_8_bit_convolution_is_the_integer_one_and_near_the_float_one(shape, rows, height, width, seed):
    channels, out_channels, kernel, stride, reflect, rectified = shape
    torch.manual_seed(seed)
    mode = "reflect" if reflect else "zeros"
    conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, padding_mode=mode).requires_grad_(False)
    features = draw(rows, channels, height, width, seed=seed)
    features = features.relu() if rectified else features
    layer = Int8Conv(conv)
    layer.fill(conv, features.min().item(), features.max().item())
    out = layer(features)
    wanted, slack = conv_in_numpy(conv, layer, features)
    assert (np.abs(out.numpy() - wanted) <= 1e-5 * (1 + np.abs(wanted)) + slack).all()
    # Half a step of the features through all weights, and half a step of the weights through all features.
    step = layer.input_scale.item()
    reach = conv.weight.abs().sum(dim=(1, 2, 3)) + channels * kernel**2 * layer.weight_scale
    bound = step * reach + 0.5 * layer.weight_scale * channels * kernel**2 * features.abs().max() + 1e-4
    assert ((out - conv(features)).abs().amax(dim=(0, 2, 3)) <= bound).all()


@needs_int8
def test_what_lies_outside_the_calibrated_range_is_clamped():
    conv = nn.Conv2d(1, 1, 1).requires_grad_(False)
    conv.weight.fill_(1.0)
    conv.bias.zero_()
    layer = Int8Conv(conv)
    layer.fill(conv, 0.0, 2.0)
    out = layer(torch.tensor([-5.0, 0.0, 1.0, 2.0, 9.0]).reshape(1, 1, 1, 5))
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0]), atol=0.005, rtol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_the_norm_row_by_row_is_instance_norm(affine):
    norm, row_norm = nn.InstanceNorm2d(5, affine=affine), RowNorm(5, affine=affine)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(draw(5)), norm.bias.copy_(draw(5, seed=1))
    row_norm.load_state_dict(norm.state_dict())
    features = draw(3, 5, 9, 7, seed=2) * 4 + 10
    for memory_format in (torch.contiguous_format, torch.channels_last):
        found = row_norm(features.contiguous(memory_format=memory_format))
        torch.testing.assert_close(found, norm(features), rtol=1e-5, atol=1e-5)


@needs_int8
@pytest.mark.parametrize("name", QUANTISABLE)
def test_an_8_bit_generator_is_near_the_float_one_and_its_state_is_all_it_takes(name):
    generator = build(name)
    before = copy.deepcopy(generator.state_dict())
    batches = [batch_for(generator, rows=4, seed=seed) for seed in (1, 5, 15, 25)]
    quantised = quantise(generator, batches)
    content, style = batch_for(generator, rows=3, seed=9)
    result, wanted = quantised(content, style), generator(content, style)
    assert ms_ssim(result, wanted).min() > 0.97
    assert not any(type(module) is nn.Conv2d and module.groups == 1 for module in quantised.modules())
    assert all(torch.equal(generator.state_dict()[key], tensor) for key, tensor in before.items())
    loaded = build_network(name, **QUANTISABLE[name], int8=True).eval()
    loaded(content, style)  # the empty one runs too, and must forget what it prepared
    loaded.load_state_dict(quantised.state_dict())
    assert torch.equal(loaded(content, style), result)
    assert torch.equal(copy.deepcopy(quantised)(content, style), result)
    alone = torch.cat([quantised(content[row : row + 1], style[row : row + 1]) for row in range(3)])
    # Where a float layer rounds otherwise in another batch, a level of 255 may flip behind it.
    assert (alone - result).abs().mean() < 1e-4
    assert (alone - result).abs().max() < 0.05


@needs_int8
def test_an_8_bit_generator_travels_in_a_package(tmp_path):
    from stylejobs.storage.packages import load_package, save_package

    generator = build("johnson")
    batch = batch_for(generator)
    quantised = quantise(generator, [batch])
    options = {**PRUNABLE["johnson"], "int8": True}
    save_package(str(tmp_path), "johnson", options, quantised.state_dict(), {"one": torch.zeros(0)}, {})
    assert torch.equal(load_package(str(tmp_path)).generator(*batch), quantised(*batch))


@needs_int8
def test_parts_that_share_a_layer_go_on_sharing_it():
    conv = build_conv(3, 3, 3)
    module = nn.ModuleDict({"one": nn.Sequential(conv), "two": nn.Sequential(conv)})
    swap_to_int8(module)
    assert isinstance(module["one"][0], Int8Conv)
    assert module["one"][0] is module["two"][0]


def test_layers_that_have_no_8_bit_form_stay_float():
    module = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.ConvTranspose2d(4, 4, 3))
    kinds = [type(layer) for layer in module]
    assert swap_to_int8(module) == {}
    assert [type(layer) for layer in module] == kinds


class OneOfTwo(nn.Module):
    """Has a convolution that it does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = build_conv(3, 3, 3), build_conv(3, 3, 3)

    def forward(self, content, style):
        return self.used(content)


@needs_int8
def test_8_bit_layers_refuse_other_devices_and_empty_calibration():
    generator = build("johnson")
    with pytest.raises(ValueError, match="calibrate"):
        quantise(generator, [])
    quantised = quantise(generator, [batch_for(generator)])
    with pytest.raises(ValueError, match="CPU"):
        next(module for module in quantised.modules() if isinstance(module, Int8Conv))(
            torch.zeros(1, 3, 8, 8).to("meta")
        )
    with pytest.raises(ValueError, match="'unused' was not used"):
        quantise(OneOfTwo(), [(draw(1, 3, 8, 8), torch.zeros(1, 0))])


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
