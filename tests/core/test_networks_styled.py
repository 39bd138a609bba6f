"""The style-modulated translator: weights of unit norm, rows with weights of their own, styles drawn and encoded."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from torch import nn

from stylejobs.core.networks import build_network
from stylejobs.core.networks.karras2020 import ModulatedConv, modulate


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(**options) -> nn.Module:
    torch.manual_seed(0)
    return build_network("style_modulated", **({"width": 4, "style_dim": 6, "blocks": 1} | options))


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.1, 100), st.integers(0, 99))
def test_demodulated_weights_have_norm_one_whatever_the_style(in_channels, out_channels, factor, seed):
    weight, scale = draw(out_channels, in_channels, 3, 3, seed=seed), draw(2, in_channels, seed=seed + 1) + 3
    rows = modulate(weight, scale)
    norms = np.sqrt((rows.numpy() ** 2).sum((2, 3, 4)))
    np.testing.assert_allclose(norms, np.ones((2, out_channels)), rtol=1e-6)
    torch.testing.assert_close(modulate(weight, scale * factor), rows, rtol=1e-6, atol=1e-6)
    plain = modulate(weight, scale, demodulate=False).numpy()
    np.testing.assert_allclose(plain, np.einsum("oikl,bi->boikl", weight.numpy(), scale.numpy()))


def test_modulate_has_right_gradients_and_stays_wide():
    assert torch.autograd.gradcheck(modulate, [draw(2, 3, 1, 1).requires_grad_(), draw(2, 3, seed=1).requires_grad_()])
    assert modulate(draw(2, 3, 1, 1).bfloat16(), draw(2, 3).bfloat16()).dtype == torch.float32


def test_the_grouped_convolution_is_one_convolution_a_row():
    conv = ModulatedConv(3, 2, 3, style_dim=4).double()
    conv.bias.data = draw(2, seed=5)
    features, style = draw(2, 3, 5, 6), draw(2, 4, seed=1)
    out = conv(features, style).detach().numpy()
    weight = conv.weight.detach().numpy()
    for row in range(2):
        scale = style[row].numpy() @ conv.scale.weight.detach().numpy().T + conv.scale.bias.detach().numpy()
        for channel in range(2):
            kernel = weight[channel] * scale[:, None, None]
            kernel = kernel / np.linalg.norm(kernel)
            padded = np.pad(features[row].numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
            expected = sum(signal.correlate2d(padded[i], kernel[i], mode="valid") for i in range(3))
            np.testing.assert_allclose(out[row, channel], expected + conv.bias[channel].item(), atol=1e-7)


def test_unit_variance_in_unit_variance_out():
    conv = ModulatedConv(16, 8, 3, style_dim=4).double()
    out = conv(draw(1, 16, 200, 200), 5 * draw(1, 4, seed=1))
    np.testing.assert_allclose(out.var((2, 3)).detach(), 1.0, atol=0.06)


def test_styles_are_drawn_by_seed():
    network = build()
    before = torch.get_rng_state()
    styles = torch.stack([network.draw_style(seed) for seed in (3, 3, 4, 5)])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(styles[0], styles[1])
    assert styles.shape == (4, network.style_dim)
    assert not styles.requires_grad
    z = draw(1, 6, seed=4, dtype=torch.float32)
    torch.testing.assert_close(styles[2], network.mapping(z)[0])
    cosines = torch.nn.functional.cosine_similarity(styles[[0, 0, 2]], styles[[2, 3, 3]])
    assert cosines.max() < 0.99, "all styles point one way"


def test_the_mapping_has_eight_layers_and_forgets_the_length_of_z():
    network = build()
    assert sum(isinstance(part, nn.Linear) for part in network.mapping.layers) == 8
    z = draw(2, 6, dtype=torch.float32)
    torch.testing.assert_close(network.mapping(z), network.mapping(7 * z))


def test_the_style_reaches_the_image_and_colours_reach_the_style():
    network = build().eval()
    content, style = draw(1, 3, 24, 20, dtype=torch.float32).tanh(), draw(2, 3, 18, 31, seed=1, dtype=torch.float32)
    assert not any(isinstance(part, nn.InstanceNorm2d) for part in network.style_encoder.modules())
    # Instance norm would give an image and the same image, darker and flatter, one and the same code.
    codes = network.encode_style(torch.cat([style.tanh(), style.tanh() * 0.4 - 0.5]))
    assert (codes[:2] - codes[2:]).abs().max() > 0.05
    images = network(content.expand(2, 3, 24, 20), codes[[0, 2]])
    assert (images[0] - images[1]).abs().max() > 0.01


@pytest.mark.parametrize(("row", "column"), [(9, 33), (30, 12)])
def test_the_layout_is_kept(row, column):
    network = build(width=8).double().eval()
    content = draw(1, 3, 44, 48).tanh().requires_grad_()
    network(content, draw(1, 6, seed=1))[0, :, row, column].sum().backward()
    strength = content.grad.square().sum((0, 1))
    near = strength[row - 8 : row + 9, column - 8 : column + 9].sum()
    # A seventh of the pixels lies that near.
    assert near > 0.5 * strength.sum()


def test_sizes_at_the_defaults():
    network = build_network("style_modulated")
    parts = (network.synthesis, network.mapping, network.style_encoder)
    assert [count(part) for part in parts] == [5_803_843, 1_642_048, 977_344]
    assert count(network) == sum(count(part) for part in parts)
    with pytest.raises(ValueError, match="style_dim"):
        build_network("style_modulated", style_dim=0)
