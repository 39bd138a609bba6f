"""The ruler of a panel: what it says of sets that are known to be good or bad, and of pairs of them."""

import pytest
import torch
from torch import Tensor

from stylejobs.core.measures import MEASURES
from stylejobs.core.metrics import blur, copies, frechet_distance, noise, shuffled
from stylejobs.core.mmd import build_networks
from stylejobs.core.panel import Panel
from stylejobs.core.ruler import CLASSES, INCEPTION, Described, Ruler, describe_images, join, relate, select
from tests.core.squares import CONTENT, STYLE, crops, paint

SIZE_PX, NUM, NUM_STYLES = 48, 30, 40


@pytest.fixture(scope="module")
def networks() -> tuple:
    return build_networks()


@pytest.fixture(scope="module")
def content_BCHW(photos) -> Tensor:
    return crops(photos, CONTENT, NUM, SIZE_PX)


@pytest.fixture(scope="module")
def style_BCHW(photos) -> Tensor:
    return paint(crops(photos, STYLE, NUM_STYLES, SIZE_PX, 1))


@pytest.fixture(scope="module")
def content(networks, content_BCHW) -> Described:
    return describe_images(networks, content_BCHW, content_BCHW)


@pytest.fixture(scope="module")
def style(networks, style_BCHW) -> Described:
    return describe_images(networks, style_BCHW)


@pytest.fixture(scope="module")
def ruler(content, style) -> Ruler:
    return Ruler(content, style)


@pytest.fixture(scope="module")
def painted(networks, content_BCHW) -> Described:
    return describe_images(networks, paint(content_BCHW), content_BCHW)


def test_every_measure_has_a_name_and_holds_its_value(ruler, painted):
    found = ruler.measure(painted)
    assert found.keys() <= MEASURES.keys()
    assert found.keys() >= {"edge_cosine", "identification", "style", "style_raw", "sliced_wasserstein_0", "nyquist"}
    for name, (value, low, high) in found.items():
        assert low <= value <= high, name


def test_contents_left_alone_are_the_zero_of_style_and_the_one_of_content(ruler, content):
    found = ruler.measure(content)
    assert found["edge_cosine"].value == pytest.approx(1.0, abs=1e-6)
    assert found["identification"].value == found["identity"].value == 1.0
    assert found["style"].value == pytest.approx(0.0, abs=1e-9)
    assert found["style_raw"].value == pytest.approx(0.0, abs=1e-9)


def test_style_is_what_the_panel_of_a_training_says(ruler, painted, content_BCHW, style_BCHW):
    """That panel is held against numpy from the kernel's definition."""
    told = Panel(content_BCHW, style_BCHW).measure(paint(content_BCHW))
    found = ruler.measure(painted)
    assert found["style"].value == pytest.approx(told["style"], abs=2e-4)
    assert found["style_raw"].value == pytest.approx(told["style_raw"], abs=2e-4)
    assert found["edge_cosine"].value == pytest.approx(told["content"], abs=1e-9)


def test_descriptions_in_parts_are_those_of_the_whole(networks, content_BCHW, painted):
    parts = [
        describe_images(networks, made_BCHW, source_BCHW)
        for made_BCHW, source_BCHW in zip(paint(content_BCHW).split(7), content_BCHW.split(7), strict=True)
    ]
    whole = join(parts)
    assert whole.keys() == painted.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, painted[name], atol=2e-3, rtol=2e-3, msg=name)


def test_lost_contents_keep_their_style_and_lose_the_rest(ruler, painted, content):
    lost = relate(select(painted, shuffled(NUM)), content)
    kept, found = ruler.measure(painted), ruler.measure(lost)
    assert found["style"].value == pytest.approx(kept["style"].value, abs=1e-9)
    assert abs(found["edge_cosine"].value) < 0.1 < 0.5 < kept["edge_cosine"].value
    assert found["identification"].value <= 3 / NUM
    assert "ms_ssim" not in found and "identity" not in found


def test_copies_of_style_images_are_near_the_style_and_no_results(ruler, style, content):
    others = select(style, slice(1, None, 2))
    found = ruler.measure(relate(select(others, copies(NUM, NUM_STYLES // 2)), content))
    assert found["style"].value > 0.7 and found["coverage"].value > 0.5
    assert found["identification"].value <= 3 / NUM


def test_a_collapsed_model_covers_nothing(ruler, style, painted, content):
    one = relate(select(style, torch.zeros(NUM, dtype=torch.long)), content)
    assert ruler.measure(one)["pairwise"].value == pytest.approx(0.0, abs=1e-4)
    assert ruler.measure(one)["coverage"].value < ruler.measure(painted)["coverage"].value


def test_faults_are_farther_from_the_style_in_patches_than_paint(networks, ruler, content_BCHW, painted):
    for spoil, level in ((lambda image: noise(image, seed=3), 0), (blur, 0)):
        made = describe_images(networks, spoil(content_BCHW), content_BCHW)
        ratio = ruler.ratios(made, painted)[f"sliced_wasserstein_{level}"]
        assert ratio.value > 1.2
        gain = ruler.gains(painted, made)[f"sliced_wasserstein_{level}"]
        assert gain.low > 0.0


def test_a_set_is_no_better_than_itself(ruler, painted):
    for name, gain in ruler.gains(painted, painted).items():
        assert gain == pytest.approx((0.0, 0.0, 0.0), abs=1e-12), name
    for name, ratio in ruler.ratios(painted, painted).items():
        assert ratio == pytest.approx((1.0, 1.0, 1.0)), name


def test_gains_are_differences_of_measures_and_turn_round_with_the_models(ruler, painted, content):
    there, back = ruler.gains(painted, content), ruler.gains(content, painted)
    ours, theirs = ruler.measure(painted), ruler.measure(content)
    assert there["style_raw"].value > 0.0 > there["edge_cosine"].high
    for name, gain in there.items():
        assert gain.value == pytest.approx(-back[name].value, abs=1e-9), name
        sign = -1.0 if MEASURES[name].better == "lower" else 1.0
        difference = sign * (ours[name].value - theirs[name].value)
        assert gain.value == pytest.approx(difference, abs=1e-6), name


def test_a_wider_confidence_has_wider_intervals(content, style, painted):
    narrow, wide = (Ruler(content, style, confidence).measure(painted) for confidence in (0.8, 0.99))
    for name in ("edge_cosine", "style", "sliced_wasserstein_1", "coverage", "pairwise"):
        assert wide[name].high - wide[name].low > narrow[name].high - narrow[name].low, name


def test_answers_of_a_classifier_that_stay(ruler, content, style, painted):
    answers_N = torch.arange(NUM) % 3
    changed_N = answers_N.clone()
    changed_N[:10] = (changed_N[:10] + 1) % 3
    labelled = Ruler({**content, CLASSES: answers_N}, style)
    assert labelled.measure({**painted, CLASSES: changed_N})["label_agreement"].value == pytest.approx(20 / 30)
    assert "label_agreement" not in ruler.measure(painted)


def test_contents_that_are_the_style_have_no_gap(style, networks, style_BCHW):
    there = describe_images(networks, style_BCHW[::2], style_BCHW[::2])
    with pytest.raises(ValueError, match="nothing to measure"):
        Ruler(there, style)


def test_gains_and_ratios_are_those_that_gates_may_ask_for(ruler, content, style, painted):
    measured = ruler.measure(painted).keys()
    assert ruler.gains(painted, content).keys() == {name for name in measured if MEASURES[name].gain}
    assert ruler.ratios(painted, content).keys() == {name for name in measured if MEASURES[name].ratio}


def test_fid_and_artfid_are_measured_where_their_numbers_are(ruler, content, style, painted):
    rng = torch.Generator().manual_seed(0)

    def with_features(described: Described, num: int, shift: float) -> Described:
        return {**described, INCEPTION: torch.randn(num, 8, generator=rng) + shift, "lpips": torch.rand(num)}

    assert not {"fid", "artfid", "lpips"} & ruler.measure(painted).keys()
    near, far = with_features(painted, NUM, 0.5), with_features(painted, NUM, 3.0)
    richer = Ruler(with_features(content, NUM, 3.0), with_features(style, NUM_STYLES, 0.0))
    found = richer.measure(near)
    # The whole style set, not its even half: there is no other half that says what 1 is.
    expected = frechet_distance(near[INCEPTION], richer._features_MD).item()
    assert len(richer._features_MD) == NUM_STYLES and found["fid"].value == pytest.approx(expected)
    assert found["artfid"].value == pytest.approx((1 + near["lpips"].mean().item()) * (1 + expected))
    assert richer.gains(near, far)["fid"].low > 0 > richer.gains(far, near)["fid"].high
    # Of pictures that were made of none of these contents there is no distance to them.
    assert "artfid" not in richer.measure(relate(near, content)) and "fid" in richer.measure(relate(near, content))
