"""Fourier domain adaptation against the published recipe in numpy, and what its code promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.networks import build_network


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=rng, dtype=torch.float64) * 1.2 - 0.6


def swap_by_numpy(content: np.ndarray, style: np.ndarray, beta: float) -> np.ndarray:
    """The paper's way: shift the spectra, paste the amplitudes of a centred square, shift back."""
    content, style = (content + 1) / 2, (style + 1) / 2
    spectrum = np.fft.fft2(content)
    amplitude = np.fft.fftshift(np.abs(spectrum), axes=(-2, -1))
    other = np.fft.fftshift(np.abs(np.fft.fft2(style)), axes=(-2, -1))
    height, width = content.shape[-2:]
    half, row, column = int(np.floor(min(height, width) * beta)), height // 2, width // 2
    square = np.s_[..., row - half : row + half + 1, column - half : column + half + 1]
    amplitude[square] = other[square]
    amplitude = np.fft.ifftshift(amplitude, axes=(-2, -1))
    image = np.fft.ifft2(amplitude * np.exp(1j * np.angle(spectrum))).real
    return np.clip(image * 2 - 1, -1, 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.sampled_from([0.0, 0.01, 0.05, 0.09, 0.3, 0.49]), st.integers(0, 9))
def test_against_the_papers_recipe(height, width, beta, seed):
    network = build_network("fda", beta=beta)
    content, style = draw(2, 3, height, width, seed=seed), draw(2, 3, height, width, seed=seed + 10)
    out = network(content, network.encode_style(style))
    np.testing.assert_allclose(out.numpy(), swap_by_numpy(content.numpy(), style.numpy(), beta), atol=1e-9)


def test_amplitudes_are_the_styles_below_and_the_contents_above():
    network = build_network("fda", beta=0.1)
    content, style = draw(1, 3, 40, 30) * 0.3, draw(1, 3, 40, 30, seed=1) * 0.3
    out = network(content, network.encode_style(style))
    ours, theirs, own = (np.fft.fft2((image.numpy() + 1) / 2) for image in (out, style, content))
    cycles = [np.minimum(np.arange(side), side - np.arange(side)) for side in (40, 30)]
    low = np.maximum(cycles[0][:, None], cycles[1]) <= 3
    np.testing.assert_allclose(np.abs(ours)[..., low], np.abs(theirs)[..., low], rtol=1e-9)
    np.testing.assert_allclose(ours[..., ~low], own[..., ~low], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.angle(ours)[..., low], np.angle(own)[..., low], atol=1e-8)


def test_its_own_style_changes_nothing():
    network, image = build_network("fda", beta=0.2), draw(1, 3, 33, 48)
    torch.testing.assert_close(network(image, network.encode_style(image)), image)


def test_a_code_does_not_depend_on_the_size():
    network = build_network("fda", max_cycles=5)

    def wave(height: int, width: int) -> torch.Tensor:
        rows = 2 * torch.pi * torch.arange(height, dtype=torch.float64)[:, None] / height
        columns = 2 * torch.pi * torch.arange(width, dtype=torch.float64) / width
        image = 0.1 + 0.3 * torch.cos(2 * rows + 1) + 0.2 * torch.sin(3 * rows - 4 * columns)
        return image.expand(1, 3, height, width)

    code = network.encode_style(wave(24, 36))
    assert code.shape == (1, network.style_dim)
    assert network.style_dim == 3 * 11 * 6
    torch.testing.assert_close(code, network.encode_style(wave(51, 13)), rtol=0, atol=1e-12)
    # amplitudes of a cosine are halved between the two signs, and images are taken to [0, 1]
    grid = code.reshape(3, 11, 6)
    for row, column, amplitude in ((0, 0, 0.55), (2, 0, 0.075), (-2, 0, 0.075), (-3, 4, 0.05), (3, 4, 0.0)):
        np.testing.assert_allclose(grid[:, row, column], amplitude, atol=1e-12)


def test_a_small_style_has_no_high_frequencies():
    network = build_network("fda", max_cycles=5)
    code = network.encode_style(draw(1, 3, 4, 6)).reshape(3, 11, 6)
    assert (code[:, [0, 1, -1], :3] > 0).all()
    assert code[:, 2:-1].abs().max() == 0
    assert code[:, :, 3:].abs().max() == 0


def test_flat_content_takes_the_mean_and_no_noise():
    network, style = build_network("fda", beta=0.2), draw(1, 3, 32, 32).float()
    out = network(torch.full((1, 3, 37, 29), -0.7), network.encode_style(style))
    torch.testing.assert_close(out, style.mean((2, 3), keepdim=True).expand_as(out), rtol=0, atol=2e-3)
    pixel = network(torch.full((1, 3, 1, 1), 0.4), network.encode_style(style))
    torch.testing.assert_close(pixel, style.mean((2, 3), keepdim=True))


def test_frequencies_are_capped_and_the_type_is_kept():
    wide, capped = build_network("fda", beta=0.4), build_network("fda", beta=0.4, max_cycles=2)
    content, style = draw(1, 3, 20, 20), draw(1, 3, 20, 20, seed=1)
    out = capped(content, capped.encode_style(style))
    np.testing.assert_allclose(out.numpy(), swap_by_numpy(content.numpy(), style.numpy(), 0.1), atol=1e-9)
    assert not torch.allclose(out, wide(content, wide.encode_style(style)))
    half = capped(content.to(torch.bfloat16), capped.encode_style(style.to(torch.bfloat16)))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), out, rtol=0, atol=0.03)


@pytest.mark.parametrize("options", [{"beta": 0.5}, {"beta": -0.1}, {"max_cycles": -1}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="wanted beta in"):
        build_network("fda", **options)
