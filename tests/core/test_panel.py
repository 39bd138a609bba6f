"""A panel against numpy from the kernel's definition, and which way copies, paintings and lost contents move it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from stylejobs.core.metrics import edge_cosine
from stylejobs.core.mmd import build_networks
from stylejobs.core.panel import Panel, balance
from tests.core.squares import CONTENT, STYLE, crops, paint

SIZE_PX, NUM = 48, 18


@pytest.fixture(scope="module")
def content(photos) -> Tensor:
    return crops(photos, CONTENT, NUM, SIZE_PX)


@pytest.fixture(scope="module")
def style(photos) -> Tensor:
    return paint(crops(photos, STYLE, 2 * NUM, SIZE_PX))


@pytest.fixture(scope="module")
def panel(content, style) -> Panel:
    return Panel(content, style)


def reference(content: Tensor, style: Tensor, stylized: Tensor, coloured: bool) -> float:
    """1 - rebased unbiased MMD, from the definitions, in numpy."""
    mmds = np.zeros(3)
    for network in build_networks():
        described = []
        for images in (content, style[0::2], style[1::2], stylized):
            seen = images.double().numpy()
            if not coloured:
                grey = np.tensordot(seen, [0.299, 0.587, 0.114], (1, 0))
                grey = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True) / 2
                seen = np.repeat(grey[:, None], 3, axis=1)
            maps = network(torch.from_numpy(seen).float(), network.style_layers).values()
            maps = [features.double().numpy() for features in maps]
            moments = [reduce(features, axis=(2, 3)) for features in maps for reduce in (np.std, np.mean)]
            described.append(np.concatenate(moments, axis=1))
        ruler = np.concatenate(described[:2])
        described = [(rows - ruler.mean(0)) / np.where(ruler.std(0) > 1e-9, ruler.std(0), np.inf) for rows in described]
        gaps = np.linalg.norm((ruler := np.concatenate(described[:2]))[:, None] - ruler[None], axis=2)
        gaps = np.sort(gaps[np.triu_indices(len(ruler), 1)])
        width = gaps[(len(gaps) - 1) // 2]

        def kernel(x, y, width=width):
            return np.exp(-(np.linalg.norm(x[:, None] - y[None], axis=2) ** 2) / (2 * width**2))

        y = described[1]
        for number, x in enumerate((described[0], described[2], described[3])):
            within = [(kernel(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
            mmds[number] += sum(within) - 2 * kernel(x, y).mean()
    identity, target, candidate = mmds
    return 1 - (candidate - target) / (identity - target)


def test_a_panel_is_its_definition_in_numpy(content, style):
    content, style, stylized = content[:9, :, :36, :36], style[:17, :, :36, :36], paint(content[:9, :, :36, :36])
    found = Panel(content, style).measure(stylized)
    assert found["style"] == pytest.approx(reference(content, style, stylized, coloured=False), rel=1e-4, abs=1e-4)
    assert found["style_raw"] == pytest.approx(reference(content, style, stylized, coloured=True), abs=1e-4)
    assert found["content"] == pytest.approx(edge_cosine(stylized, content).mean().item(), abs=1e-12)
    harmonic = 2 / (1 / min(1, found["style"]) + 1 / found["content"])
    assert found["balanced"] == pytest.approx(harmonic) and 0 < harmonic < 1


def test_a_copy_has_all_content_no_style_and_no_balance(panel, content):
    found = panel.measure(content.clone())
    assert found == pytest.approx({"content": 1.0, "style": 0.0, "style_raw": 0.0, "balanced": 0.0}, abs=1e-12)


def test_other_real_style_images_are_one_and_lose_their_content(panel, style):
    found = panel.measure(style[1::2])
    assert (found["style"], found["style_raw"]) == pytest.approx((1.0, 1.0), abs=1e-9)
    assert abs(found["content"]) < 0.15 and found["balanced"] < 0.25


def test_painted_contents_are_near_the_style_set_and_win(panel, content):
    found, copy, lost = (panel.measure(images) for images in (paint(content), content, paint(content).roll(5, dims=0)))
    assert found["style"] > 0.6 and found["style_raw"] > 0.6 and found["content"] > 0.6
    assert lost["style"] == pytest.approx(found["style"], abs=1e-6)
    assert abs(lost["content"]) < 0.1 and lost["balanced"] < 0.2
    assert found["balanced"] > 0.6 > max(copy["balanced"], lost["balanced"])


def test_colours_alone_win_the_raw_style_only(panel, content):
    amber = content * torch.tensor([0.8, 0.6, 0.3])[:, None, None] + torch.tensor([0.2, 0.0, -0.4])[:, None, None]
    found = panel.measure(amber)
    assert found["style_raw"] > 0.5 and abs(found["style"]) < 0.2 and found["balanced"] < 0.3


def test_blur_costs_content_and_noise_costs_style(panel, content):
    blurred = [
        torch.from_numpy(ndimage.gaussian_filter(content.numpy(), (0, 0, sigma, sigma))) for sigma in (0.5, 1, 2, 4)
    ]
    scores = [panel.measure(images)["content"] for images in blurred]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.9 > 0.6 > scores[-1]
    noisy = panel.measure(content + 0.3 * torch.randn(content.shape, generator=torch.Generator().manual_seed(0)))
    assert noisy["style"] < 0 and noisy["balanced"] == noisy["style"]


def test_what_is_not_a_number_has_no_measure(panel, content):
    broken = content.clone()
    broken[3, 1, 5, 5] = torch.nan
    assert all(math.isnan(value) for value in panel.measure(broken).values())


def test_numbers_are_the_same_again_and_nothing_is_drawn(content, style):
    content, style, before = content[:9, :, :36, :36], style[:17, :, :36, :36], torch.get_rng_state()
    first, second = (Panel(content, style).measure(paint(content)) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num", [1, 2])
def test_crops_of_few_style_images_make_the_set(photos, content, num):
    whole = [photos[name][40:280:2, 60:320:2] for name in ("astronaut", "rocket")[:num]]
    style = paint(torch.from_numpy(np.stack(whole)).permute(0, 3, 1, 2) / 127.5 - 1)
    panel = Panel(content, style)
    assert panel.style_BCHW.shape == (13 if num == 1 else 25, 3, SIZE_PX, SIZE_PX)
    corner = style[:1, :, -SIZE_PX:, -SIZE_PX:]
    assert any(torch.equal(corner[0], crop) for crop in panel.style_BCHW), "the grid reaches the last pixel"
    rng = np.random.default_rng(0)
    others = [
        style[n % num, :, y : y + SIZE_PX, x : x + SIZE_PX] for n, (y, x) in enumerate(rng.integers(0, 72, (NUM, 2)))
    ]
    found = panel.measure(torch.stack(others))
    assert panel.measure(content)["style"] == pytest.approx(0.0, abs=1e-12)
    assert found["style"] > 0.6 and found["style_raw"] > 0.6


@pytest.mark.parametrize(
    ("contents", "styles", "words"),
    [
        ((7, 3, 32, 32), (8, 3, 32, 32), "at least 8 contents and a style image; got 7, 8"),
        ((8, 3, 32, 32), (0, 3, 32, 32), "at least 8 contents and a style image; got 8, 0"),
        ((8, 3, 32, 32), (8, 3, 32, 40), r"of the contents' size, \[32, 32\] px; got \[32, 40\]"),
        ((8, 3, 32, 32), (7, 3, 48, 47), r"7 style images are cut into crops.*got \[48, 47\].*8 and more"),
        ((8, 1, 32, 32), (8, 3, 32, 32), r"contents as floats \[N, 3, H, W\]"),
        ((8, 3, 31, 32), (8, 3, 31, 32), "at least 32x32 px"),
    ],
)
def test_images_that_make_no_panel_are_refused(contents, styles, words):
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=words):
        Panel(torch.rand(contents, generator=rng), torch.rand(styles, generator=rng))


def test_sets_without_a_gap_and_other_candidates_are_refused(panel, content, style):
    with pytest.raises(ValueError, match=r"no farther from the style set.*give more images"):
        Panel(style[0:16:2], style[:16])
    with pytest.raises(ValueError, match="images are equal"):
        Panel(content[:1].expand(8, -1, -1, -1), content[:1].expand(8, -1, -1, -1))
    with pytest.raises(ValueError, match="wanted the contents stylized"):
        panel.measure(content[:-1])


@given(a=st.integers(-2000, 200), b=st.integers(-2000, 200), more=st.integers(0, 100))
def test_balance_is_ruled_by_the_smaller_one_and_rises_with_both(a, b, more):
    a, b, more = a / 100, b / 100, more / 100
    value = balance(a, b)
    assert value == balance(b, a)
    assert (value <= 0) == (min(a, b) <= 0)
    assert min(a, b, 1) <= value + 1e-12 and value <= min(1, max(min(a, b), 2 * min(a, b))) + 1e-12
    assert balance(a + more, b) >= value - 1e-12
