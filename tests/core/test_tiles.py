"""Tiling: exact on the identity, equal to the whole image for convolutions, without a seam to be seen for norms."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stylejobs.core.networks import NETWORKS, build_network
from stylejobs.core.networks.layers import init_he
from stylejobs.core.pixels import to_float
from stylejobs.core.tiles import Tiling, blend_tiles, seam_energy, stylize_tiles


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    multiple = draw(st.sampled_from([1, 2, 4, 8]))
    tile = draw(st.integers(1, 6))
    return Tiling(tile * multiple, draw(st.integers(0, tile // 2)) * multiple, multiple)


SIDES = st.integers(1, 90)


class TestSpans:
    @given(tilings(), SIDES)
    def test_law_weights_add_up_to_one_and_are_never_negative(self, tiling: Tiling, side: int) -> None:
        total_N = torch.zeros(side)
        for span in tiling.spans(side):
            assert span.weight_N.shape == (span.end - span.start,) and span.weight_N.min() >= 0
            total_N[span.start : span.end] += span.weight_N
        assert torch.allclose(total_N, torch.ones(side), atol=1e-6, rtol=0)

    @given(tilings(), SIDES)
    def test_law_tiles_cover_the_axis_and_overlap_by_what_was_asked(self, tiling: Tiling, side: int) -> None:
        spans = tiling.spans(side)
        assert spans[0].start == 0 and spans[-1].end == side
        for before, after in pairwise(spans):
            assert before.start < after.start <= before.end - tiling.overlap_px
        for span in spans[:-1]:
            assert span.end - span.start == tiling.tile_px and span.start % tiling.multiple == 0
        last = spans[-1].end - spans[-1].start
        assert last <= tiling.tile_px and spans[-1].start % tiling.multiple == 0
        assert len(spans) == 1 or last > tiling.tile_px - tiling.multiple
        assert len(spans) == 1 or len(spans) <= 1 + -(-side // (tiling.tile_px - tiling.overlap_px))

    @given(tilings(), SIDES)
    def test_law_three_eighths_of_the_overlap_at_a_tiles_inner_edges_do_not_count(
        self, tiling: Tiling, side: int
    ) -> None:
        spans, margin = tiling.spans(side), 3 * tiling.overlap_px // 8
        for number, span in enumerate(spans):
            assert number == 0 or not span.weight_N[:margin].any()
            assert number == len(spans) - 1 or margin == 0 or not span.weight_N[-margin:].any()

    @given(tilings(), SIDES)
    def test_law_at_a_seam_both_tiles_count_the_same(self, tiling: Tiling, side: int) -> None:
        spans = tiling.spans(side)
        seams = tiling.seams(side)
        assert len(seams) == len(spans) - 1 and all(0 < seam < side for seam in seams)
        for seam, before, after in zip(seams, spans, spans[1:], strict=False):
            if tiling.overlap_px and tiling.overlap_px % 2 == 0:
                around = before.weight_N[[seam - 1 - before.start, seam - before.start]]
                assert around.sum() == pytest.approx(1)
            elif not tiling.overlap_px:
                assert after.weight_N[seam - after.start] == 1 and before.end == seam

    @pytest.mark.parametrize("numbers", [(10, 6, 1), (10, 4, 4), (8, 3, 2), (0, 0, 1), (8, -2, 1), (8, 2, 0)])
    def test_what_cannot_be_meant_is_refused(self, numbers: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError, match="wanted"):
            Tiling(*numbers)

    def test_a_side_without_pixels_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 px"):
            Tiling().spans(0)


@settings(deadline=None, max_examples=60)
@given(tilings(), SIDES, SIDES, st.integers(0, 99))
def test_law_the_identity_gives_the_image_back(tiling: Tiling, height: int, width: int, seed: int) -> None:
    image_1CHW = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    expected_row = 0
    for first, strip_CHW in blend_tiles(height, width, tiling, lambda rows, columns: image_1CHW[:, :, rows, columns]):
        assert first == expected_row
        expected_row += strip_CHW.shape[1]
        assert torch.allclose(strip_CHW, image_1CHW[0, :, first:expected_row], atol=1e-6, rtol=0)
    assert expected_row == height


@settings(deadline=None, max_examples=60)
@given(tilings(), SIDES, SIDES, st.integers(0, 99))
def test_law_the_identity_gives_pixels_back_exactly(tiling: Tiling, height: int, width: int, seed: int) -> None:
    image_HWC = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    made_HWC = stylize_tiles(height, width, tiling, lambda rows, columns: to_float(image_HWC[rows, columns][None]))
    assert torch.equal(made_HWC, image_HWC)


def test_one_row_of_tiles_is_all_that_is_held() -> None:
    asked: list[tuple[int, int]] = []

    def make_tile(rows: slice, columns: slice) -> Tensor:
        asked.append((rows.start, columns.start))
        return torch.zeros(1, 3, rows.stop - rows.start, columns.stop - columns.start)

    strips = blend_tiles(100, 50, Tiling(20, 4), make_tile)
    first, strip_CHW = next(strips)
    assert (first, strip_CHW.shape) == (0, (3, 16, 50))
    assert asked == [(0, 0), (0, 16), (0, 30)], "a row of tiles, from left to right, and none of the next"
    assert max(len(strip_CHW[0]) for _, strip_CHW in strips) <= 20


def conv_net(num_convs: int, norm: bool) -> nn.Module:
    """Convolutions of 3x3: it sees `num_convs` px far."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number in range(num_convs):
        is_last = number == num_convs - 1
        layers.append(nn.Conv2d(8 if number else 3, 3 if is_last else 8, 3, padding=1, padding_mode="reflect"))
        layers += [] if is_last else [nn.InstanceNorm2d(8) if norm else nn.Identity(), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Tanh())
    init_he(network, negative_slope=0.0)
    return network


@pytest.fixture(scope="module")
def photo_1CHW(photos: dict[str, np.ndarray]) -> Tensor:
    return to_float(torch.from_numpy(photos["coffee"][:301, :403].copy())[None])


@torch.inference_mode()
def tiled(network: nn.Module, image_1CHW: Tensor, tiling: Tiling) -> Tensor:
    made_1CHW = torch.full_like(image_1CHW, torch.nan)
    for first, strip_CHW in blend_tiles(
        *image_1CHW.shape[2:], tiling, lambda rows, columns: network(image_1CHW[:, :, rows, columns])
    ):
        made_1CHW[0, :, first : first + strip_CHW.shape[1]] = strip_CHW
    return made_1CHW


class TestConvolutions:
    """Differences in levels of 8 bits; the networks' results vary by about fifty."""

    @torch.inference_mode()
    @pytest.mark.parametrize("reach_px", [6, 9])
    def test_within_three_eighths_of_the_overlap_it_is_the_whole_image(self, photo_1CHW: Tensor, reach_px: int) -> None:
        network = conv_net(reach_px, norm=False)
        whole_1CHW = network(photo_1CHW)
        found_1CHW = tiled(network, photo_1CHW, Tiling(96, 8 * reach_px // 3))
        assert whole_1CHW.std() * 127.5 > 10
        assert (found_1CHW - whole_1CHW).abs().max() * 127.5 < 1e-3
        hard_1CHW = tiled(network, photo_1CHW, Tiling(96, 0))
        assert (hard_1CHW - whole_1CHW).abs().max() * 127.5 > 20

    @torch.inference_mode()
    @pytest.mark.parametrize("reach_px", [4, 8])
    def test_within_half_of_the_overlap_it_is_so_up_to_a_few_levels(self, photo_1CHW: Tensor, reach_px: int) -> None:
        network = conv_net(reach_px, norm=False)
        difference_1CHW = (tiled(network, photo_1CHW, Tiling(96, 2 * reach_px)) - network(photo_1CHW)).abs() * 127.5
        assert difference_1CHW.max() < 6.0 and difference_1CHW.mean() < 0.05

    @torch.inference_mode()
    def test_strides_fall_where_they_fall_in_the_whole_image(self, photo_1CHW: Tensor) -> None:
        torch.manual_seed(0)
        down = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
        network = nn.Sequential(*down, nn.Upsample(scale_factor=4), nn.Conv2d(8, 3, 3, padding=1))
        image_1CHW = photo_1CHW[:, :, :300, :400]  # as it is after padding: multiples of 4
        found_1CHW = tiled(network, image_1CHW, Tiling(96, 48, 4))
        assert (found_1CHW - network(image_1CHW)).abs().max() < 1e-5


class TestSeams:
    @torch.inference_mode()
    def test_a_hard_cut_of_instance_norm_shows_and_blended_tiles_do_not(self, photo_1CHW: Tensor) -> None:
        network = conv_net(3, norm=True)
        hard, blended = Tiling(128, 0), Tiling(128, 32)
        assert seam_energy(network(photo_1CHW), hard) == pytest.approx(1.0, abs=0.2)
        assert seam_energy(tiled(network, photo_1CHW, hard), hard) > 1.7
        assert seam_energy(tiled(network, photo_1CHW, blended), blended) < 1.1

    @torch.inference_mode()
    def test_the_johnson_generator(self, photo_1CHW: Tensor) -> None:
        torch.manual_seed(0)
        johnson = build_network("johnson", width=8, blocks=1)
        hard, blended = Tiling(128, 0, 4), Tiling(128, 64, 4)

        class Bound(nn.Module):
            def forward(self, content_BCHW: Tensor) -> Tensor:
                return johnson(content_BCHW, torch.zeros(len(content_BCHW), 0))

        assert seam_energy(tiled(Bound(), photo_1CHW, hard), hard) > 2.0
        assert seam_energy(tiled(Bound(), photo_1CHW, blended), blended) < 1.1

    def test_one_tile_has_no_seam(self, photo_1CHW: Tensor) -> None:
        assert seam_energy(photo_1CHW, Tiling(512, 0)) == 1.0

    def test_it_is_the_ratio_that_it_says(self) -> None:
        ramp_1CHW = torch.arange(16.0).expand(1, 3, 16, 16).clone()
        ramp_1CHW[..., 8:] += 2.0  # a step of 3 where there are steps of 1
        assert seam_energy(ramp_1CHW, Tiling(8, 0)) == pytest.approx(9.0)


def test_tiles_of_the_configuration_suit_every_network() -> None:
    """Sides of tiles and overlaps are multiples of 16 px."""
    assert all(16 % network.multiple == 0 for network in NETWORKS.values() if hasattr(network, "multiple"))
