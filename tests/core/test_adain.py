import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylejobs.core.backbone import build_random_backbone
from stylejobs.core.draws import Draws
from stylejobs.core.methods import Adain, AdainOptions, Ingredients, Step, build_method, moment_at, take_step
from stylejobs.core.methods.judges import STYLE_KINDS

SMALL = {"width_scale": 0.1}
ATTENTION = {**SMALL, "attention": True, "grid": 2}


def build(generator: dict | None = None, styles: dict[str, Tensor] | None = None, **options) -> Adain:
    torch.manual_seed(0)
    styles = {"waves": draw(1, 8, 40), "dots": draw(1, 9, 44)} if styles is None else styles
    ingredients = Ingredients(generator or SMALL, {}, build_random_backbone(0), styles, ("photos", "waves"))
    return build_method("adain", ingredients, **options)


def draw(batch: int, seed: int, size_px: int = 32) -> Tensor:
    return torch.rand((batch, 3, size_px, size_px), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make_step(method, content: Tensor, style: Tensor, number: int = 1) -> Step:
    moment = moment_at(method.phases, number, 0, 100, Draws(torch.Generator().manual_seed(0)))
    return Step({"content": content, "style": style}, moment)


def features(image: Tensor, layer: str = "fire3") -> np.ndarray:
    return build_random_backbone(0)(image, (layer,))[layer].detach().double().numpy()


def encode(image: Tensor, method) -> np.ndarray:
    """The encoder's features: of the mirrored margins that its docstring names, over its scale."""
    return features(F.pad(image, (2, 1, 2, 1), mode="reflect")) / method.generator.encoder.scale.item()


def moments(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations [C, 1, 1] of one image's features; 1e-5 under the root as in the network."""
    return found.mean((1, 2), keepdims=True), np.sqrt(found.var((1, 2), keepdims=True) + 1e-5)


def move(found: np.ndarray, style: np.ndarray) -> np.ndarray:
    """AdaIN of one image's features."""
    (mean, std), (wanted_mean, wanted_std) = moments(found), moments(style)
    return wanted_std * (found - mean) / std + wanted_mean


def test_the_losses_are_their_formulas():
    method = build(style_layers=("fire2", "fire4"))
    content, style = draw(2, 1), draw(2, 2, 40)
    step = make_step(method, content, style)
    terms = method.take_turn("decoder", method.networks, step).terms
    targets = [move(x, s) for x, s in zip(encode(content, method), encode(style, method), strict=True)]
    stylized = method.networks["decoder"](torch.from_numpy(np.stack(targets)).float(), (32, 32)).detach()
    pixels = stylized.double().numpy()
    gaps = [
        [(a - b) ** 2 for a, b in zip(moments(found), moments(wanted), strict=True)] / np.mean(wanted**2)
        for layer in ("fire2", "fire4")
        for found, wanted in zip(features(stylized, layer), features(style, layer), strict=True)
    ]
    expected = {
        "content": np.mean(
            [((y - t) ** 2).sum() / (t**2).sum() for y, t in zip(encode(stylized, method), targets, strict=True)]
        ),
        "style": np.mean([gap.sum(axis=0).mean() for gap in gaps]),
        "tv": (np.abs(np.diff(pixels, axis=2)).sum() + np.abs(np.diff(pixels, axis=3)).sum()) / pixels.size,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-3)
    assert set(terms) == set(method.weights)
    torch.testing.assert_close(step.kept["stylized"], stylized, rtol=1e-3, atol=1e-4)


def test_its_own_style_leaves_the_features_alone():
    """The target of an image in its own style is its features: content and style then ask for the same image."""
    method, content = build(), draw(2, 1)
    seen = []
    method.networks["decoder"].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    method.take_turn("decoder", method.networks, make_step(method, content, content))
    np.testing.assert_allclose(seen[0].numpy(), encode(content, method), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("generator", [SMALL, ATTENTION])
def test_only_the_decoder_and_the_attention_move(generator):
    method = build(generator, learning_rate=1e-2)
    assert set(method.networks) == {"decoder", *(["transform"] if generator is ATTENTION else [])}
    assert set(method.players["decoder"].networks) == set(method.networks)
    before = {key: value.clone() for key, value in method.generator.state_dict().items()}
    take_step(
        method, method.networks, method.build_optimizers(method.networks), make_step(method, draw(2, 1), draw(2, 2))
    )
    moved = {key for key, value in method.generator.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[0] for key in moved} == set(method.networks)
    assert not any(weight.requires_grad for module in method.frozen.values() for weight in module.parameters())


@pytest.mark.parametrize("kind", STYLE_KINDS)
def test_thirty_steps_lower_the_objective(kind):
    method = build(style_kind=kind, style_layers=("fire2", "fire3"), learning_rate=5e-3, style_weight=1.0)
    optimizers = method.build_optimizers(method.networks)
    batch = draw(1, 1) * 0.3, draw(1, 2) * 0.3 + 0.4
    found = []
    for number in range(1, 31):
        step = make_step(method, *batch, number)
        found.append(take_step(method, method.networks, optimizers, step).losses["total/decoder"].item())
    assert found[-1] < 0.9 * found[0]


def test_the_encoder_is_the_backbone():
    method, image = build(), draw(1, 1)
    np.testing.assert_allclose(
        method.generator.encoder(image).double().numpy(), encode(image, method), rtol=1e-4, atol=1e-5
    )
    assert method.generator_options == {"encoder": "squeezenet1_1", **SMALL}


def test_styles_are_the_moments_of_the_style_images():
    method = build()
    codes = method.styles()
    assert list(codes) == ["waves", "dots"]
    for (name, code), seed, size in zip(codes.items(), (8, 9), (40, 44), strict=True):
        wanted = np.concatenate([moment.ravel() for moment in moments(encode(draw(1, seed, size), method)[0])])
        assert code.shape == (method.generator.style_dim,) == wanted.shape
        np.testing.assert_allclose(code.numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_published_numbers():
    method = build()
    assert method.weights == {"content": 1.0, "style": 10.0, "tv": 0.0}
    player = method.players["decoder"]
    assert (player.learning_rate, player.schedule.at(0.0, 0)) == (1e-4, 1.0)
    assert player.schedule.at(0.5, 8 * 160_000) == pytest.approx(1 / (1 + 5e-5 * 160_000))
    assert [(phase.name, phase.share) for phase in method.phases] == [("train", 1.0)]
    assert method.needs_backbone


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"styles": {}}, "at least one style image"),
        ({"generator": {**SMALL, "encoder": "vgg16"}}, "wanted the encoder squeezenet1_1, the backbone's; got vgg16"),
        ({"style_kind": "moment"}, "did you mean 'moments'"),
        ({"style_layers": ("fire22",)}, "did you mean 'fire2'"),
        ({"content_kind": "l1"}, "cannot be built"),
    ],
)
def test_what_it_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        build(**given)


@pytest.mark.parametrize("numbers", [{"style_weight": -1.0}, {"tv_weight": float("inf")}, {"learning_rate": 0.0}])
def test_options_out_of_range(numbers):
    with pytest.raises(ValueError, match=f"wanted weights >= 0.*got {next(iter(numbers))}="):
        AdainOptions(**numbers)
