"""Generators of CycleGAN and CUT: their names, whatever they were trained with, and their pictures."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stylejobs.core.networks import build_network
from stylejobs.core.networks.layouts import adopt_checkpoint, export_resnet
from stylejobs.core.networks.zhang2019 import BlurDown, BlurUp
from stylejobs.core.networks.zhu2017 import SAMPLINGS
from tests.core.originals import PublicResnet, build_adopted, draw_images, draw_weights

NO_STYLE = torch.zeros(1, 0)
SIZES = [(16, 16), (24, 44), (60, 32)]
BLURS = list(itertools.product((False, True), repeat=2))


def assert_same_pictures(original: PublicResnet, given: dict[str, torch.Tensor], family: str = "cyclegan") -> None:
    network = build_adopted(adopt_checkpoint(family, given))
    for seed, size in enumerate(SIZES):
        content = draw_images(1, 3, *size, seed=seed)
        with torch.no_grad():
            wanted = original.eval()(content)
            assert wanted.std() > 0.05 and wanted.abs().mean() < 0.95  # a picture, and not all at the ends of tanh
            torch.testing.assert_close(network(content, NO_STYLE), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("norm", ["instance", "affine_instance", "batch"])
@pytest.mark.parametrize("word", ["conv_block", "block"])
def test_pictures_are_the_originals(norm: str, dropout: bool, word: str):
    original = draw_weights(PublicResnet(norm=norm, dropout=dropout, word=word))
    assert_same_pictures(original, original.state_dict())


@pytest.mark.parametrize("blurs", BLURS)
@pytest.mark.parametrize("family", ["cyclegan", "cut"])
def test_antialiasing_of_each_direction_is_found(blurs: tuple[bool, bool], family: str):
    original = draw_weights(PublicResnet(blurs=blurs, blocks=3))
    assert_same_pictures(original, original.state_dict(), family)
    assert ("blurred" if blurs[0] else "strided", "blurred" if blurs[1] else "transposed") == SAMPLINGS[
        adopt_checkpoint(family, original.state_dict()).options["upsample"]
    ]


@pytest.mark.parametrize(("width", "blocks"), [(3, 1), (6, 5), (64, 9)])
def test_width_and_blocks_are_found(width: int, blocks: int):
    adopted = adopt_checkpoint("cyclegan", PublicResnet(width, blocks).state_dict())
    assert adopted.network == "resnet"
    assert adopted.options == {"width": width, "blocks": blocks, "norm": "instance", "upsample": "transposed"}


def test_the_published_size_gives_the_originals_pictures():
    original = draw_weights(PublicResnet(64, 9)).eval()
    with torch.no_grad():
        original.model[26].weight.mul_(0.3)  # what trained heads have; else rounding alone is 1e-5 here
    network = build_adopted(adopt_checkpoint("cyclegan", original.state_dict()))
    content = draw_images(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(content, NO_STYLE), original(content), rtol=0, atol=1e-5)
        content, network, original = content.double(), network.double(), original.double()
        torch.testing.assert_close(network(content, NO_STYLE), original(content), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pattern", ["module.{}", "module.model.{}", "{}"])
def test_prefixes_of_ddp_are_taken_out_wherever_they_stand(pattern: str):
    original = draw_weights(PublicResnet())
    named = {}
    for key, value in original.state_dict().items():
        rest = key.removeprefix("model.") if "model." in pattern else key
        named[pattern.format(rest.replace("conv_block.", "conv_block.module."))] = value
    assert_same_pictures(original, named)


@pytest.mark.parametrize("norm", ["instance", "affine_instance"])
def test_running_statistics_of_old_instance_norms_are_passed_over(norm: str):
    original = draw_weights(PublicResnet(norm=norm))
    old = original.state_dict()
    for place in ("model.2", "model.5", "model.10.conv_block.2", "model.13"):
        old |= {f"{place}.running_mean": torch.ones(4), f"{place}.running_var": torch.zeros(4)}
        old |= {f"{place}.num_batches_tracked": torch.tensor(7)}
    assert_same_pictures(original, old)


def test_half_precision_is_read_and_the_checkpoint_is_not_touched():
    state = draw_weights(PublicResnet()).state_dict()
    adopted = adopt_checkpoint("cyclegan", {key: value.half() for key, value in state.items()})
    weight = adopted.weights["trunk.head.weight"]
    assert weight.dtype == torch.float32 and torch.equal(weight, state["model.19.weight"].half().float())
    whole = adopt_checkpoint("cyclegan", state)
    whole.weights["trunk.head.weight"].zero_()
    assert state["model.19.weight"].abs().max() > 0


def test_other_blurs_are_refused():
    state = draw_weights(PublicResnet(blurs=(True, True))).state_dict()
    with pytest.raises(ValueError, match=r"wanted the blur .* in model\.7\.filt"):
        adopt_checkpoint("cut", {**state, "model.7.filt": torch.ones(8, 1, 3, 3) / 9})
    with pytest.raises(ValueError, match=r"not known \(1\): model\.7\.filt \[8, 1, 5, 5\]"):
        plain = draw_weights(PublicResnet()).state_dict()
        adopt_checkpoint("cut", {**plain, "model.7.filt": torch.ones(8, 1, 5, 5)})


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 6),
    blocks=st.integers(1, 4),
    norm=st.sampled_from(["instance", "affine_instance", "batch"]),
    upsample=st.sampled_from([name for name in SAMPLINGS if name != "nearest"]),
)
def test_what_is_exported_is_adopted_as_the_same(width: int, blocks: int, norm: str, upsample: str):
    options = {"width": width, "blocks": blocks, "norm": norm, "upsample": upsample}
    weights = draw_weights(build_network("resnet", **options)).state_dict()
    again = adopt_checkpoint("cut", export_resnet(options, weights))
    assert again.options == options
    assert again.weights.keys() == weights.keys()
    assert all(torch.equal(again.weights[key], weights[key]) for key in weights)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("blurs", BLURS)
def test_the_original_loads_what_is_exported_and_gives_our_pictures(norm: str, blurs: tuple[bool, bool]):
    upsample = adopt_checkpoint("cut", PublicResnet(blurs=blurs).state_dict()).options["upsample"]
    options = {"width": 4, "blocks": 2, "norm": norm, "upsample": upsample}
    network = draw_weights(build_network("resnet", **options)).eval()
    original = PublicResnet(norm=norm, blurs=blurs).eval()
    original.load_state_dict(export_resnet(options, network.state_dict()), strict=True)
    content = draw_images(1, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(original(content), network(content, NO_STYLE), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "upsample=nearest"),
        ({"upsample": "transposed", "tied": True}, "tied=True"),
        ({"upsample": "transposed", "norm": "none"}, "norm=none"),
        ({"upsample": "transposed", "adapter": True, "inner": 3}, "adapter=True, inner=3"),
    ],
)
def test_what_the_public_code_does_not_have_is_not_exported(options: dict, said: str):
    with pytest.raises(ValueError, match=f"has no {said};"):
        export_resnet(options, {})


def test_doubling_is_linear_interpolation():
    features = draw_images(2, 5, 7, 9)
    wanted = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(BlurUp()(features), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 5)])
def test_halving_is_a_weighted_mean_of_neighbours(size: tuple[int, int]):
    features = draw_images(2, 5, *size).double()
    padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    wanted = ((rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4)[..., ::2, ::2]
    torch.testing.assert_close(BlurDown().double()(features), wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("upsample", SAMPLINGS)
def test_any_size_and_finite_gradients_with_every_sampling(upsample: str):
    network = build_network("resnet", width=4, blocks=1, upsample=upsample)
    for height, width in ((1, 1), (17, 30), (33, 16)):
        content = draw_images(2, 3, height, width).requires_grad_()
        stylized = network(content, torch.zeros(2, 0))
        assert stylized.shape == content.shape
        stylized.square().mean().backward()
        assert all(weight.grad.isfinite().all() for weight in network.parameters())
