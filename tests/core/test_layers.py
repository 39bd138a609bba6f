"""Blocks that several networks share, against torch's own in float64; how their weights begin."""

import pytest
import torch
from torch import Tensor, nn

from stylejobs.core.networks.layers import ImageConv, InstanceNorm, build_conv, build_norm, init_normal
from stylejobs.core.networks.zhu2017 import Resnet

LAYOUTS = {
    "contiguous": lambda features: features.contiguous(),
    "channels last": lambda features: features.contiguous(memory_format=torch.channels_last),
    "a part of something": lambda features: torch.cat([features, features], dim=3)[..., : features.shape[3]],
}
every_layout = pytest.mark.parametrize("lay_out", LAYOUTS.values(), ids=LAYOUTS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcomes(layer: nn.Module, features: Tensor, lay_out) -> list[Tensor]:
    """What comes out, and the gradients of weights and input."""
    features = features.clone().requires_grad_()
    out = layer(lay_out(features))
    wanted = [features, *layer.parameters()]
    return [out.detach(), *torch.autograd.grad((out * draw(*out.shape, seed=9).to(out)).sum(), wanted)]


def norms(affine: bool) -> tuple[nn.InstanceNorm2d, InstanceNorm]:
    theirs, ours = nn.InstanceNorm2d(5, affine=affine).double(), InstanceNorm(5, affine=affine).double()
    if affine:
        with torch.no_grad():
            theirs.weight.copy_(draw(5)), theirs.bias.copy_(draw(5, seed=1))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@every_layout
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_our_instance_norm_is_torchs(rows, affine, lay_out):
    theirs, ours = norms(affine)
    features = draw(rows, 5, 9, 7, seed=2) * 4 + 10
    for found, expected in zip(
        outcomes(ours, features, lay_out), outcomes(theirs, features, LAYOUTS["contiguous"]), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@every_layout
def test_our_instance_norm_in_float32_is_that_of_float64(lay_out):
    features = draw(2, 5, 60, 64, seed=3) * 2 + 100
    found = InstanceNorm(5)(lay_out(features.float()))
    torch.testing.assert_close(found.double(), nn.InstanceNorm2d(5)(features), rtol=0, atol=1e-4)


@every_layout
def test_our_instance_norm_has_second_gradients(lay_out):
    _, ours = norms(True)
    features = draw(2, 5, 3, 2, seed=4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: ours(lay_out(x)), features)


def test_our_instance_norm_refuses_a_single_cell_and_takes_bfloat16():
    for rows in (1, 2):
        with pytest.raises(ValueError, match="spatial"):
            InstanceNorm(5)(torch.zeros(rows, 5, 1, 1))
    assert InstanceNorm(5)(draw(2, 5, 4, 4).bfloat16()).dtype == torch.bfloat16


def image_convs(kernel_px: int, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    ours = build_conv(6, 3, kernel_px, bias=bias).double()
    theirs = nn.Conv2d(6, 3, kernel_px, padding=kernel_px // 2, padding_mode="reflect", bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


@every_layout
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_px", [5, 9])
def test_a_convolution_to_an_image_is_torchs(kernel_px, bias, lay_out):
    theirs, ours = image_convs(kernel_px, bias)
    assert isinstance(ours, ImageConv)
    features = draw(2, 6, 11, 8)
    for found, expected in zip(
        outcomes(ours, features, lay_out), outcomes(theirs, features, LAYOUTS["contiguous"]), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_without_gradients_a_convolution_to_an_image_is_bit_for_bit_torchs():
    theirs, ours = image_convs(7, True)
    features = draw(2, 6, 11, 8)
    with torch.no_grad():
        assert torch.equal(ours(features), theirs(features))


def test_only_wide_kernels_to_few_channels_are_split():
    assert not any(isinstance(conv, ImageConv) for conv in (build_conv(6, 3, 3), build_conv(6, 8, 7)))
    assert not isinstance(build_conv(6, 3, 7, stride=2), ImageConv)


def test_weights_begin_as_in_the_paper():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(16, 64, 4), nn.ConvTranspose2d(16, 64, 4), nn.Linear(64, 256), build_norm("batch", 4096)
    )
    init_normal(network, std=0.03)
    for part in network[:3]:
        assert abs(part.weight.mean()) < 1e-3
        assert abs(part.weight.std() / 0.03 - 1) < 0.03
        assert part.bias.abs().max() == 0
    assert abs(network[3].weight.mean() - 1) < 2e-3
    assert abs(network[3].weight.std() / 0.03 - 1) < 0.05
    with torch.no_grad():
        assert abs(Resnet(width=16, blocks=1).trunk.blocks[0].conv1.weight.std() / 0.02 - 1) < 0.03


def test_even_kernels_have_no_centre():
    with pytest.raises(ValueError, match="odd kernel_px"):
        build_conv(3, 4, 4)
