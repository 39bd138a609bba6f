"""The DCGAN generator and its norm."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from stylejobs.core.networks.radford2016 import DcganGenerator, PixelNorm
from tests.core.features import draw


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("size_px", [8, 16, 64])
def test_dcgan_generator_grows_to_its_size(size_px):
    torch.manual_seed(0)
    generator = DcganGenerator(latent=6, width=2, size_px=size_px).double()
    z = draw((3, 6)).requires_grad_()
    image = generator(z)
    assert image.shape == (3, 3, size_px, size_px)
    assert image.abs().max() < 1.0
    torch.testing.assert_close(image[1:2], generator(z[1:2]), rtol=0, atol=1e-12)
    assert (image[0] - image[1]).abs().max() > 0
    image.square().mean().backward()
    for tensor in (z, *generator.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0
    other = DcganGenerator(latent=6, width=2, size_px=size_px).double()
    other.load_state_dict(generator.state_dict(), strict=True)
    assert torch.equal(image, other(z))


def test_dcgan_generator_of_the_text():
    generator = DcganGenerator()
    assert generator(torch.zeros(1, 512)).shape == (1, 3, 128, 128)
    channels = [part.out_channels for part in generator.body if isinstance(part, nn.ConvTranspose2d)]
    assert channels == [1024, 512, 256, 128, 64, 3]
    # Kernels of 4x4, and a bias for every channel.
    sides = [512, *channels]
    assert count(generator) == sum(16 * a * b + b for a, b in pairwise(sides)) == 19_534_787


@pytest.mark.parametrize(
    ("options", "words"), [({"latent": 0}, "latent"), ({"width": 0}, "width"), ({"size_px": 100}, "power of two")]
)
def test_dcgan_generator_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        DcganGenerator(**options)


def test_dcgan_generator_refuses_other_codes():
    generator = DcganGenerator(latent=6, width=2, size_px=8)
    for z in (torch.zeros(2, 5), torch.zeros(6), torch.zeros(2, 6, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"float codes \[B, 6\]"):
            generator(z)


def test_pixel_norm_leaves_unit_power():
    features = draw((2, 7, 3, 4)) * 50
    normed = PixelNorm()(features)
    np.testing.assert_allclose(np.mean(normed.numpy() ** 2, axis=1), 1.0, rtol=1e-8)
    np.testing.assert_allclose(normed.numpy() * features.abs().numpy(), features.numpy() * normed.abs().numpy())
