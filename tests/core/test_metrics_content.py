"""Edge descriptors against `edge_cosine`, and whose results are found: laws, and photographs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.metrics import blur, describe_edges, edge_cosine, identify, noise, shuffled
from tests.core.features import draw
from tests.core.squares import CONTENT, STYLE, crops, paint


@pytest.fixture(scope="module")
def content(photos) -> torch.Tensor:
    return crops(photos, CONTENT, 60)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(4, 70), width=st.integers(4, 70), seed=st.integers(0, 999))
def test_a_product_of_descriptors_is_the_edge_cosine(height, width, seed):
    images = draw((3, 3, height, width), seed)
    edges_BD = describe_edges(images)
    products = (edges_BD @ edges_BD.T).double()
    assert edges_BD.dtype == torch.float32
    for shift in range(3):
        expected = edge_cosine(images, images.roll(-shift, dims=0))
        found = products[torch.arange(3), (torch.arange(3) + shift) % 3]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_images_without_edges_are_like_none():
    flat, other = torch.full((1, 3, 32, 32), 0.3), draw((1, 3, 32, 32)).float()
    assert describe_edges(flat).abs().max() == 0.0
    assert not describe_edges(torch.full((1, 3, 32, 32), torch.nan)).any()
    described = describe_edges(torch.cat([flat, other, flat]))
    assert identify(described, described).tolist() == [False, True, False]


def test_identify_is_an_argmax_that_calls_ties_misses():
    made, source = draw((9, 30)).float(), draw((9, 30), 1).float()
    best = np.argmax(made.double().numpy() @ source.double().numpy().T, axis=1)
    assert identify(made, source).tolist() == (best == np.arange(9)).tolist()
    assert identify(source, source).all()
    twin = source.clone()
    twin[4] = twin[7]
    assert identify(twin, twin).tolist() == [n not in (4, 7) for n in range(9)]


def test_own_content_is_found_whatever_brightness_and_contrast(content):
    sources = describe_edges(content)
    for made in (content, 0.3 * content + 0.5, -content, paint(content)):
        assert identify(describe_edges(made), sources).double().mean() > 0.95
    assert identify(sources, sources).all()


def test_shuffled_contents_fall_to_chance_and_copies_too(content, photos):
    sources, painted = describe_edges(content), paint(content)
    assert identify(describe_edges(painted[shuffled(60)]), sources).sum() <= 2
    assert identify(describe_edges(paint(crops(photos, STYLE, 60, seed=1))), sources).sum() <= 6


def test_damage_costs_identification_and_cosine(content):
    sources = describe_edges(content)
    hits, cosines = [], []
    for made in (content, blur(content, 1.5), blur(content, 4.0), blur(noise(content, 0.9), 4.0)):
        hits.append(identify(describe_edges(made), sources).double().mean().item())
        cosines.append(edge_cosine(made, content).mean().item())
    assert hits[0] == 1.0 and hits[-1] < 0.9
    assert hits == sorted(hits, reverse=True) and cosines == sorted(cosines, reverse=True)


def test_what_cannot_be_compared_is_refused():
    for made, source in (((4, 8), (4, 9)), ((4, 8), (3, 8)), ((1, 8), (1, 8))):
        with pytest.raises(ValueError, match=r"\[N >= 2, D\] of results"):
            identify(torch.zeros(made), torch.zeros(source))
