"""Reinhard's transfer against its own definition, in numpy and float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.networks import build_network

TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def draw(shape, seed=0, low=-1.0, high=1.0, dtype=torch.float32):
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return low + (high - low) * uniform


def reference_lab(image_CHW: np.ndarray) -> np.ndarray:
    rgb = (image_CHW.astype(np.float64).reshape(3, -1) + 1) / 2
    return TO_LAB @ np.log10(TO_LMS @ rgb + 1 / 255)


def reference_transfer(content_CHW: np.ndarray, style_CHW: np.ndarray) -> np.ndarray:
    content, style = reference_lab(content_CHW), reference_lab(style_CHW)
    ratio = np.minimum(style.std(1) / content.std(1), 8.0)[:, None]
    moved = (content - content.mean(1, keepdims=True)) * ratio + style.mean(1, keepdims=True)
    rgb = np.linalg.inv(TO_LMS) @ (10.0 ** (np.linalg.inv(TO_LAB) @ moved) - 1 / 255)
    return np.clip(rgb * 2 - 1, -1, 1).reshape(content_CHW.shape)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 20))
def test_against_numpy_float64(seed, height, width):
    network = build_network("moments")
    content, style = draw((2, 3, height, width), seed), draw((2, 3, 9, 7), seed + 1, -0.6, 0.9)
    result = network(content, network.encode_style(style))
    for row in range(2):
        expected = reference_transfer(content[row].numpy(), style[row].numpy())
        np.testing.assert_allclose(result[row].numpy(), expected, atol=2e-4)


def test_the_code_is_mean_then_std():
    style = draw((1, 3, 11, 13), 4)
    lab = reference_lab(style[0].numpy())
    code = build_network("moments").encode_style(style)
    assert code.shape == (1, 6)
    np.testing.assert_allclose(code[0].numpy(), [*lab.mean(1), *lab.std(1)], atol=1e-5)


def test_the_result_has_the_styles_statistics_when_nothing_clips():
    network = build_network("moments")
    content, style = draw((2, 3, 40, 30), 0, -0.15, 0.15), draw((2, 3, 25, 25), 1, -0.1, 0.1)
    code = network.encode_style(style)
    result = network(content, code)
    assert result.abs().max() < 1.0
    torch.testing.assert_close(network.encode_style(result), code, rtol=0, atol=1e-5)


def test_the_own_style_changes_nothing_not_even_black_and_white():
    network, image = build_network("moments"), draw((2, 3, 16, 16), 7)
    image[:, :, 0], image[:, :, 1] = -1.0, 1.0
    torch.testing.assert_close(network(image, network.encode_style(image)), image, rtol=0, atol=2e-5)


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_a_constant_image_becomes_the_mean_colour(level):
    network = build_network("moments")
    result = network(torch.full((1, 3, 8, 8), level), network.encode_style(draw((1, 3, 9, 9), 3)))
    assert result.isfinite().all()
    assert (result - result[..., :1, :1]).abs().max() < 1e-3


def test_the_noise_of_a_grey_image_is_not_blown_up():
    network = build_network("moments")
    grey = draw((1, 1, 32, 32), 0).expand(1, 3, 32, 32) + draw((1, 3, 32, 32), 1, -0.002, 0.002)
    result = network(grey, network.encode_style(draw((1, 3, 32, 32), 2)))
    lab_in, lab_out = reference_lab(grey[0].clamp(-1, 1).numpy()), reference_lab(result[0].numpy())
    assert (lab_out[1:].std(1) < 12 * lab_in[1:].std(1)).all()


def test_codes_mix():
    network, content = build_network("moments"), draw((1, 3, 16, 16), 0, -0.3, 0.3)
    code_a, code_b = (network.encode_style(draw((1, 3, 16, 16), seed, -0.3, 0.3)) for seed in (1, 2))
    mixed = network(content, 0.5 * code_a + 0.5 * code_b)
    torch.testing.assert_close(network.encode_style(mixed), 0.5 * code_a + 0.5 * code_b, rtol=0, atol=1e-4)


def test_a_wild_code_stays_finite():
    result = build_network("moments")(draw((1, 3, 4, 4)), torch.full((1, 6), 1e6))
    assert result.isfinite().all()


def test_dtype_is_the_contents_and_float64_is_kept():
    network = build_network("moments")
    content = draw((1, 3, 8, 8), 0, -0.5, 0.5)
    code = network.encode_style(draw((1, 3, 8, 8), 1))
    assert network(content.bfloat16(), code).dtype == torch.bfloat16
    content64 = content.double()
    code64 = network.encode_style(draw((1, 3, 8, 8), 1).double())
    expected = reference_transfer(content[0].numpy(), draw((1, 3, 8, 8), 1)[0].numpy())
    np.testing.assert_allclose(network(content64, code64)[0].numpy(), expected, atol=1e-12)


def test_it_carries_no_tensors():
    assert build_network("moments").state_dict() == {}
