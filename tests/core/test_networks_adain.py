"""AdaIN: statistics in closed form, cells that lie over their pixels, a frozen encoder; style attention; exemplars."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.networks import build_network
from stylejobs.core.networks.huang2017 import Decoder, Encoder, adaptive_instance_norm, channel_moments, style_code
from stylejobs.core.networks.park2019 import StyleAttention, attend

EPS = 1e-5


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def build(**options) -> nn.Module:
    torch.manual_seed(0)
    return build_network("adain", width_scale=0.1, **options)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(2, 9), st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 99))
def test_adain_gives_the_statistics_of_the_style(height, width, spread, offset, seed):
    content = draw(2, 3, height, width, seed=seed) * spread + offset
    style = draw(2, 3, 7, 5, seed=seed + 1) * 3 - 1
    mean, std = channel_moments(style)
    wanted_mean, wanted_variance = style.numpy().mean((2, 3)), style.numpy().var((2, 3)) + EPS
    own_variance = content.numpy().var((2, 3))
    out = adaptive_instance_norm(content, mean, std).numpy()
    np.testing.assert_allclose(out.mean((2, 3)), wanted_mean, atol=1e-9)
    np.testing.assert_allclose(out.var((2, 3)), wanted_variance * own_variance / (own_variance + EPS), rtol=1e-7)


def test_a_mix_of_codes_is_the_papers_mix_of_features():
    content, style = draw(2, 3, 6, 5), draw(2, 3, 4, 4, seed=1) + 2
    own, other = channel_moments(content), channel_moments(style)
    torch.testing.assert_close(adaptive_instance_norm(content, *own), content)
    mixed = [0.3 * b + 0.7 * a for a, b in zip(own, other, strict=True)]
    expected = 0.3 * adaptive_instance_norm(content, *other) + 0.7 * content
    torch.testing.assert_close(adaptive_instance_norm(content, *mixed), expected)


def test_adain_gradients_also_of_flat_features():
    inputs = [draw(2, 2, 3, 2).requires_grad_(), draw(2, 2).requires_grad_(), (draw(2, 2) + 2).requires_grad_()]
    assert torch.autograd.gradcheck(adaptive_instance_norm, inputs)
    flat = torch.ones(1, 2, 3, 3, requires_grad=True)
    adaptive_instance_norm(flat, draw(1, 2).float(), draw(1, 2).float()).square().sum().backward()
    assert flat.grad.isfinite().all()


def test_moments_are_float32_under_half_precision():
    features = draw(1, 2, 64, 64).to(torch.bfloat16) + 3
    mean, std = channel_moments(features)
    assert mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(std.numpy() ** 2 - EPS, features.double().numpy().var((2, 3)), rtol=1e-4)
    assert adaptive_instance_norm(features, mean, std).dtype == torch.bfloat16


def test_a_code_is_means_deviations_and_tokens():
    features = draw(2, 3, 6, 4)
    code = style_code(features, grid=2).numpy()
    assert code.shape == (2, (2 + 4) * 3)
    np.testing.assert_allclose(code[:, :3], features.numpy().mean((2, 3)))
    np.testing.assert_allclose(code[:, 3:6] ** 2, features.numpy().var((2, 3)) + EPS)
    blocks = features.numpy().reshape(2, 3, 2, 3, 2, 2).mean((3, 5))
    np.testing.assert_allclose(code[:, 6:], blocks.reshape(2, -1))


def make_linear(network: nn.Module) -> nn.Module:
    """Positive weights, and means in place of maxima: every pixel that may act on a cell then does."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            network.set_submodule(name, mean)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(1.0 / weight[0].numel() if weight.ndim > 1 else 0.1)
    return network.double()


def centre_of_support(value: torch.Tensor, image: torch.Tensor) -> list[float]:
    (grad,) = torch.autograd.grad(value, image, retain_graph=True)
    rows, columns = grad.abs().sum((0, 1)).nonzero().T
    return [(rows.min() + rows.max()).item() / 2, (columns.min() + columns.max()).item() / 2]


@pytest.mark.parametrize(
    ("name", "layer", "stride"),
    [
        ("squeezenet1_1", "conv1", 2),
        ("squeezenet1_1", "fire2", 4),
        ("squeezenet1_1", "fire3", 4),
        ("squeezenet1_1", "fire5", 8),
        ("vgg16", "relu1_2", 1),
        ("vgg16", "relu3_1", 4),
    ],
)
def test_cells_lie_over_the_pixels_that_they_are_decoded_to(name, layer, stride):
    encoder = make_linear(Encoder(name, layer))
    height, width = 99, 107
    image = draw(1, 3, height, width).add(1).requires_grad_()
    features = encoder(image)
    assert encoder.stride == stride
    assert features.shape == (1, encoder.channels, -(-height // stride), -(-width // stride))
    row, column = (side // stride // 2 for side in (height, width))
    centre = centre_of_support(features[0, 0, row, column], image)
    block_centre = [index * stride + (stride - 1) / 2 for index in (row, column)]
    off = [a - b for a, b in zip(centre, block_centre, strict=True)]
    assert off == ([-0.5, -0.5] if name == "squeezenet1_1" else [0, 0])


def test_the_decoded_image_is_not_shifted():
    # Over the pixels of one block, the middle of what a decoded pixel sees is the pixel itself, to half a pixel.
    encoder, decoder = (make_linear(part("squeezenet1_1", "fire3")) for part in (Encoder, Decoder))
    image = draw(1, 3, 97, 101).add(1).requires_grad_()
    decoded = decoder(encoder(image), (97, 101))
    off = [
        [a - b for a, b in zip(centre_of_support(decoded[0, 0, row, column], image), (row, column), strict=True)]
        for row in range(48, 52)
        for column in range(52, 56)
    ]
    np.testing.assert_allclose(np.mean(off, axis=0), [-0.5, -0.5])


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (33, 65), (7, 90)])
def test_features_of_any_size_cover_the_image(shape):
    encoder = Encoder("squeezenet1_1", "fire5")
    features = encoder(draw(1, 3, *shape, dtype=torch.float32))
    assert features.shape[-2:] == tuple(-(-max(side, 32) // 8) for side in shape)


def test_the_vgg_decoder_is_the_papers():
    network = build_network("adain", encoder="vgg19")
    assert count(network.encoder) == 3_505_728  # VGG-19 up to relu4_1
    assert count(network.decoder) == 3_505_219  # the public decoder's
    convs = [module for module in network.decoder.body if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [256, 256, 256, 256, 128, 128, 64, 64, 3]
    assert network.style_dim == 1024
    assert network.multiple == 8


def test_sizes_of_the_small_adain():
    network = build_network("adain")
    assert (count(network.encoder), count(network.decoder)) == (25_632, 286_883)
    assert (network.encoder.layer, network.multiple, network.style_dim) == ("fire3", 4, 256)
    assert build_network("adain", attention=True).style_dim == (2 + 64) * 128
    assert list(network.transform.parameters()) == []


def test_the_encoder_is_frozen_and_travels_with_the_weights():
    network = build().train()
    assert not network.encoder.training
    assert not network.encoder.backbone.training
    assert not any(weight.requires_grad for weight in network.encoder.parameters())
    assert all(weight.requires_grad for weight in network.decoder.parameters())
    other = build_random_backbone(7)
    network.encoder.load_weights({f"features.{key}": value for key, value in other.features.state_dict().items()})
    image = draw(1, 3, 35, 39, dtype=torch.float32)  # 8 and 9 cells without any padding, but for the reflection
    padded = nn.functional.pad(nn.functional.pad(image, (0, 1, 0, 1), mode="reflect"), (2, 1, 2, 1), mode="reflect")
    torch.testing.assert_close(network.encoder(image) * network.encoder.scale, other(padded, ["fire3"])["fire3"])
    fresh = build()
    assert not torch.equal(fresh.encode_style(image), network.encode_style(image))
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.encode_style(image), network.encode_style(image))


def test_features_are_near_one_whatever_the_size_of_the_weights():
    encoder, weights = Encoder("squeezenet1_1", "fire3"), build_random_backbone(3).features.state_dict()
    image, outs = draw(2, 3, 64, 64, dtype=torch.float32), []
    for factor in (1.0, 50.0):
        encoder.load_weights({key: value * (factor if key == "0.weight" else 1.0) for key, value in weights.items()})
        outs.append(encoder(image))
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-4)
    assert 0.3 < outs[0].square().mean().sqrt() < 3


def test_weights_that_do_not_fit_are_named():
    network, weights = build(), build_random_backbone(0).features.state_dict()
    del weights["0.weight"]
    with pytest.raises(ValueError, match=r"squeezenet1_1 up to fire3; .* 0\.weight;"):
        network.encoder.load_weights(weights)


def test_the_decoder_learns_to_give_the_image_back():
    torch.manual_seed(0)
    encoder, decoder = Encoder("squeezenet1_1", "fire2"), Decoder("squeezenet1_1", "fire2", width_scale=0.25)
    rows, columns = torch.arange(33)[:, None] / 6, torch.arange(35) / 7
    image = torch.stack([torch.sin(rows + columns * k) * 0.8 for k in (0.3, 1.0, -1.0)])[None]
    optimizer, features, losses = torch.optim.Adam(decoder.parameters(), 2e-3), encoder(image), []
    for _ in range(40):
        loss = (decoder(features, (33, 35)) - image).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "squeezenet1"}, "did you mean 'squeezenet1_1'"),
        ({"layer": "relu4_1"}, "layer of squeezenet1_1"),
        ({"width_scale": 0.0}, "width_scale"),
        ({"attention": True, "grid": 1}, "2x2 style tokens"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        build_network("adain", **options)


def test_networks_do_not_import_torchvision():
    script = "import sys, stylejobs.core.networks; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280)
    assert done.stdout.strip() == "False", done.stderr


def test_attention_against_numpy():
    query, key, value = draw(2, 4, 3, 2), draw(2, 4, 5, seed=1), draw(2, 6, 5, seed=2)
    scores = np.einsum("bchw,bcm->bhwm", query.numpy(), key.numpy()) / 2.0
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bhwm,bdm->bdhw", weights, value.numpy())
    np.testing.assert_allclose(attend(query, key, value).numpy(), expected, atol=1e-12)


def test_attention_to_equal_tokens_is_uniform():
    key, value = draw(1, 4, 1).expand(1, 4, 9), draw(1, 3, 9, seed=1)
    attended = attend(draw(1, 4, 5, 7, seed=2) * 50, key, value)
    torch.testing.assert_close(attended, value.mean(2)[:, :, None, None].expand(1, 3, 5, 7))
    torch.manual_seed(0)
    module, tokens = StyleAttention(4).double(), draw(1, 4, 1, 1).expand(1, 4, 3, 3)
    first, second = (module(draw(1, 4, 4, 4, seed=seed), tokens) for seed in (3, 4))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, first[:, :, :1, :1].expand_as(first))


def test_with_attention_any_size_rows_alone_and_gradients():
    network = build(attention=True, grid=3)
    style = network.encode_style(draw(2, 3, 20, 33, seed=1, dtype=torch.float32))
    assert style.shape == (2, network.style_dim)
    for shape in ((1, 1), (3, 41), (34, 37)):
        content = draw(2, 3, *shape, dtype=torch.float32)
        out = network(content, style)
        assert out.shape == content.shape
        alone = network(content[1:], style[1:])
        torch.testing.assert_close(out[1:], alone, rtol=0, atol=2e-5)
    out.square().mean().backward()
    for weight in (*network.decoder.parameters(), *network.transform.parameters()):
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def test_with_attention_the_places_of_the_style_matter():
    network = build(attention=True, grid=2).eval()
    content, style = draw(1, 3, 32, 32, dtype=torch.float32), draw(1, 3, 32, 32, seed=1, dtype=torch.float32)
    code = network.encode_style(style)
    tokens = code[:, 256:].clone()
    code[:, 256:] = 2 * tokens.mean() - tokens
    assert not torch.allclose(network(content, code), network(content, network.encode_style(style)), atol=1e-4)


def test_exemplars_are_drawn_by_seed_and_encoded():
    torch.manual_seed(0)
    network = build_network("exemplar", latent=8, width=4, size_px=16, width_scale=0.1)
    before = torch.get_rng_state()
    styles = [network.draw_style(seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(styles[0], styles[1])
    assert not torch.allclose(styles[0], styles[2], atol=1e-6)
    image = network.draw_exemplar(1)
    assert image.shape == (3, 16, 16)
    torch.testing.assert_close(network.encode_style(image[None])[0], styles[2])
    assert styles[0].shape == (network.style_dim,)
    content = draw(1, 3, 20, 21, dtype=torch.float32)
    assert torch.equal(network(content, styles[0][None]), network.adain(content, styles[0][None]))


def test_the_exemplar_network_is_its_two_parts():
    network = build_network("exemplar", latent=8, width=4, size_px=16)
    assert count(network) == count(network.exemplars) + count(build_network("adain"))
    assert {name.split(".")[0] for name in network.state_dict()} == {"exemplars", "adain"}
