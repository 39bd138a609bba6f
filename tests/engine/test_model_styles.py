"""Styles of a job: named, painted, mixed, invented, and what strength=auto needs of them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.core.match import Match, embed, fit_match
from stylejobs.core.networks import build_network
from stylejobs.engine.models import PinnedModel, read_style, style_name
from stylejobs.errors import ModelError, StyleError
from stylejobs.storage.packages import load_package, save_package
from tests.engine.pinning import save_johnson, save_moments, write_image


class TestBuiltin:
    def test_styles_are_encoded_from_images_in_order(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        images = [write_image(tmp_path / "styles" / name, seed) for seed, name in enumerate(["b.x.png", "a.png"])]
        model = pin("builtin:moments", images)
        assert (model.uri, model.name, model.version) == ("builtin:moments", "moments", "builtin")
        loaded = load_package(model.package_uri, model.package_sha256)
        assert list(model.styles) == list(loaded.styles) == ["b.x", "a"]
        for path, code in zip(images, loaded.styles.values(), strict=True):
            pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 127.5 - 1
            assert torch.allclose(code, build_network("moments").encode_style(pixels)[0], atol=1e-5)

    def test_the_same_images_pin_the_same_model_and_others_another(
        self, pin: Callable[..., PinnedModel], tmp_path: Path
    ) -> None:
        image = write_image(tmp_path / "a.png")
        first, again = pin("builtin:moments", [image]), pin("builtin:moments", [image])
        assert (first.sha256, first.package_sha256, first.styles) == (again.sha256, again.package_sha256, again.styles)
        write_image(tmp_path / "a.png", seed=1)
        other = pin("builtin:moments", [image])
        assert other.sha256 == first.sha256  # the model is the same; the styles are not
        assert other.package_sha256 != first.package_sha256 and other.styles["a"] != first.styles["a"]

    def test_without_styles_there_is_nothing_to_do(self, pin: Callable[..., PinnedModel]) -> None:
        with pytest.raises(StyleError, match="model=builtin:moments carries no styles: name style images with styles="):
            pin("builtin:moments")

    def test_every_training_free_network_is_built_in(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png")
        model = pin("builtin:fda", [image])
        loaded = load_package(model.package_uri)
        code_D = loaded.generator.encode_style(read_style(image))[0]
        assert (model.name, model.version) == ("fda", "builtin") and torch.equal(loaded.styles["a"], code_D)

    @pytest.mark.parametrize("name", ["johnson", "label_conditioned", "nothing", ""])
    def test_what_is_not_built_in_is_refused_and_the_others_are_named(
        self, pin: Callable[..., PinnedModel], name: str
    ) -> None:
        with pytest.raises(
            ModelError, match=f"model=builtin:{name}: no such built-in model; there is .*builtin:moments"
        ):
            pin(f"builtin:{name}", ["a.png"])


class TestMixes:
    """Items such as red:0.7+blue:0.3."""

    def test_codes_mix_linearly_and_the_text_is_the_name(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        folder = save_moments(tmp_path / "model")
        texts = ["red:3+blue:1", "green", "red:0.2+blue:0.3+green:0.5"]
        loaded, carried = load_package(pin(folder, texts).package_uri), load_package(folder).styles
        assert list(loaded.styles) == texts
        assert torch.allclose(loaded.styles[texts[0]], 0.75 * carried["red"] + 0.25 * carried["blue"])
        wanted = 0.2 * carried["red"] + 0.3 * carried["blue"] + 0.5 * carried["green"]
        assert torch.allclose(loaded.styles[texts[2]], wanted)

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.floats(0.001, 1000), st.sampled_from(["red", "blue", "green"]))
    def test_law_all_weight_on_one_style_is_that_style(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, weight: float, name: str
    ) -> None:
        folder = save_moments(tmp_path / "model")
        model = pin(folder, [f"{name}:{weight:f}+green:0"])
        assert list(model.styles.values()) == [pin(folder).styles[name]]

    def test_places_in_a_mix_are_reduced_to_names(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        image = write_image(tmp_path / "a:b" / "sea.png")
        folder = save_moments(tmp_path / "model")
        loaded = load_package(pin(folder, [f"{image}:0.70+red:0.3", image]).package_uri)
        assert list(loaded.styles) == ["sea:0.70+red:0.3", "sea"]
        red = load_package(folder).styles["red"]
        assert torch.allclose(loaded.styles["sea:0.70+red:0.3"], 0.7 * loaded.styles["sea"] + 0.3 * red)

    def test_a_name_that_the_model_carries_is_never_taken_for_a_mix(
        self, pin: Callable[..., PinnedModel], tmp_path: Path
    ) -> None:
        folder = save_moments(tmp_path / "model", ("a", "b", "a:1+b:1"))
        loaded = load_package(pin(folder, ["a:1+b:1"]).package_uri)
        assert torch.equal(loaded.styles["a:1+b:1"], torch.full((6,), 0.2))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("red:0+blue:0", "not all of them 0"),
            ("red:-1+blue:2", "weights >= 0"),
            ("red:1+nobody.png:1", "style nobody.png: no such file"),
        ],
    )
    def test_what_is_no_mix(self, pin: Callable[..., PinnedModel], tmp_path: Path, text: str, said: str) -> None:
        with pytest.raises(StyleError, match=said):
            pin(save_moments(tmp_path / "model"), [text])

    def test_a_model_with_its_style_in_its_weights_has_nothing_to_mix(
        self, pin: Callable[..., PinnedModel], tmp_path: Path
    ) -> None:
        with pytest.raises(StyleError, match=r"styles=mosaic:1\+waves:1: .*no style codes to mix"):
            pin(save_johnson(tmp_path / "model"), ["mosaic:1+waves:1"])

    def test_twice_the_same_mix_is_refused(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        with pytest.raises(StyleError, match="two styles are called"):
            pin(save_moments(tmp_path / "model"), ["red:1+blue:1", "red:1+blue:1"])


class TestRandom:
    """Styles that the model invents, random:SEED."""

    OPTIONS: ClassVar[dict] = {"width": 4, "style_dim": 8, "blocks": 2}

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        torch.manual_seed(0)
        network = build_network("style_modulated", **self.OPTIONS)
        codes = {"waves": torch.linspace(-1, 1, 8)}
        save_package(str(tmp_path / "model"), "style_modulated", self.OPTIONS, network.state_dict(), codes, {})
        return str(tmp_path / "model")

    def test_a_seed_is_a_style(self, pin: Callable[..., PinnedModel], folder: str) -> None:
        loaded = load_package(pin(folder, ["random:7", "random:8", "waves", "random:7:3+waves:1"]).package_uri)
        assert list(loaded.styles) == ["random:7", "random:8", "waves", "random:7:3+waves:1"]
        seven = loaded.generator.draw_style(7)
        assert torch.equal(loaded.styles["random:7"], seven)
        assert not torch.allclose(loaded.styles["random:8"], seven)
        assert torch.allclose(loaded.styles["random:7:3+waves:1"], 0.75 * seven + 0.25 * loaded.styles["waves"])

    @pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", f"random:{2**63}"])
    def test_what_is_no_seed(self, pin: Callable[..., PinnedModel], folder: str, text: str) -> None:
        with pytest.raises(StyleError, match=f"styles={text}: wanted random:SEED"):
            pin(folder, [text])

    @pytest.mark.parametrize("save", [save_johnson, save_moments])
    def test_a_model_that_invents_nothing_says_so(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, save: Callable[[Path], str]
    ) -> None:
        with pytest.raises(StyleError, match=r"styles=random:7: .* cannot invent styles"):
            pin(save(tmp_path / "model"), ["random:7"])


class TestMatch:
    """What strength=auto needs is pinned with the styles."""

    @pytest.fixture
    def match(self) -> Match:
        rng = torch.Generator().manual_seed(0)
        batches = [torch.rand(4, 3, 20, 20, generator=rng) * 2 - 1 for _ in range(3)]
        return fit_match(batches[:2], {"red": [batches[2]], "blue": [-batches[2]]})

    @pytest.fixture
    def folder(self, tmp_path: Path, match: Match) -> str:
        codes = {name: torch.full((6,), 0.1 * number) for number, name in enumerate(["red", "blue", "green"])}
        save_package(str(tmp_path / "model"), "moments", {}, {}, codes, {}, match)
        return str(tmp_path / "model")

    def test_styles_of_the_model_images_and_mixes_have_targets(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, folder: str, match: Match
    ) -> None:
        image = write_image(tmp_path / "sea.png")
        model = pin(folder, ["red", image, "red:1+blue:3", "red:1+green:1", "green"])
        assert model.matched == ("red", "sea", "red:1+blue:3")
        targets = load_package(model.package_uri).match.targets
        assert torch.equal(targets["red"], match.targets["red"])
        assert torch.allclose(targets["sea"], match.whitened(embed(read_style(image)))[0])
        assert torch.allclose(targets["red:1+blue:3"], 0.25 * match.targets["red"] + 0.75 * match.targets["blue"])

    def test_auto_is_refused_before_anything_is_written_where_a_style_has_none(
        self, start: Callable[..., None], tmp_path: Path, folder: str
    ) -> None:
        start(folder, ["red", "blue"], strength="auto")
        for model, styles, said in (
            (folder, None, "has no content match for green"),
            ("builtin:moments", [write_image(tmp_path / "sea.png")], "has no content match for sea"),
            (save_johnson(tmp_path / "old"), None, "has no content match for mosaic, waves"),
        ):
            with pytest.raises(ModelError, match=f"strength=auto: model=.*{said}"):
                start(model, styles, dest="other", strength="auto")
        assert not (tmp_path / "other").exists()


class TestStyleImages:
    def test_it_is_read_as_floats(self, tmp_path: Path) -> None:
        style_BCHW = read_style(write_image(tmp_path / "a.png"))
        wanted = np.asarray(Image.open(tmp_path / "a.png")).transpose(2, 0, 1)[None] / 127.5 - 1
        assert style_BCHW.dtype == torch.float32 and np.allclose(style_BCHW.numpy(), wanted, atol=1e-6)

    def test_alpha_and_orientation_follow_the_codecs_rule(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        sink = io.BytesIO()
        Image.new("RGBA", (16, 9), (255, 0, 0, 0)).save(sink, "PNG", exif=exif)
        (tmp_path / "a.png").write_bytes(sink.getvalue())
        style_BCHW = read_style(str(tmp_path / "a.png"))
        assert style_BCHW.shape == (1, 3, 16, 9) and (style_BCHW == 1).all()

    @pytest.mark.parametrize(
        ("data", "said"), [(None, "no such file; wanted an image"), (b"text", "not an image that we read")]
    )
    def test_what_is_no_image(self, tmp_path: Path, data: bytes | None, said: str) -> None:
        if data is not None:
            (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(StyleError, match=f"style .*a.png: {said}"):
            read_style(str(tmp_path / "a.png"))

    def test_a_folder_is_no_image(self, tmp_path: Path) -> None:
        with pytest.raises(StyleError):
            read_style(str(tmp_path))

    @pytest.mark.parametrize(
        ("uri", "name"),
        [("a.png", "a"), ("s3://b/x/starry night.jpeg", "starry night"), ("/x/a.b.png", "a.b"), ("/x/monet", "monet")],
    )
    def test_its_name_is_that_of_its_file(self, uri: str, name: str) -> None:
        assert style_name(uri) == name
