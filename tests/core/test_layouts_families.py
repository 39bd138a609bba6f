"""Checkpoints of fast_neural_style, AdaIN and StarGAN: the originals' pictures, their ranges folded in."""

import pytest
import torch

from stylejobs.core.networks.layouts import adopt_checkpoint
from tests.core.originals import (
    PublicFast,
    PublicStarGan,
    build_adopted,
    draw_adain,
    draw_images,
    draw_weights,
    public_adain,
)

SIZES = [(16, 16), (24, 44), (60, 32)]


def draw_fast(width: int = 4, blocks: int = 2) -> PublicFast:
    """With a head that fills [0, 255], and goes beyond it here and there."""
    original = draw_weights(PublicFast(width, blocks))
    with torch.no_grad():
        original.deconv3.conv2d.weight.mul_(60.0)
        original.deconv3.conv2d.bias.add_(127.0)
    return original.eval()


@pytest.mark.parametrize(("width", "blocks"), [(4, 2), (3, 1), (32, 5)])
def test_fast_gives_the_originals_pictures(width: int, blocks: int):
    original = draw_fast(width, blocks)
    adopted = adopt_checkpoint("fast", original.state_dict())
    assert adopted.options == {"width": width, "blocks": blocks, "public": True}
    network = build_adopted(adopted)
    for seed, size in enumerate(SIZES):
        content = draw_images(2, 3, *size, seed=seed)
        with torch.no_grad():
            pixels = original((content + 1.0) * 127.5)
            found = network(content, torch.zeros(2, 0))
        inside = (pixels > 0) & (pixels < 255)
        assert 0.3 < inside.float().mean() < 1.0  # both what is cut off, and what is not, is compared
        torch.testing.assert_close(found, pixels.clamp(0, 255) / 127.5 - 1.0, rtol=0, atol=1e-5)


def test_fast_of_old_versions_has_statistics_that_are_passed_over():
    original = draw_fast()
    old = original.state_dict()
    for name in ("in1", "in4", "res1.in2"):
        old |= {f"{name}.running_mean": torch.ones(4), f"{name}.running_var": torch.zeros(4)}
    now, before = adopt_checkpoint("fast", original.state_dict()), adopt_checkpoint("fast", old)
    assert all(torch.equal(now.weights[key], before.weights[key]) for key in now.weights)


@pytest.mark.parametrize(("domains", "width", "blocks"), [(3, 4, 2), (1, 3, 1), (5, 8, 6)])
def test_stargan_gives_the_originals_pictures(domains: int, width: int, blocks: int):
    original = draw_weights(PublicStarGan(domains, width, blocks)).train()
    adopted = adopt_checkpoint("stargan", original.state_dict())
    assert adopted.options == {"domains": domains, "width": width, "blocks": blocks, "public": True}
    network = build_adopted(adopted)
    for seed, size in enumerate(SIZES):
        content = draw_images(2, 3, *size, seed=seed)
        labels = torch.eye(domains)[torch.arange(2) % domains]
        with torch.no_grad():
            torch.testing.assert_close(network(content, labels), original(content, labels), rtol=0, atol=1e-5)


def test_the_label_of_stargan_reaches_the_picture():
    network = build_adopted(adopt_checkpoint("stargan", draw_weights(PublicStarGan()).state_dict()))
    content = draw_images(1, 3, 32, 32)
    one, other = (network(content, label[None]) for label in torch.eye(3)[:2])
    assert (one - other).abs().max() > 1e-3


def test_stargan_in_training_mode_is_the_same_function():
    network = build_adopted(adopt_checkpoint("stargan", draw_weights(PublicStarGan()).state_dict()))
    content, label = draw_images(1, 3, 20, 24), torch.eye(3)[:1]
    with torch.no_grad():
        without = network(content, label)
    # With gradients the head takes another way on the CPU, which pads by itself.
    torch.testing.assert_close(network.train()(content, label).detach(), without, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def adain() -> tuple[torch.nn.Sequential, torch.nn.Sequential]:
    return draw_adain()


@pytest.mark.parametrize(("content_size", "style_size"), [((32, 32), (32, 48)), ((48, 40), (64, 64))])
def test_adain_gives_the_originals_pictures(adain, content_size: tuple[int, int], style_size: tuple[int, int]):
    vgg, decoder = adain
    network = build_adopted(adopt_checkpoint("adain", decoder.state_dict(), vgg.state_dict()))
    content, style = draw_images(1, 3, *content_size, seed=3), draw_images(1, 3, *style_size, seed=4)
    with torch.no_grad():
        image = public_adain(vgg, decoder, (content + 1) / 2, (style + 1) / 2)
        found = network(content, network.encode_style(style))
    assert 0.2 < ((image > 0) & (image < 1)).float().mean() < 1.0
    torch.testing.assert_close(found, 2 * image.clamp(0, 1) - 1, rtol=0, atol=1e-5)


def test_a_vgg_that_ends_at_relu4_1_will_do(adain):
    vgg, decoder = adain
    whole = adopt_checkpoint("adain", decoder.state_dict(), vgg.state_dict())
    short = adopt_checkpoint("adain", decoder.state_dict(), vgg[:31].state_dict())
    assert all(torch.equal(whole.weights[key], short.weights[key]) for key in whole.weights)


def test_the_two_files_of_adain_the_other_way_round(adain):
    vgg, decoder = adain
    with pytest.raises(ValueError, match=r"family adain(.|\n)*of another shape .*decoder\.1|missing .*decoder\.1"):
        adopt_checkpoint("adain", vgg.state_dict(), decoder.state_dict())
