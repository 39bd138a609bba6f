"""What every critic promises, and each critic's own numbers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stylejobs.core.networks.critics import CRITICS, build_critic

OPTIONS = {
    "dcgan": {"width": 4, "size_px": 32},
    "multiscale": {"width": 4, "scales": 2, "layers": 2},
    "patch": {"width": 4},
    "patch_domain": {"width": 4, "layers": 3, "domains": 3},
}


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return build_critic(name, **{**OPTIONS[name], **options}).double()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def results(out) -> list[torch.Tensor]:
    """Whatever a critic returns, as a list."""
    return [out] if isinstance(out, torch.Tensor) else list(out)


def test_every_critic_is_tested_here():
    assert set(OPTIONS) == set(CRITICS)


@pytest.mark.parametrize(
    ("name", "options", "number"),
    [
        ("patch", {}, 2_764_737),
        ("patch", {"norm": "none"}, 2_764_737),
        ("multiscale", {}, 3 * 2_764_737),
        # The public critic of StarGAN for 128 px has 44 762 048; its domain head is 2x2, ours 1x1.
        ("patch_domain", {"domains": 5}, 44_762_048 - 3 * 2048 * 5),
        ("dcgan", {}, 11_162_561),
    ],
)
def test_number_of_weights_is_the_published_one(name, options, number):
    assert count(build_critic(name, **options)) == number


@pytest.mark.parametrize(
    ("name", "layers", "side"),
    [("patch", 1, 16), ("patch", 2, 34), ("patch", 3, 70), ("patch_domain", 2, 18), ("patch_domain", 3, 38)],
)
def test_receptive_field_by_layers_and_by_gradient(name, layers, side):
    critic, image = build(name, layers=layers, norm="none", width=2), draw(1, 3, 160, 152).requires_grad_()
    with torch.no_grad():
        for weight in critic.parameters():
            weight.abs_()  # nothing cancels: whatever is seen has a gradient
    logits = results(critic(image))[0]
    middle = logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2]
    (gradient,) = torch.autograd.grad(middle, image)
    seen = gradient.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(dim=1).sum().item(), seen.any(dim=0).sum().item()
    assert critic.receptive_field_px == rows == columns == side
    assert seen.sum() == side * side


def test_receptive_field_of_the_published_critics():
    assert build_critic("patch").receptive_field_px == 70
    assert build_critic("patch", width=1, layers=4).receptive_field_px == 142
    assert build_critic("patch", width=1, layers=5).receptive_field_px == 286
    # 3x3, then 4x4 with stride 2 six times backwards: 1 -> 3 -> 8 -> 18 -> 38 -> 78 -> 158 -> 318.
    assert build_critic("patch_domain", width=1, domains=2).receptive_field_px == 318


@pytest.mark.parametrize("norm", ["instance", "none"])
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(0, 21), st.integers(0, 21))
def test_patch_critics_take_any_size_from_their_smallest(norm, layers, more_rows, more_columns):
    for name in ("patch", "patch_domain"):
        critic = build(name, layers=layers, norm=norm, width=2)
        height, width = critic.min_px + more_rows, critic.min_px + more_columns
        logits = results(critic(draw(2, 3, height, width)))[0]
        trimmed = 2 if name == "patch" else 0
        assert logits.shape == (2, 1, (height >> layers) - trimmed, (width >> layers) - trimmed)
        assert logits.isfinite().all()


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("extra", [0, 1, 13])
def test_multiscale_sizes(scales, extra):
    critic = build("multiscale", scales=scales)
    height, width = critic.min_px, critic.min_px + extra
    shapes = [tuple(logits.shape) for logits in critic(draw(2, 3, height, width))]
    halved = [(math.ceil(height / 2**scale), math.ceil(width / 2**scale)) for scale in range(scales)]
    assert shapes == [(2, 1, rows // 4 - 2, columns // 4 - 2) for rows, columns in halved]


@pytest.mark.parametrize(("name", "min_px"), [("patch", 24), ("multiscale", 24), ("patch_domain", 8), ("dcgan", 32)])
def test_smaller_images_are_refused(name, min_px):
    critic = build(name)
    assert critic.min_px == min_px
    critic(draw(1, 3, min_px, min_px))
    for height, width in ((min_px - 1, min_px), (min_px, min_px - 1)):
        with pytest.raises(ValueError, match=f"at least {min_px}x{min_px} px.*got {height}x{width}"):
            critic(draw(1, 3, height, width))


def test_smallest_sizes_of_the_defaults():
    wanted = {"dcgan": 128, "multiscale": 96, "patch": 24, "patch_domain": 64}
    for name, min_px in wanted.items():
        critic = build_critic(name, width=1, **({"domains": 2} if name == "patch_domain" else {}))
        assert critic.min_px == min_px
        assert all(result.isfinite().all() for result in results(critic(draw(1, 3, min_px, min_px).float())))


@pytest.mark.parametrize("name", CRITICS)
def test_wrong_images_are_refused(name):
    critic = build(name)
    with pytest.raises(ValueError, match="float images"):
        critic(draw(1, 1, 32, 32))
    with pytest.raises(ValueError, match="float images"):
        critic(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float images"):
        critic(draw(3, 32, 32))


@pytest.mark.parametrize("norm", ["instance", "none"])
@pytest.mark.parametrize("name", CRITICS)
def test_a_row_does_not_depend_on_its_batch(name, norm):
    critic, images = build(name, norm=norm), draw(3, 3, 32, 32)
    together = results(critic(images))
    for row in range(3):
        for all_rows, alone in zip(together, results(critic(images[row : row + 1])), strict=True):
            torch.testing.assert_close(all_rows[row : row + 1], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["instance", "none"])
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_of_gradients_are_finite_and_reach_everything(name, norm):
    # A gradient penalty is the derivative of a derivative.
    critic, images = build(name, norm=norm), draw(2, 3, 32, 32).requires_grad_()
    total = torch.stack([result.sum() for result in results(critic(images))]).sum()
    (slope,) = torch.autograd.grad(total, images, create_graph=True)
    assert slope.abs().max() > 0
    (slope.square().mean() + total).backward()
    for tensor in (images, *critic.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("name", CRITICS)
def test_state_round_trips_and_holds_no_batch_norm(name):
    critic, images = build(name), draw(1, 3, 32, 32)
    torch.manual_seed(1)
    other = build_critic(name, **OPTIONS[name]).double()
    assert not all(torch.equal(*pair) for pair in zip(results(critic(images)), results(other(images)), strict=True))
    other.load_state_dict(critic.state_dict(), strict=True)
    for one, again in zip(results(critic(images)), results(other(images)), strict=True):
        assert torch.equal(one, again)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critic.modules())


@pytest.mark.parametrize("name", CRITICS)
def test_a_logit_is_no_probability(name):
    # No sigmoid at the end: with larger weights the logits leave (0, 1).
    critic, images = build(name, norm="none"), draw(4, 3, 32, 32)
    with torch.no_grad():
        for weight in critic.parameters():
            weight.mul_(20.0)
    logits = results(critic(images))[0]
    assert logits.abs().max() > 1.0


@pytest.mark.parametrize("name", CRITICS)
def test_bf16_autocast_is_near(name):
    critic, images = build(name).float(), draw(2, 3, 32, 32).float()
    exact = results(critic(images))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = results(critic(images))
    for one, near in zip(exact, rounded, strict=True):
        torch.testing.assert_close(near.float(), one, rtol=0, atol=0.05 * one.abs().max().item())


def unfolded(x: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """A zero-padded convolution as a product of matrices."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[-2:])
    patches = F.unfold(x, kernel, padding=padding, stride=stride)
    product = layer.weight.flatten(1) @ patches + layer.bias[:, None]
    return product.unflatten(2, (rows, columns))


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_patch_is_the_published_critic(norm):
    critic, x = build("patch", norm=norm), draw(2, 3, 40, 33)
    convs = [part for part in critic.body if isinstance(part, nn.Conv2d)]
    assert [conv.stride[0] for conv in convs] == [2, 2, 2, 1, 1]
    assert [conv.out_channels for conv in convs] == [4, 8, 16, 32, 1]
    expected = x
    for index, conv in enumerate(convs):
        expected = unfolded(expected, conv)
        if norm == "instance" and 0 < index < 4:
            variance, mean = torch.var_mean(expected, dim=(2, 3), keepdim=True, correction=0)
            expected = (expected - mean) / (variance + 1e-5).sqrt()
        if index < 4:
            expected = torch.maximum(expected, 0.2 * expected)
    torch.testing.assert_close(critic(x), expected, rtol=0, atol=1e-10)


def test_channels_stop_growing():
    critic = build_critic("patch", width=8, layers=5)
    channels = [part.out_channels for part in critic.body if isinstance(part, nn.Conv2d)]
    assert channels == [8, 16, 32, 64, 64, 64, 1]


def test_multiscale_judges_smaller_copies():
    critic, image = build("multiscale"), draw(1, 3, 27, 24)
    small = np.zeros((1, 3, 14, 12))
    for row in range(14):
        for column in range(12):
            top, left = max(2 * row - 1, 0), max(2 * column - 1, 0)
            cell = image.numpy()[:, :, top : 2 * row + 2, left : 2 * column + 2]
            small[:, :, row, column] = cell.mean(axis=(2, 3))
    fine, coarse = critic(image)
    torch.testing.assert_close(fine, critic.critics[0](image), rtol=0, atol=0)
    torch.testing.assert_close(coarse, critic.critics[1](torch.from_numpy(small)), rtol=0, atol=1e-10)


def test_the_domain_head_averages_over_places():
    critic, image = build("patch_domain"), draw(2, 3, 37, 32)
    features = critic.body(image)
    by_place = torch.einsum("bchw,kc->bkhw", features, critic.domain_head.weight)
    logits, domains = critic(image)
    assert logits.shape == (2, 1, 4, 4)
    torch.testing.assert_close(domains, by_place.mean(dim=(2, 3)), rtol=0, atol=1e-12)


def test_dcgan_judges_its_own_size_only():
    critic = build("dcgan")
    assert critic(draw(5, 3, 32, 32)).shape == (5, 1)
    with pytest.raises(ValueError, match="32x32 px for this critic; got 32x64"):
        critic(draw(1, 3, 32, 64))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("patch", {"width": 0}, "width"),
        ("patch", {"layers": 0}, "layers"),
        ("patch", {"norm": "batch"}, "instance, none"),
        ("patch", {"depth": 3}, "depth"),
        ("multiscale", {"scales": 0}, "scales"),
        ("multiscale", {"norm": "batch"}, "instance, none"),
        ("patch_domain", {"domains": 0}, "domains"),
        ("patch_domain", {"domains": 2, "layers": 0}, "layers"),
        ("patch_domain", {"domains": 2, "layers": 1, "norm": "batch"}, "instance, none"),
        ("patch_domain", {}, "domains"),
        ("dcgan", {"size_px": 96}, "power of two"),
        ("dcgan", {"size_px": 4}, "at least 8"),
        ("dcgan", {"width": 0}, "width"),
        ("dcgan", {"size_px": 8, "norm": "batch"}, "instance, none"),
        ("pach", {}, "did you mean 'patch'"),
    ],
)
def test_options_out_of_range(name, options, words):
    with pytest.raises(ValueError, match=words):
        build_critic(name, **options)
