"""The network of `fst`: gates against numpy, attention of fixed cost, shared steps, and its three stages."""

import numpy as np
import pytest
import torch
from torch import nn

from stylejobs.core.networks import build_network
from stylejobs.core.networks.fst import ConvGru, LevelAttention, Reconstruction, StyleNorm, levels_code


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def build(**options) -> nn.Module:
    torch.manual_seed(0)
    return build_network("attention_recurrent", **({"width": 4, "steps": 2, "grid": 3} | options))


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def conv_by_numpy(conv: nn.Conv2d, image: np.ndarray) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    return np.einsum("ihwkl,oikl->ohw", windows, weight) + bias[:, None, None]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_gates_against_numpy():
    torch.manual_seed(0)
    gru = ConvGru(3, 2).double()
    x, h = draw(2, 3, 4, 5), draw(2, 2, 4, 5, seed=1)
    out = gru(x, h).detach().numpy()
    for row in range(2):
        both = np.concatenate([x[row], h[row]])
        update, reset = np.split(sigmoid(conv_by_numpy(gru.gates, both)), 2)
        candidate = np.tanh(conv_by_numpy(gru.candidate, np.concatenate([x[row], reset * h[row].numpy()])))
        np.testing.assert_allclose(out[row], (1 - update) * h[row].numpy() + update * candidate, atol=1e-12)


def test_a_closed_update_gate_keeps_the_state():
    gru, h = ConvGru(3, 2).double(), draw(1, 2, 4, 5)
    nn.init.zeros_(gru.gates.weight)
    gru.gates.bias.data = torch.tensor([-50.0, -50.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(gru(draw(1, 3, 4, 5, seed=1), h), h)


def test_attention_to_flat_levels_is_uniform_and_of_fixed_cost():
    torch.manual_seed(0)
    attention = LevelAttention(4, [2, 3], grid=3).double()
    for key in attention.keys:  # all keys alike, whatever the level
        nn.init.zeros_(key.weight)
        key.bias.data = draw(2)
    shapes = []
    handle = attention.keys[0].register_forward_hook(lambda module, inputs, out: shapes.append(out.shape))
    for height, width in ((4, 5), (60, 33)):
        levels = [draw(1, 2, 4 * height, 4 * width), draw(1, 3, height, width, seed=1)]
        state = draw(1, 4, height, width, seed=2)
        found = (attention(state, levels) - state) / attention.gain
        pooled = [torch.nn.functional.adaptive_avg_pool2d(level, 3) for level in levels]
        values = [value(tokens).mean((2, 3)) for value, tokens in zip(attention.values, pooled, strict=True)]
        torch.testing.assert_close(found, torch.stack(values).mean(0)[:, :, None, None].expand_as(found))
    handle.remove()
    assert shapes == [(1, 2, 3, 3)] * 2


def test_attention_looks_at_what_matches():
    attention = LevelAttention(2, [2], grid=2).double()
    with torch.no_grad():
        for conv in (attention.query, attention.keys[0], attention.values[0]):
            conv.weight.zero_()
            conv.bias.zero_()
        attention.query.weight[0, 0] = attention.keys[0].weight[0, 0] = 20
        attention.values[0].weight[:, 1] = 1
    level = torch.tensor([[[[1.0, -1], [-1, -1]], [[5, 7], [7, 7]]]], dtype=torch.float64)
    state = torch.tensor([[[[1.0, -1]], [[0, 0]]]], dtype=torch.float64)
    found = attention(state, [level]) - state
    torch.testing.assert_close(found[0, 0], torch.tensor([[5.0, 7.0]], dtype=torch.float64))


def test_style_norm_in_closed_form():
    torch.manual_seed(0)
    module, features, style = StyleNorm(3, 4).double(), draw(2, 3, 6, 5) * 9, draw(2, 4, seed=1)
    out = module(features, style).detach().numpy()
    affine = style.numpy() @ module.affine.weight.detach().numpy().T + module.affine.bias.detach().numpy()
    np.testing.assert_allclose(out.mean((2, 3)), affine[:, 3:], atol=1e-9)
    np.testing.assert_allclose(out.std((2, 3)), np.abs(1 + affine[:, :3]), rtol=1e-4)


def test_steps_share_their_weights_and_each_gives_an_image():
    one, three = build(steps=1), build(steps=3)
    three.load_state_dict(one.state_dict())
    content = draw(1, 3, 24, 20, dtype=torch.float32)
    style = one.encode_style(draw(1, 3, 16, 16, seed=1, dtype=torch.float32))
    levels = one.encoder(content)
    state, images = three.decoder(levels, style)
    assert [image.shape for image in images] == [(1, 3, 6, 5)] * 3
    assert state.shape == (1, 16, 6, 5)
    assert state.abs().max() < 1
    torch.testing.assert_close(images[0], one.decoder(levels, style)[1][0])
    assert not torch.allclose(images[1], images[2], atol=1e-4)


def test_the_code_is_the_statistics_of_all_levels():
    network = build().double()
    levels = network.encoder(draw(2, 3, 18, 21))
    assert [level.shape[1:] for level in levels] == [(4, 20, 24), (8, 10, 12), (16, 5, 6)]
    assert not any(isinstance(part, nn.MaxPool2d | nn.InstanceNorm2d) for part in network.encoder.modules())
    arrays = [level.detach().numpy() for level in levels]
    expected = [number for a in arrays for number in (a.mean((2, 3)), np.sqrt(a.var((2, 3)) + 1e-5))]
    np.testing.assert_allclose(levels_code(levels).detach(), np.concatenate(expected, axis=1), atol=1e-9)
    assert levels_code(levels).shape == (2, network.style_dim)


@pytest.mark.parametrize(("bias", "detail"), [(-40.0, False), (40.0, True)])
def test_the_interpolation_blends_by_its_mask(bias, detail):
    part = build().interpolation.double()
    nn.init.zeros_(part.head.weight)
    part.head.bias.data = torch.tensor([0.3, -0.2, 0.1, bias], dtype=torch.float64)
    small = draw(1, 3, 5, 6)
    out = part(draw(1, 16, 5, 6, seed=1), small, draw(1, 56, seed=2), (19, 23))
    drawn = torch.tanh(part.head.bias[:3])[None, :, None, None].expand(1, 3, 19, 23)
    smooth = torch.nn.functional.interpolate(small, size=(20, 24), mode="bilinear")[..., :19, :23]
    torch.testing.assert_close(out, drawn if detail else smooth)


def test_in_each_stage_the_stage_learns_and_the_others_stay():
    network, content = build(), draw(2, 3, 21, 18, dtype=torch.float32)
    head = Reconstruction(4)
    parts = {"encoder": network.encoder, "decoder": network.decoder, "interpolation": network.interpolation}

    def backward(stage: str, loss: torch.Tensor) -> None:
        loss.backward()
        for name, part in parts.items():
            for weight in part.parameters():
                assert (weight.grad is not None) == (name == stage)
                weight.grad = None

    def freeze_all_but(stage: str) -> None:
        for name, part in parts.items():
            part.requires_grad_(name == stage)

    freeze_all_but("encoder")
    image = head(network.encoder(content), (21, 18))
    assert image.shape == content.shape
    backward("encoder", (image - content).abs().mean())
    assert all(weight.grad is not None for weight in head.parameters())
    freeze_all_but("decoder")
    levels = network.encoder(content)
    state, images = network.decoder(levels, levels_code(levels))
    backward("decoder", sum(image.square().mean() for image in images))
    freeze_all_but("interpolation")
    out = network.interpolation(state.detach(), images[-1].detach(), levels_code(levels), (21, 18))
    backward("interpolation", out.square().mean())


def test_the_encoder_learns_to_give_the_image_back():
    network, head = build(), Reconstruction(4)
    rows, columns = torch.arange(24)[:, None] / 6, torch.arange(24) / 7
    image = torch.stack([torch.sin(rows + columns * k) * 0.8 for k in (0.3, 1.0, -1.0)])[None]
    optimizer = torch.optim.Adam([*network.encoder.parameters(), *head.parameters()], 1e-2)
    losses = []
    for _ in range(40):
        loss = (head(network.encoder(image), (24, 24)) - image).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_sizes_at_the_defaults():
    network = build_network("attention_recurrent")
    parts = (network.encoder, network.decoder, network.interpolation)
    assert [count(part) for part in parts] == [287_008, 1_645_316, 256_420]
    assert network.style_dim == 448
    with pytest.raises(ValueError, match="steps"):
        build_network("attention_recurrent", steps=0)
