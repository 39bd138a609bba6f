"""A checkpoint that does not fit is told what differs, and what it looks like."""

import pytest
import torch

from stylejobs.core.networks.layouts import FAMILIES, adopt_checkpoint
from tests.core.originals import PublicFast, PublicResnet, PublicStarGan, public_decoder, public_vgg

STATES = {
    "cyclegan": PublicResnet().state_dict(),
    "cut": PublicResnet(blurs=(True, True)).state_dict(),
    "fast": PublicFast().state_dict(),
    "stargan": PublicStarGan().state_dict(),
    "adain": public_decoder().state_dict(),
}


def test_every_family_is_tested_here():
    assert set(STATES) == set(FAMILIES)


@pytest.mark.parametrize("family", ["cyclegan", "cut", "fast", "stargan"])
@pytest.mark.parametrize("given", STATES)
def test_another_family_is_named(family: str, given: str):
    if given == family or {given, family} == {"cyclegan", "cut"}:  # these two are one layout
        assert adopt_checkpoint(family, STATES[given]).network
        return
    with pytest.raises(ValueError) as caught:
        adopt_checkpoint(family, STATES[given])
    assert str(caught.value).startswith(
        f"wanted a checkpoint of family {family}; its keys look like those of family {given}: say family={given}"
    )


def test_a_decoder_of_another_family_is_named():
    with pytest.raises(ValueError, match=r"family adain; its keys look like those of family stargan"):
        adopt_checkpoint("adain", STATES["stargan"], public_vgg().state_dict())


@pytest.mark.parametrize("family", ["cyclegan", "fast", "stargan"])
@pytest.mark.parametrize("given", [{}, {"features.0.weight": torch.ones(2)}])
def test_what_is_of_no_family_says_so(family: str, given: dict):
    with pytest.raises(ValueError, match="its keys look like those of none of the families cut, cyclegan, fast"):
        adopt_checkpoint(family, given)


def test_missing_unknown_and_wrongly_shaped_keys_are_listed():
    state = dict(STATES["cyclegan"])
    del state["model.10.conv_block.1.weight"], state["model.19.bias"]
    state["model.18.weight"] = torch.ones(2, 3)
    state["model.4.weight"] = torch.ones(8, 4, 5, 5)
    with pytest.raises(ValueError) as caught:
        adopt_checkpoint("cyclegan", state)
    assert str(caught.value).splitlines()[1:] == [
        "  missing (2): model.10.conv_block.1.weight [16, 16, 3, 3], model.19.bias [3]",
        "  not known (1): model.18.weight [2, 3]",
        "  of another shape (1): model.4.weight: wanted [8, 4, 3, 3], got [8, 4, 5, 5]",
    ]
    assert "with other options than are known here" in str(caught.value)


def test_only_the_first_twenty_are_named():
    given = {f"strange.{number}": torch.ones(1) for number in range(53)}
    with pytest.raises(ValueError) as caught:
        adopt_checkpoint("stargan", given)
    line = next(text for text in str(caught.value).splitlines() if "not known" in text)
    assert line.startswith("  not known (53): strange.0 [1], ") and line.endswith("strange.19 [1] and 33 more")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_named(value: float):
    state = {**STATES["fast"], "in3.bias": torch.full((16,), value)}
    with pytest.raises(ValueError, match=r"hold NaN or infinity \(1\): in3\.bias; this training went wrong"):
        adopt_checkpoint("fast", state)


@pytest.mark.parametrize("value", [torch.ones(3, dtype=torch.complex64), torch.ones(3).to_sparse()])
def test_tensors_that_are_not_plain_are_refused(value: torch.Tensor):
    with pytest.raises(ValueError, match=r"wanted dense real numbers; deconv3\.conv2d\.bias is"):
        adopt_checkpoint("fast", {**STATES["fast"], "deconv3.conv2d.bias": value})


def test_a_weight_with_and_without_its_prefix_is_refused():
    with pytest.raises(ValueError, match=r"in1\.weight is there with and without `module\.`"):
        adopt_checkpoint("fast", {**STATES["fast"], "module.in1.weight": torch.ones(4)})


@pytest.mark.parametrize("key", ["model.1.weight", "model.4.weight"])
@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.ones(0), torch.ones(1)])
def test_a_tensor_without_axes_is_a_wrong_shape(key: str, value: torch.Tensor):
    with pytest.raises(ValueError, match=rf"of another shape \(\d+\):.*{key}: wanted"):
        adopt_checkpoint("cyclegan", {**STATES["cyclegan"], key: value})


def test_families_and_encoders_that_do_not_fit():
    with pytest.raises(ValueError, match="did you mean 'cyclegan'"):
        adopt_checkpoint("cyclgan", {})
    with pytest.raises(ValueError, match="wanted an encoder with family adain"):
        adopt_checkpoint("adain", STATES["adain"])
    with pytest.raises(ValueError, match="and with no other; got family fast"):
        adopt_checkpoint("fast", STATES["fast"], public_vgg().state_dict())
