"""What every generator promises, and each network's own shape."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stylejobs.core.networks import NETWORKS, build_network

OPTIONS = {
    "adain": {"width_scale": 0.1},
    "attention_recurrent": {"width": 4, "steps": 2, "grid": 3},
    "encoder_decoder": {"width": 4},
    "exemplar": {"latent": 8, "width": 4, "size_px": 16, "width_scale": 0.1},
    "fda": {},
    "histogram": {"levels": 16},
    "johnson": {"width": 4, "blocks": 1},
    "label_conditioned": {"domains": 3, "width": 4, "blocks": 1},
    "moments": {},
    "resnet": {"width": 4, "blocks": 2},
    "style_modulated": {"width": 4, "style_dim": 6, "blocks": 1},
}
DRAWING = ("exemplars.", "mapping.")  # parts that draw styles, and have no share in stylizing


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, **OPTIONS[name])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def codes(network: nn.Module, batch: int, seed: int = 1) -> torch.Tensor:
    if network.style_dim == 0:
        return torch.zeros(batch, 0)
    if not hasattr(network, "encode_style"):  # a style is a label
        return torch.eye(network.style_dim)[torch.arange(batch) % network.style_dim]
    return network.encode_style(draw(batch, 3, 16, 16, seed=seed))


def test_every_network_is_tested_here():
    assert set(OPTIONS) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 41), st.integers(1, 41))
def test_any_size_in_the_same_size_out(name, height, width):
    network = build(name)
    for mode in (True, False):
        out = network.train(mode)(draw(1, 3, height, width), codes(network, 1))
        assert out.shape == (1, 3, height, width)
        assert out.isfinite().all()
        assert out.abs().max() <= 1.0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_does_not_depend_on_its_batch(name):
    network, content = build(name), draw(3, 3, 21, 18)
    style = codes(network, 3)
    together = network(content, style)
    for row in range(3):
        alone = network(content[row : row + 1], style[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_and_reach_everything(name):
    network, content = build(name), draw(2, 3, 20, 20).requires_grad_()
    network(content, codes(network, 2)).square().mean().backward()
    trained = [
        weight for name, weight in network.named_parameters() if weight.requires_grad and not name.startswith(DRAWING)
    ]
    for tensor in (content, *trained):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert content.grad.abs().max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_state_round_trips_and_holds_no_batch_norm(name):
    network, other = build(name), build_network(name, **OPTIONS[name])
    other.load_state_dict(network.state_dict(), strict=True)
    content = draw(1, 3, 16, 16)
    assert torch.equal(network(content, codes(network, 1)), other(content, codes(other, 1)))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_inputs_are_refused(name):
    network = build(name)
    with pytest.raises(ValueError, match="style codes"):
        network(draw(2, 3, 8, 8), torch.zeros(2, network.style_dim + 1))
    with pytest.raises(ValueError, match="style codes"):
        network(draw(2, 3, 8, 8), torch.zeros(1, network.style_dim))
    with pytest.raises(ValueError, match="float content"):
        network(draw(2, 1, 8, 8), codes(network, 2))
    with pytest.raises(ValueError, match="float content"):
        network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), codes(network, 2))


def test_johnson_has_the_public_number_of_parameters():
    network = build_network("johnson", width=32, blocks=5)
    assert sum(weight.numel() for weight in network.parameters()) == 1_679_235
    assert list(network.buffers()) == []


def test_johnson_options_out_of_range():
    with pytest.raises(ValueError, match="width"):
        build_network("johnson", width=0)


def test_johnson_sees_only_reflections_past_the_border():
    # The same image padded by hand gives the same result where no padding is needed.
    network, content = build("johnson"), draw(1, 3, 22, 19)
    padded = torch.nn.functional.pad(content, (0, 1, 0, 2), mode="reflect")
    expected = network(padded, torch.zeros(1, 0))[..., :22, :19]
    assert torch.equal(network(content, torch.zeros(1, 0)), expected)
