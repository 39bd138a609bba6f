"""Coverage and pairwise distance against loops, their laws, resamples; and what collapse and copies do to them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.metrics import (
    collapsed,
    copies,
    coverage,
    pairwise_distance,
    pairwise_gain,
    pairwise_interval,
    panel_descriptors,
)
from stylejobs.core.mmd import RbfKernel, build_networks, describe
from tests.core.features import draw
from tests.core.squares import CONTENT, STYLE, crops, paint


def covered_reference(candidate: np.ndarray, reference: np.ndarray, k: int) -> list[bool]:
    found = []
    for place, point in enumerate(reference):
        own = sorted(np.linalg.norm(point - other) for n, other in enumerate(reference) if n != place)
        found.append(min(np.linalg.norm(point - other) for other in candidate) <= own[k - 1])
    return found


@settings(max_examples=25, deadline=None)
@given(num=st.integers(1, 30), more=st.integers(1, 20), k=st.integers(1, 7), seed=st.integers(0, 999))
def test_coverage_is_a_loop_over_neighbourhoods(num, more, k, seed):
    candidate, reference = draw((num, 4), seed) + 0.5, draw((k + more, 4), seed + 1)
    found = coverage(candidate, reference, k)
    assert found.dtype == torch.bool
    assert found.tolist() == covered_reference(candidate.numpy(), reference.numpy(), k)
    assert (coverage(torch.cat([candidate, draw((3, 4), 7)]), reference, k) | ~found).all(), "more results cover more"


def test_coverage_at_its_ends():
    reference = draw((40, 6))
    assert coverage(reference, reference).all()
    assert not coverage(reference + 100, reference).any()
    assert coverage(torch.cat([reference[:1].expand(39, -1), reference[1:2] + 100]), reference).double().mean() < 0.5
    for candidate, other in ((draw((4, 6)), draw((5, 6))), (draw((4, 5)), reference)):
        with pytest.raises(ValueError, match="more than 5 references"):
            coverage(candidate, other)


def test_pairwise_distance_is_a_mean_over_pairs():
    points = draw((9, 5))
    pairs = [np.linalg.norm(a - b) for n, a in enumerate(points.numpy()) for b in points.numpy()[:n]]
    assert pairwise_distance(points).item() == pytest.approx(np.mean(pairs))
    rows = torch.tensor([[0, 0, 3, 5, 5, 5, 6, 7, 8], list(range(9)), [4] * 9])
    drawn = [
        np.linalg.norm(points[a] - points[b])
        for n, a in enumerate(rows[0])
        for m, b in enumerate(rows[0])
        if a != b and n != m
    ]
    assert pairwise_distance(points, rows).tolist() == pytest.approx([np.mean(drawn), np.mean(pairs), 0.0], abs=1e-6)
    with pytest.raises(ValueError, match="about pairs"):
        pairwise_distance(points[:1])


def test_resamples_of_pairs_are_not_biased():
    points = draw((60, 5))
    rows = torch.randint(60, (2000, 60), generator=torch.Generator().manual_seed(0))
    resampled = pairwise_distance(points, rows)
    assert abs((resampled.mean() - pairwise_distance(points)).item()) < 0.1 * resampled.std().item()


@pytest.fixture(scope="module")
def described(photos):
    """The panel's style set, and rows of sanity, as descriptors [N, D]."""
    content, style = crops(photos, CONTENT, 40, 48), paint(crops(photos, STYLE, 80, 48))
    networks = build_networks()
    content_SND, style_SMD = describe(networks, content), describe(networks, style[0::2])
    kernel = RbfKernel.fit(content_SND, style_SMD)
    rows = {"identity": content_SND, "style": style_SMD, "painted": describe(networks, paint(content))}
    rows["real"] = describe(networks, style[1::2])
    rows["collapse"] = describe(networks, collapsed(style[3], 40))
    rows["repeated"] = rows["painted"][:, :1].expand(-1, 40, -1)
    rows["copies"] = style_SMD[:, copies(40, 40)]
    return {name: panel_descriptors(kernel, described_SND) for name, described_SND in rows.items()}


def test_descriptors_are_the_kernels_side_by_side():
    content, style = draw((3, 7, 5)), draw((3, 9, 5), 1)
    found = panel_descriptors(RbfKernel.fit(content, style), content)
    both = np.concatenate([content.numpy(), style.numpy()], axis=1)
    expected = (content.numpy() - both.mean(1, keepdims=True)) / both.std(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), np.concatenate(list(expected), axis=1), rtol=1e-9)


def test_collapse_costs_coverage_and_distance(described):
    style = described["style"]
    covered = {name: coverage(rows, style).double().mean().item() for name, rows in described.items()}
    assert covered["copies"] == 1.0 and covered["real"] > 0.7
    assert covered["painted"] > covered["identity"]
    assert max(covered["collapse"], covered["repeated"]) < 0.3
    ratios = {name: pairwise_interval(rows, style) for name, rows in described.items()}
    assert ratios["repeated"].high < 1e-4 and ratios["collapse"].high < 0.2
    assert ratios["real"].low < 1.0 < ratios["real"].high
    assert ratios["painted"].low > 0.5


def test_intervals_of_distance_are_paired_for_two_models(described):
    style, made = described["style"], described["painted"]
    found = pairwise_interval(made, style)
    assert found.value == pytest.approx((torch.pdist(made).mean() / torch.pdist(style).mean()).item())
    assert pairwise_gain(made, made, style) == (0.0, 0.0, 0.0)
    gain = pairwise_gain(made, described["collapse"], style)
    assert gain.low > 0 and gain.value == pytest.approx(
        found.value - pairwise_interval(described["collapse"], style).value
    )
    with pytest.raises(ValueError, match="the same images"):
        pairwise_gain(made, made[1:], style)
