"""Histogram matching against scikit-image, and what a code of quantiles promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.exposure import match_histograms

from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float, to_uint8


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def photo(name: str) -> np.ndarray:
    return np.ascontiguousarray(getattr(data, name)()[::3, ::3])


def test_against_scikit_image_on_photographs():
    content, style = photo("chelsea"), photo("coffee")
    network = build_network("histogram", levels=512)
    code = network.encode_style(to_float(torch.from_numpy(style)[None]))
    ours = to_uint8(network(to_float(torch.from_numpy(content)[None]), code))[0].numpy()
    theirs = match_histograms(content, style, channel_axis=2)
    difference = np.abs(ours.astype(float) - theirs)
    assert difference.mean() < 1.5  # grey levels: 512 quantiles in place of all values
    assert np.quantile(difference, 0.99) < 8


def test_the_result_has_the_styles_quantiles():
    network = build_network("histogram", levels=64)
    content, style = draw(2, 3, 40, 50), draw(2, 3, 30, 30, seed=1) ** 3
    code = network.encode_style(style)
    torch.testing.assert_close(network.encode_style(network(content, code)), code, atol=0.02, rtol=0)


def test_its_own_style_changes_nothing():
    network, image = build_network("histogram"), draw(1, 3, 33, 48)
    torch.testing.assert_close(network(image, network.encode_style(image)), image, atol=1e-9, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(2, 40), st.integers(0, 5))
def test_the_order_of_values_is_kept(height, width, levels, seed):
    network = build_network("histogram", levels=levels)
    content = draw(1, 3, height, width, seed=seed).mul(4).round().div(4)  # many pixels share a value
    out = network(content, network.encode_style(draw(1, 3, 9, 9, seed=seed + 1)))
    for before, after in zip(content.flatten(2)[0], out.flatten(2)[0], strict=True):
        order = before.argsort(stable=True)
        assert (after[order].diff() >= -1e-9).all()
        for value in before.unique():
            assert after[before == value].unique().numel() == 1


def test_a_flat_picture_becomes_the_styles_middle():
    network = build_network("histogram", levels=3)
    out = network(torch.zeros(1, 3, 4, 4), torch.tensor([[-0.5, 0.1, 0.3] * 3]))
    torch.testing.assert_close(out, torch.full((1, 3, 4, 4), -0.1))


def test_mixed_codes_are_barycentres():
    """On a line the barycentre of two distributions has the means of their quantiles."""
    network = build_network("histogram", levels=128)
    codes = network.encode_style(draw(2, 3, 40, 40, seed=3) * torch.tensor([0.2, 0.6])[:, None, None, None])
    content = draw(1, 3, 60, 60)
    mixed = network(content, codes.mean(dim=0, keepdim=True))
    apart = [network(content, code[None]) for code in codes]
    torch.testing.assert_close(mixed, (apart[0] + apart[1]) / 2)


def test_too_few_levels_are_refused():
    with pytest.raises(ValueError, match="2 levels"):
        build_network("histogram", levels=1)
