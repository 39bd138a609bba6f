"""Pixels, cycles and features of contents."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.losses import cycle_loss, feature_loss, l1_loss, l2_loss, perceptual_loss

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def draw(shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


@pytest.fixture(scope="module")
def backbone():
    return build_random_backbone(0)


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_pixels_against_numpy(shape, seed):
    a, b = draw(shape, seed), draw(shape, seed + 1)
    distance = np.linalg.norm((a - b).numpy().ravel(), ord=1) / a.numel()
    assert l1_loss(a, b).item() == pytest.approx(distance)
    assert cycle_loss(a, b).item() == pytest.approx(distance)
    assert l2_loss(a, b).item() == pytest.approx(np.linalg.norm((a - b).numpy().ravel()) ** 2 / a.numel())


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_a_cycle_back_to_the_start_costs_nothing(shape, seed):
    image, there = draw(shape, seed), draw(shape, seed + 1)
    assert cycle_loss(image, image).item() == 0.0
    assert cycle_loss(there, image) == cycle_loss(image, there)
    assert cycle_loss(there, image) <= cycle_loss(there, -image) + cycle_loss(-image, image) + 1e-12
    assert cycle_loss(torch.ones(shape), -torch.ones(shape)).item() == 2.0  # the worst in [-1, 1]


def test_gradients_halves_and_precision():
    a, b = draw((4, 2, 3, 3)).requires_grad_(), draw((4, 2, 3, 3), 1).requires_grad_()
    for loss in (l1_loss, l2_loss, cycle_loss):
        assert torch.autograd.gradcheck(loss, (a, b))
        torch.testing.assert_close((loss(a[:2], b[:2]) + loss(a[2:], b[2:])) / 2, loss(a, b))
        with torch.autocast("cpu", torch.bfloat16):
            assert loss(a.bfloat16(), b.bfloat16()).dtype == torch.float32
        with pytest.raises(ValueError, match="one shape"):
            loss(a, b[:1])


def test_perceptual_loss_is_the_mean_over_layers(backbone):
    stylized, content = draw((2, 3, 32, 40), 0, torch.float32), draw((2, 3, 32, 40), 1, torch.float32)
    layers = ("fire2", "fire9")
    a, b = backbone(stylized, layers), backbone(content, layers)
    expected = np.mean([np.mean((a[layer].double() - b[layer].double()).numpy() ** 2) for layer in layers])
    assert perceptual_loss(backbone, stylized, content, layers).item() == pytest.approx(expected, rel=1e-5)
    one = perceptual_loss(backbone, stylized, content, ("fire2",))
    torch.testing.assert_close(one, feature_loss(a["fire2"], b["fire2"]))
    assert perceptual_loss(backbone, content, content, layers).item() == 0.0


def test_perceptual_loss_pulls_the_result_alone(backbone):
    stylized = draw((1, 3, 32, 32), 0, torch.float32).requires_grad_()
    content = draw((1, 3, 32, 32), 1, torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = perceptual_loss(backbone, stylized, content, ("fire4",))
    loss.backward()
    assert loss.dtype == torch.float32
    assert stylized.grad.abs().max() > 0
    assert content.grad is None


def test_perceptual_gradients_against_finite_differences(backbone):
    # A few pixels alone: 3 x 32 x 32 differences would take long.
    content, base = draw((1, 3, 32, 32), 1), draw((1, 3, 32, 32), 2)
    wide = build_random_backbone(0).double()

    def loss(pixels_3):
        stylized = base.clone()
        stylized[0, :, 16, 16] = pixels_3
        return perceptual_loss(wide, stylized, content, ("fire2", "fire4"))

    assert torch.autograd.gradcheck(loss, base[0, :, 16, 16].clone().requires_grad_())


def test_wrong_perceptual_inputs_are_refused(backbone):
    image = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="at least one layer out of conv1"):
        perceptual_loss(backbone, image, image, ())
    with pytest.raises(ValueError, match="one shape"):
        perceptual_loss(backbone, image, torch.zeros(1, 3, 32, 33), ("fire2",))
    with pytest.raises(ValueError, match="did you mean 'fire2'"):
        perceptual_loss(backbone, image, image, ("fires2",))
