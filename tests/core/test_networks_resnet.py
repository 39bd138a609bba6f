"""The residual generators and the encoder-decoder: against the published layout written out in float64, and by laws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stylejobs.core.networks import build_network
from stylejobs.core.networks.zhu2017 import Resnet, run_parts

NO_STYLE = torch.zeros(1, 0)
# Per residual block of 256 channels: two 3x3 convolutions with biases.
BLOCK = 2 * (256 * 256 * 9 + 256)


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def tiny(name: str = "resnet", seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(name, **{"width": 4, **({"blocks": 2} if name == "resnet" else {}), **options}).double()
    with torch.no_grad():
        for weight in network.parameters():  # biases and norms that are not neutral, so that a lost one is seen
            weight.add_(0.1 * torch.randn(weight.shape, dtype=torch.float64))
    return network


@pytest.mark.parametrize(
    ("name", "options", "number"),
    [
        ("resnet", {}, 11_378_179),
        ("resnet", {"upsample": "transposed"}, 11_378_179),
        ("resnet", {"blocks": 6}, 7_837_699),
        ("resnet", {"tied": True}, 11_378_179 - 8 * BLOCK),
        ("resnet", {"norm": "none"}, 11_378_179),
        ("encoder_decoder", {}, 1_317_507),
        ("label_conditioned", {"domains": 5}, 8_430_528),
    ],
)
def test_number_of_weights_is_the_published_one(name, options, number):
    assert count(build_network(name, **options)) == number


def conv(x, layer, stride=1, reflect=0, zeros=0):
    x = F.pad(F.pad(x, [reflect] * 4, mode="reflect"), [zeros] * 4)
    return F.conv2d(x, layer.weight, layer.bias, stride)


def grow(x, layer):
    """A transposed convolution written as a convolution: zeros between the pixels, the kernel turned by half."""
    kernel_px, (extra, _) = layer.weight.shape[-1], layer.output_padding
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, 2 * height - 1, 2 * width - 1)
    spread[..., ::2, ::2] = x
    side = kernel_px - 2
    spread = F.pad(spread, (side, side + extra, side, side + extra))
    return F.conv2d(spread, layer.weight.flip(2, 3).transpose(0, 1), layer.bias)


def whiten(x):
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    return centred / ((centred**2).mean(dim=(2, 3), keepdim=True) + 1e-5).sqrt()


def published_resnet(network: Resnet, x: torch.Tensor, transposed: bool) -> torch.Tensor:
    trunk = network.trunk
    x = whiten(conv(x, trunk.stem[0], reflect=3)).relu()
    for down in (trunk.down1, trunk.down2):
        x = whiten(conv(x, down[0], stride=2, zeros=1)).relu()
    for block in trunk.blocks:
        hidden = whiten(conv(x, block.conv1, reflect=1)).relu()
        x = x + whiten(conv(hidden, block.conv2, reflect=1))
    for up in [part for part in trunk.decoder if isinstance(part, nn.Sequential)]:
        repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = whiten(grow(x, up[0]) if transposed else conv(repeated, up[0], reflect=1)).relu()
    return conv(x, trunk.head, reflect=3).tanh()


@pytest.mark.parametrize("upsample", ["nearest", "transposed"])
def test_resnet_is_the_published_network(upsample):
    network, content = tiny(upsample=upsample), draw(2, 3, 24, 20)
    expected = published_resnet(network, content, upsample == "transposed")
    torch.testing.assert_close(network(content, torch.zeros(2, 0)), expected, rtol=0, atol=1e-10)


def test_encoder_decoder_is_the_one_of_the_text():
    network, content = tiny("encoder_decoder"), draw(1, 3, 40, 32)
    x = content
    for layer in network.encoder[::3]:
        x = F.leaky_relu(whiten(conv(x, layer, stride=2, reflect=1)), 0.2)
    for layer in network.decoder[::3]:
        x = whiten(grow(x, layer)).relu()
    torch.testing.assert_close(network(content, NO_STYLE), grow(x, network.head).tanh(), rtol=0, atol=1e-10)


def test_label_conditioned_is_a_bias_of_the_stem():
    # A constant plane under a reflecting convolution is the sum of its kernel: the label moves the stem's channels.
    network, content = tiny("label_conditioned", domains=3, blocks=1), draw(1, 3, 20, 24)
    label = torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64)
    kernel = network.stem[0].weight
    shift = kernel[:, 3:].sum(dim=(2, 3)) @ label[0]
    x = F.conv2d(F.pad(content, [3] * 4, mode="reflect"), kernel[:, :3]) + shift[:, None, None]
    x = network.encoder(network.stem[2](x.relu()))
    expected = network.head(network.decoder(network.residual(x))).tanh()
    torch.testing.assert_close(network(content, label), expected, rtol=0, atol=1e-10)


def test_the_label_reaches_every_pixel():
    network, content = tiny("label_conditioned", domains=2, blocks=1), draw(1, 3, 64, 64)
    first, second = (network(content, label[None]) for label in torch.eye(2, dtype=torch.float64))
    moved = (first - second).abs().amax(dim=1)[0]
    assert (moved > 1e-4).double().mean() > 0.99
    # In the published order the norm takes the label off again; only zeros at the border would tell of it.
    network.stem = nn.Sequential(network.stem[0], network.stem[2], network.stem[1])
    first, second = (network(content, label[None]) for label in torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet", "encoder_decoder"])
def test_batch_norm_ties_rows_in_training_and_not_at_work(name):
    network, content = tiny(name, norm="batch"), draw(3, 3, 32, 32)
    together = network(content, torch.zeros(3, 0))
    assert not torch.allclose(together[:1], network(content[:1], NO_STYLE), atol=1e-3)
    network.eval()
    together = network(content, torch.zeros(3, 0))
    torch.testing.assert_close(together[:1], network(content[:1], NO_STYLE), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet", "encoder_decoder", "label_conditioned"])
def test_bf16_autocast_is_near(name):
    network = tiny(name, **({"domains": 2} if name == "label_conditioned" else {})).float()
    content, style = draw(1, 3, 32, 32).float(), torch.ones(1, network.style_dim)
    exact = network(content, style)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(content, style)
    assert (rounded.float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("upsample", ["nearest", "transposed"])
def test_without_norm_a_far_pixel_changes_nothing(upsample):
    network, content = tiny(norm="none", blocks=1, upsample=upsample), draw(1, 3, 96, 16)
    other = content.clone()
    other[..., 95, :] *= -1
    moved = (network(content, NO_STYLE) - network(other, NO_STYLE)).abs().amax(dim=(0, 1, 3))
    assert moved[90:].max() > 0
    assert moved[:48].max() == 0


def test_tied_blocks_are_one_block():
    tied, untied = tiny(tied=True, blocks=3), tiny(blocks=3)
    state = {key.replace("blocks.0.", f"blocks.{i}."): v for i in range(3) for key, v in tied.state_dict().items()}
    untied.load_state_dict(state)
    content = draw(1, 3, 16, 16)
    out, expected = tied(content, NO_STYLE), untied(content, NO_STYLE)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for result in (out, expected):
        result.square().mean().backward()
    one, each = tied.trunk.blocks[0], untied.trunk.blocks
    for name, weight in one.named_parameters():
        summed = sum(block.get_parameter(name).grad for block in each)
        torch.testing.assert_close(weight.grad, summed, rtol=1e-9, atol=1e-12)
    assert one.conv1.weight.grad.abs().max() > 0


def test_features_by_layer():
    network, content = tiny(blocks=4), draw(2, 3, 21, 18)
    style = torch.zeros(2, 0)
    assert network.stages == ("input", "stem", "down1", "down2", "block1", "block2", "block3", "block4")
    assert network.nce_layers == (0, 2, 3, 4, 6)
    out, features = network(content, style, layers=network.nce_layers)
    assert torch.equal(out, network(content, style))
    shapes = [(2, 3, 24, 20), (2, 8, 12, 10), (2, 16, 6, 5), (2, 16, 6, 5), (2, 16, 6, 5)]
    assert [tuple(feature.shape) for feature in features] == shapes
    assert torch.equal(features[0][..., :21, :18], content)
    alone = network(content, style, layers=network.nce_layers, only_features=True)
    assert all(torch.equal(one, other) for one, other in zip(features, alone, strict=True))
    # A later stage is the earlier one, taken further; and the order is the caller's.
    torch.testing.assert_close(network.trunk.blocks[0](features[2]), features[3])
    backwards = network(content, style, layers=[6, 0], only_features=True)
    assert torch.equal(backwards[0], features[4])
    assert torch.equal(backwards[1], features[0])


def test_nce_layers_of_the_paper_and_of_the_shortest_network():
    named = Resnet(width=1, blocks=9)
    assert [named.stages[layer] for layer in named.nce_layers] == ["input", "down1", "down2", "block1", "block5"]
    assert tiny(blocks=1).nce_layers == (0, 2, 3, 4)


def test_only_features_spares_the_rest():
    network = tiny()
    network(draw(1, 3, 16, 16), NO_STYLE, layers=[2], only_features=True)[0].sum().backward()
    reached = {name.split(".")[1] for name, weight in network.named_parameters() if weight.grad is not None}
    assert reached == {"stem", "down1"}


@pytest.mark.parametrize(("layers", "words"), [([6], "from 0 to 5"), ([-1], "from 0 to 5"), ([], "got none")])
def test_layers_that_are_not_there(layers, words):
    with pytest.raises(ValueError, match=words):
        tiny()(draw(1, 3, 16, 16), NO_STYLE, layers=layers, only_features=True)


def test_two_directions_share_a_trunk():
    there, back = tiny(adapter=True, seed=1), tiny(adapter=True, seed=2)
    back.share_trunk(there)
    content = draw(1, 3, 19, 16)
    assert back.trunk is there.trunk
    one, other = there(content, NO_STYLE), back(content, NO_STYLE)
    assert not torch.allclose(one, other, atol=1e-3)
    assert torch.equal(one, run_parts(there.adapter, there.trunk, content))
    one.square().mean().backward()
    first = there.trunk.head.weight.grad.clone()
    assert all(weight.grad is None for weight in back.adapter.parameters())
    other.square().mean().backward()
    assert not torch.equal(back.trunk.head.weight.grad, first)
    weights = {id(weight) for network in (there, back) for weight in network.parameters()}
    assert len(weights) == len(list(there.parameters())) + len(list(back.adapter.parameters()))
    again = tiny(adapter=True, seed=3)
    again.load_state_dict(back.state_dict(), strict=True)
    assert torch.equal(again(content, NO_STYLE), other)


def test_an_adapter_shift_survives_the_norm_behind_it():
    network, content = tiny(adapter=True), draw(1, 3, 32, 32)
    before = network(content, NO_STYLE)
    with torch.no_grad():
        network.adapter.norm.bias.add_(torch.linspace(-1.0, 1.0, 16, dtype=torch.float64))
    assert (network(content, NO_STYLE) - before).abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("options", "words"), [({"adapter": True, "width": 5}, "same options"), ({"adapter": False}, "adapter=True")]
)
def test_trunks_that_cannot_be_shared(options, words):
    with pytest.raises(ValueError, match=words):
        tiny(adapter=True).share_trunk(tiny(**options))


@pytest.mark.parametrize("options", [{"adapter": True}, {"tied": True}, {"upsample": "transposed"}, {"norm": "none"}])
@pytest.mark.parametrize("height,width", [(1, 1), (1, 37), (18, 5), (33, 22)])
def test_any_size_with_any_option(options, height, width):
    # Wide enough that some ReLU is open in a picture of one row, where no norm opens half of them.
    network, content = tiny(width=16, **options), draw(2, 3, height, width).requires_grad_()
    out = network(content, torch.zeros(2, 0))
    assert out.shape == content.shape
    out.square().mean().backward()
    for tensor in (content, *network.parameters()):
        assert tensor.grad.isfinite().all()
    # A picture of one pixel is flat, and a norm takes off all that is flat.
    is_taken_off = height * width == 1 and options.get("norm") != "none"
    assert is_taken_off or content.grad.abs().max() > 0
    if height * width > 1:
        # One colour has no variance: what norm after norm makes of its rounding differs with the batch and the threads.
        torch.testing.assert_close(out[1:], network(content[1:], NO_STYLE), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet", {"width": 0}, "width"),
        ("resnet", {"blocks": 0}, "blocks"),
        ("resnet", {"norm": "batched"}, "did you mean 'batch'"),
        ("resnet", {"upsample": "bilinear"}, "nearest, transposed"),
        ("resnet", {"depth": 3}, "depth"),
        ("encoder_decoder", {"width": 0}, "width"),
        ("encoder_decoder", {"norm": "none"}, "instance, batch"),
        ("label_conditioned", {"domains": 0}, "domains"),
        ("label_conditioned", {"domains": 2, "blocks": -1}, "blocks"),
        ("label_conditioned", {}, "domains"),
    ],
)
def test_options_out_of_range(name, options, words):
    with pytest.raises(ValueError, match=words):
        build_network(name, **options)
