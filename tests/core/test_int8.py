"""8-bit convolutions and generators: against integers of 64 bits, and near the float ones."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stylejobs.core.compress import quantise
from stylejobs.core.metrics import ms_ssim
from stylejobs.core.networks import build_network
from stylejobs.core.networks.int8 import Int8Conv, is_available, swap_to_int8
from stylejobs.core.networks.layers import build_conv
from tests.core.compressing import PRUNABLE, QUANTISABLE, batch_for, build, draw

needs_int8 = pytest.mark.skipif(not is_available(), reason="this PyTorch has no 8-bit convolutions")


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
