import numpy as np
import pytest
import torch
from torchvision import models

from stylejobs.core.backbone import BACKBONES, Backbone, build_backbone, build_random_backbone
from stylejobs.core.losses import feature_loss, perceptual_loss

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def squeezenet() -> models.SqueezeNet:
    torch.manual_seed(0)
    return models.squeezenet1_1(weights=None).eval()


def vgg_features(name: str) -> torch.nn.Sequential:
    # Without the classifier: its 120 M weights take seconds to draw.
    torch.manual_seed(0)
    config = {"vgg16": "D", "vgg19": "E"}[name]
    return models.vgg.make_layers(models.vgg.cfgs[config], batch_norm=False).eval()


@pytest.fixture(scope="module")
def whole_vgg() -> models.VGG:
    """torchvision's VGG-16 with its classifier, one 400 MB matrix of rank one so that it is made in no time."""
    rng = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        network = models.vgg16(weights=None, init_weights=False).eval()
    state = {f"features.{key}": value for key, value in vgg_features("vgg16").state_dict().items()}
    state["classifier.0.weight"] = torch.outer(
        torch.randn(4096, generator=rng), torch.randn(25088, generator=rng).div_(150)
    )
    state["classifier.3.weight"] = torch.randn(4096, 4096, generator=rng).div_(64)
    state["classifier.6.weight"] = torch.zeros(1000, 4096)
    state |= {f"classifier.{place}.bias": torch.randn(4096, generator=rng) for place in (0, 3)}
    state["classifier.6.bias"] = torch.zeros(1000)
    network.load_state_dict(state, assign=True)
    return network


def normalised(image_BCHW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((image_BCHW + 1) / 2 - mean) / std


def draw(height: int = 48, width: int = 40) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_squeezenet_is_torchvisions(squeezenet):
    backbone = build_backbone("squeezenet1_1", squeezenet.state_dict())
    found = backbone(draw(), ("fire9", "conv1", "fire4"))
    assert list(found) == ["fire9", "conv1", "fire4"]
    with torch.no_grad():
        for layer, depth in (("conv1", 2), ("fire4", 7), ("fire9", 13)):
            torch.testing.assert_close(found[layer], squeezenet.features[:depth](normalised(draw())))


@pytest.mark.parametrize(
    ("name", "layer", "depth"),
    [("vgg16", "relu1_2", 4), ("vgg16", "relu3_3", 16), ("vgg16", "relu4_3", 23), ("vgg19", "relu4_1", 21)],
)
def test_vgg_layers_are_the_papers(name, layer, depth):
    features = vgg_features(name)
    backbone = build_backbone(name, features.state_dict())
    with torch.no_grad():
        expected = features[:depth](normalised(draw()))
    torch.testing.assert_close(backbone(draw(), (layer,))[layer], expected)
    assert (expected >= 0).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_every_layer_name_is_a_relu_or_fire_output(name):
    kinds = {"squeezenet1_1": (torch.nn.ReLU, models.squeezenet.Fire)}.get(name, (torch.nn.ReLU,))
    features = vgg_features(name) if name.startswith("vgg") else getattr(models, name)(weights=None).features
    backbone = build_backbone(name, features.state_dict())
    assert backbone.content_layer in backbone.layers
    assert set(backbone.style_layers) <= set(backbone.layers)
    found = backbone(draw(32, 32), backbone.layers)
    assert all(found[layer].ndim == 4 and (found[layer] >= 0).all() for layer in backbone.layers)
    assert all(isinstance(backbone.features[index], kinds) for index in backbone._indices.values())


def test_state_dicts_with_and_without_prefix_and_classifier(squeezenet):
    whole = squeezenet.state_dict()
    features = squeezenet.features.state_dict()
    prefixed = {f"features.{key}": value for key, value in features.items()}
    results = [
        build_backbone("squeezenet1_1", state)(draw(), ("fire5",))["fire5"] for state in (whole, features, prefixed)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_wrong_weights_name_the_layers(squeezenet):
    state = dict(squeezenet.features.state_dict())
    state["extra.weight"] = torch.zeros(2)
    state["0.weight"] = torch.zeros(64, 3, 5, 5)
    del state["3.squeeze.bias"]
    with pytest.raises(ValueError) as caught:
        build_backbone("squeezenet1_1", state)
    message = str(caught.value)
    assert "missing 3.squeeze.bias [16]" in message
    assert "not known extra.weight [2]" in message
    assert "wrong shape 0.weight: wanted [64, 3, 3, 3], got [64, 3, 5, 5]" in message
    with pytest.raises(ValueError, match=r"and \d+ more"):
        build_backbone("vgg16", squeezenet.state_dict())
    with pytest.raises(ValueError, match="did you mean 'vgg16'"):
        build_backbone("vgg_16", {})


def test_it_is_frozen_but_lets_gradients_through():
    backbone, image = build_random_backbone(0), draw().requires_grad_()
    assert not any(weight.requires_grad for weight in backbone.parameters())
    backbone(image, ("fire9",))["fire9"].sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().max() > 0


def test_the_wide_layers_are_torchvisions_for_images_of_any_size(whole_vgg):
    backbone = build_backbone("vgg16", whole_vgg.state_dict()).train()  # a frozen network has no dropout
    assert backbone.layers[-3:] == ("relu5_3", "fc6", "fc7")
    for height, width in ((32, 32), (70, 45)):
        found = backbone(draw(height, width), ("fc7", "relu3_3", "fc6"))
        with torch.no_grad():
            maps = whole_vgg.avgpool(whole_vgg.features(normalised(draw(height, width)))).flatten(1)
            fc6, fc7 = whole_vgg.classifier[:2](maps), whole_vgg.classifier[:5](maps)
        torch.testing.assert_close(found["fc6"], fc6[:, :, None, None], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["fc7"], fc7[:, :, None, None], rtol=1e-4, atol=1e-4)
        assert (fc7 > 0).any()
    stylized, layers = draw(32, 34).neg().requires_grad_(), ("relu3_3", "fc6", "fc7")
    loss = perceptual_loss(backbone, stylized, draw(32, 34), layers)
    a, b = backbone(stylized, layers), backbone(draw(32, 34), layers)
    torch.testing.assert_close(loss, sum(feature_loss(a[layer], b[layer]) for layer in layers) / 3)
    loss.backward()
    assert stylized.grad.isfinite().all()
    assert not any(weight.requires_grad for weight in backbone.parameters())


def test_the_wide_layers_can_be_left_out(whole_vgg):
    state = whole_vgg.state_dict()
    fine_tuned = state | {"classifier.0.weight": torch.zeros(10, 25088)}
    halved = {key: value for key, value in state.items() if key != "classifier.3.bias"}
    features = {key: value for key, value in state.items() if key.startswith("features.")}
    for backbone in (
        build_backbone("vgg16", state, wide_layers=False),
        build_backbone("vgg16", fine_tuned),
        build_backbone("vgg16", halved),
        build_backbone("vgg16", features),
    ):
        assert backbone.layers[-1] == "relu5_3"
        assert sum(weight.numel() for weight in backbone.parameters()) == 14_714_688  # of the convolutions
        with pytest.raises(ValueError, match="give the whole weights file"):
            backbone(draw(), ("fc6",))
    with pytest.raises(ValueError, match="wanted a layer of random_squeezenet1_1_0"):
        build_random_backbone(0)(draw(), ("fc6",))


def test_weights_do_not_alias_the_state_dict(squeezenet):
    state = {key: value.clone() for key, value in squeezenet.state_dict().items()}
    backbone = build_backbone("squeezenet1_1", state)
    before = backbone(draw(), ("conv1",))["conv1"]
    state["features.0.weight"].zero_()
    assert torch.equal(backbone(draw(), ("conv1",))["conv1"], before)


def test_it_runs_no_deeper_than_asked():
    backbone, ran = build_random_backbone(0), []
    for index, module in enumerate(backbone.features):
        module.register_forward_hook(lambda *_, index=index: ran.append(index))
    backbone(draw(), ("fire3",))
    assert ran == [0, 1, 2, 3, 4]


def test_images_that_are_too_small_and_unknown_layers_are_refused():
    backbone = build_random_backbone(0)
    with pytest.raises(ValueError, match="at least 32x32 px; got 31x40"):
        backbone(draw(31, 40), ("conv1",))
    with pytest.raises(ValueError, match="did you mean 'fire2'"):
        backbone(draw(), ("fires2",))


def test_random_backbones_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = build_random_backbone(7)
    torch.manual_seed(2)
    second, other = build_random_backbone(7), build_random_backbone(8)
    assert isinstance(first, Backbone)
    assert torch.equal(first.features[0].weight, second.features[0].weight)
    assert not torch.equal(first.features[0].weight, other.features[0].weight)
    energies = [value.square().mean().item() for value in first(draw(), first.layers).values()]
    assert np.ptp(np.log10(energies)) < 1.5  # He initialisation: no layer dies or explodes
