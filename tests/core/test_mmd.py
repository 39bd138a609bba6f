"""MMD against a double loop in float64, its laws, and which way sanity rows move the style scores of photographs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stylejobs.core.bootstrap import bootstrap_interval
from stylejobs.core.mmd import RbfKernel, build_networks, colour_free, describe, mmd2, rebase, style_gain, style_score
from stylejobs.core.networks import build_network


def descriptors(num: int, seed: int, shift: float = 0.0, networks: int = 3, length: int = 5) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(networks, num, length, generator=rng, dtype=torch.float64) + shift


def double_loop(x_SND: np.ndarray, y_SMD: np.ndarray, content: np.ndarray, style: np.ndarray) -> float:
    """Equation 3 of Gretton 2012, pair by pair, network by network; the ruler from content and style."""
    of_networks = []
    for x, y, a, b in zip(x_SND, y_SMD, content, style, strict=True):
        both = np.concatenate([a, b])
        mean, std = both.mean(axis=0), both.std(axis=0)
        both, x, y = ((z - mean) / std for z in (both, x, y))
        gaps = sorted(np.linalg.norm(p - q) for i, p in enumerate(both) for q in both[i + 1 :])
        width = gaps[(len(gaps) - 1) // 2]

        def kernel(p, q, width=width):
            return np.exp(-((p - q) ** 2).sum() / (2 * width**2))

        total = 0.0
        for own in (x, y):
            pairs = [kernel(p, q) for i, p in enumerate(own) for j, q in enumerate(own) if i != j]
            total += sum(pairs) / len(pairs)
        of_networks.append(total - 2 * np.mean([kernel(p, q) for p in x for q in y]))
    return float(np.mean(of_networks))


def test_mmd_is_a_double_loop_in_float64():
    content, style, candidate = descriptors(7, 0), descriptors(9, 1, 0.7), descriptors(7, 2, 0.3)
    kernels = RbfKernel.fit(content, style).between(candidate, style)
    found = mmd2(kernels)
    assert found.dtype == torch.float64 and found.shape == (1,)
    expected = double_loop(*(z.numpy() for z in (candidate, style, content, style)))
    assert found.item() == pytest.approx(expected, abs=1e-12)
    x_RN, y_RM = torch.tensor([[0, 0, 3, 5, 5, 5, 6], [1, 2, 3, 4, 5, 6, 0]]), torch.arange(9).expand(2, 9)
    resampled = mmd2(kernels, x_RN, y_RM)
    weights = torch.tensor([2.0, 0, 0, 1, 0, 3, 1]).double()
    pairs = torch.outer(weights, weights).fill_diagonal_(0)
    within = (pairs * kernels.xx_NN).sum() / pairs.sum()
    between = (weights @ kernels.xy_NM).mean() / 7
    own_y = (kernels.yy_MM.sum() - 9) / 72
    assert resampled[0].item() == pytest.approx((within + own_y - 2 * between).item(), abs=1e-12)
    assert resampled[1].item() == pytest.approx(found.item(), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(num=st.integers(2, 20), other=st.integers(2, 20), shift=st.floats(-3, 3), seed=st.integers(0, 99))
def test_mmd_is_symmetric_and_blind_to_order(num, other, shift, seed):
    x, y = descriptors(num, seed), descriptors(other, seed + 100, shift)
    kernel = RbfKernel.fit(x, y)
    value = mmd2(kernel.between(x, y))
    torch.testing.assert_close(mmd2(kernel.between(y, x)), value, atol=1e-9, rtol=0)
    torch.testing.assert_close(mmd2(kernel.between(x.flip(1), y)), value, atol=1e-9, rtol=0)
    scaled = RbfKernel.fit(10 * x + 3, 10 * y + 3).between(10 * x + 3, 10 * y + 3)
    torch.testing.assert_close(mmd2(scaled), value, atol=1e-9, rtol=0)
    assert -1.0 <= value.item() <= 2.0


def test_halves_of_one_set_are_at_zero_on_average_and_others_are_not():
    halves, far = [], []
    for seed in range(60):
        both = descriptors(40, seed, networks=1)
        x, y = both[:, :20], both[:, 20:]
        halves.append(mmd2(RbfKernel.fit(x, y).between(x, y)).item())
        far.append(mmd2(RbfKernel.fit(x, y + 1).between(x, y + 1)).item())
    assert abs(np.mean(halves)) < 3 * np.std(halves) / np.sqrt(60), "unbiased"
    assert min(halves) < 0 < min(far)
    assert min(far) > max(halves)


def test_resamples_are_not_biased_by_repeated_images():
    x, y = descriptors(60, 0), descriptors(60, 1)
    kernels = RbfKernel.fit(x, y).between(x, y)
    rng = torch.Generator().manual_seed(0)
    rows = [torch.randint(60, (2000, 60), generator=rng) for _ in range(2)]
    resampled = mmd2(kernels, *rows)
    naive = (kernels.xx_NN[rows[0][:, :, None], rows[0][:, None]].sum(dim=(1, 2)) - 60) / (60 * 59)
    assert abs((resampled.mean() - mmd2(kernels)).item()) < 0.1 * resampled.std().item()
    assert naive.mean() - (kernels.xx_NN.sum() - 60) / (60 * 59) > 0.005, "what counting repeats as pairs would add"
    alone = mmd2(kernels, torch.zeros(1, 60, dtype=torch.long), torch.arange(60)[None])
    assert alone.isfinite().all()


def test_rebase_and_scores_have_their_ends_and_are_paired():
    content, style, held = descriptors(40, 0), descriptors(50, 1, 0.8), descriptors(30, 2, 0.8)
    kernel = RbfKernel.fit(content, style)
    identity, target = kernel.between(content, style), kernel.between(held, style)
    assert style_score(identity, identity, target) == (0.0, 0.0, 0.0)
    done = kernel.between(content + 0.8, style)
    full = style_score(done, identity, target)
    assert full.low < full.value < full.high and 0.8 < full.value < 1.2
    expected = rebase(mmd2(done), mmd2(identity), mmd2(target)).item()
    assert full.value == pytest.approx(expected)
    half = kernel.between(content + 0.4, style)
    gain, less = style_gain(done, half, identity, target), style_score(half, identity, target)
    assert gain.value == pytest.approx(full.value - less.value) and gain.low > 0
    assert gain.high - gain.low < full.high - full.low
    assert style_score(half, identity, target) == less


def test_a_gain_is_wider_than_the_percentile_bootstrap_by_what_was_measured():
    content, style, held = descriptors(40, 0), descriptors(50, 1, 0.8), descriptors(30, 2, 0.8)
    kernel = RbfKernel.fit(content, style)
    identity, target, half = (kernel.between(one, style) for one in (content, held, content + 0.4))
    found = style_gain(half, identity, identity, target, seed=3, confidence=0.9)
    gap = mmd2(identity) - mmd2(target)
    plain = bootstrap_interval(lambda x, y: (mmd2(identity, x, y) - mmd2(half, x, y)) / gap, (40, 50), 0.9, seed=3)
    assert found.value == pytest.approx(plain.value)
    assert found.high - found.low == pytest.approx(1.06 * (plain.high - plain.low))
    assert found.high + found.low == pytest.approx(plain.high + plain.low)

    rng = torch.Generator().manual_seed(0)
    rows = [torch.randint(num, (20_000, num), generator=rng) for num in (40, 50)]
    closed = (mmd2(identity, *rows) - mmd2(half, *rows)) / gap
    low, high = closed.quantile(torch.tensor([0.05, 0.95]).double()).tolist()
    assert found.high - found.low == pytest.approx(1.06 * (high - low), rel=0.06)
    assert found.high + found.low == pytest.approx(high + low, rel=0.06)


def test_wrong_panels_are_refused():
    content, style = descriptors(6, 0), descriptors(6, 1, 1.0)
    kernel = RbfKernel.fit(content, style)
    identity, few = kernel.between(content, style), kernel.between(content[:, :5], style)
    with pytest.raises(ValueError, match="same contents"):
        style_score(few, identity, few)
    with pytest.raises(ValueError, match="no farther"):
        style_score(identity, identity, identity)
    with pytest.raises(ValueError, match="at least 2"):
        mmd2(kernel.between(content[:, :1], style))
    with pytest.raises(ValueError, match="fitted on"):
        kernel.between(content[:1], style[:1])
    with pytest.raises(ValueError, match="equal"):
        RbfKernel.fit(torch.ones(1, 4, 3).double(), torch.ones(1, 4, 3).double())


def test_colour_free_forgets_colour_brightness_and_contrast():
    image = torch.rand(2, 3, 33, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = colour_free(image)
    assert torch.equal(grey[:, 0], grey[:, 1]) and grey.shape == image.shape
    torch.testing.assert_close(grey.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(grey.std(dim=(1, 2, 3), correction=0), torch.full((2,), 0.5))
    torch.testing.assert_close(colour_free(0.3 * image - 0.2), grey, atol=1e-5, rtol=0)
    luma = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    torch.testing.assert_close(colour_free(luma.expand(-1, 3, -1, -1)), grey, atol=1e-5, rtol=0)
    assert torch.equal(colour_free(torch.full((1, 3, 8, 8), 0.25)), torch.zeros(1, 3, 8, 8))


def test_descriptors_are_moments_of_the_style_layers_row_by_row():
    networks = build_networks(2)
    image = torch.rand(35, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = describe(networks, image)
    assert found.shape == (2, 35, 2 * (128 + 256 + 384 + 512)) and found.dtype == torch.float64
    features = networks[1](image[34:], networks[1].style_layers)["fire2"][0].double().numpy()
    np.testing.assert_allclose(found[1, 34, :128], features.std(axis=(1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[1, 34, 128:256], features.mean(axis=(1, 2)), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found[:, :3], describe(networks, image[:3]), rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def panel(photos):
    """Contents, and as style set other photographs by a hand that flattens small things and paints in amber."""

    def crops(names: tuple[str, ...], num: int) -> torch.Tensor:
        rng = np.random.default_rng(0)
        found = []
        for number in range(num):
            photo = photos[names[number % len(names)]]
            y, x = (int(rng.integers(side - 128)) for side in photo.shape[:2])
            found.append(photo[y : y + 128 : 2, x : x + 128 : 2])
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2) / 127.5 - 1

    def paint(image: torch.Tensor) -> torch.Tensor:
        flat = torch.from_numpy(ndimage.median_filter(image.numpy(), (1, 1, 7, 7)))
        return flat * torch.tensor([0.8, 0.6, 0.3])[:, None, None] + torch.tensor([0.2, 0.0, -0.4])[:, None, None]

    content, style = crops(("chelsea", "coffee", "flower"), 36), paint(crops(("astronaut", "rocket", "flower"), 60))
    rng = torch.Generator().manual_seed(0)
    moments = build_network("moments")
    reinhard = moments(content, moments.encode_style(style[torch.randint(60, (36,), generator=rng)]))
    noise = 0.25 * torch.randn(content.shape, generator=rng)
    checker = 0.15 * (torch.arange(64)[:, None] // 2 % 2 * 2 - 1) * (torch.arange(64) // 2 % 2 * 2 - 1)
    rows = {"reinhard": reinhard, "painted": paint(content), "shuffled": reinhard.roll(5, dims=0)}
    rows |= {"noise": content + noise, "reinhard_noise": reinhard + noise, "reinhard_checker": reinhard + checker}
    return content, style, rows


@pytest.fixture(scope="module")
def scores(panel):
    content, style, rows = panel
    networks, found = build_networks(), {}
    for kind, prepare in (("raw", lambda image: image), ("colour_free", colour_free)):
        content_SND, style_SMD = (describe(networks, prepare(image)) for image in (content, style))
        kernel = RbfKernel.fit(content_SND, style_SMD[:, 20:])
        identity, target = (kernel.between(x, style_SMD[:, 20:]) for x in (content_SND, style_SMD[:, :20]))
        for name, image in rows.items():
            kernels = kernel.between(describe(networks, prepare(image)), style_SMD[:, 20:])
            found[kind, name] = style_score(kernels, identity, target)
    return found


def test_a_colour_transfer_wins_the_raw_score_and_not_the_colour_free_one(scores):
    assert scores["raw", "reinhard"].value > 0.6
    assert abs(scores["colour_free", "reinhard"].value) < 0.2
    assert scores["colour_free", "painted"].low > scores["colour_free", "reinhard"].value
    assert scores["colour_free", "painted"].value > 0.6 and scores["raw", "painted"].value > 0.6


def test_artefacts_fall_below_doing_nothing_where_colour_does_not_count(scores):
    for name in ("noise", "reinhard_noise", "reinhard_checker"):
        assert scores["colour_free", name].high < 0.0, name
    assert scores["raw", "reinhard_checker"].value > 0.2, "raw distances reward a colour transfer with artefacts"


def test_style_does_not_see_content(scores):
    for kind in ("raw", "colour_free"):
        assert scores[kind, "shuffled"].value == pytest.approx(scores[kind, "reinhard"].value, abs=1e-6)
