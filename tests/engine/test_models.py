"""From `model=` and `styles=` to one pinned package; the registry is a stand-in (tests/tracking has the real one)."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.config.schema import StylizeConfig
from stylejobs.core.match import Match, embed, fit_match
from stylejobs.core.networks import build_network
from stylejobs.engine import stylize
from stylejobs.engine.models import PinnedModel, pin_model, pinned_uri, place_model, read_style, style_name
from stylejobs.engine.stylize import plan_stylize
from stylejobs.errors import DriftError, ModelError, StorageError, StyleError
from stylejobs.storage.packages import load_package, read_package, save_package
from stylejobs.tracking import registry
from stylejobs.tracking.registry import ModelVersion

TINY = {"width": 4, "blocks": 1}
ALIAS = "models:/demo@champion"


def write_image(path: Path, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)).save(path, "PNG")
    return str(path)


def save_johnson(folder: Path, seed: int = 0, styles: tuple[str, ...] = ("mosaic", "waves")) -> str:
    torch.manual_seed(seed)
    weights = build_network("johnson", **TINY).state_dict()
    codes = {name: torch.zeros(0) for name in styles}
    save_package(str(folder), "johnson", TINY, weights, codes, {"steps": 10})
    return str(folder)


def save_moments(folder: Path, styles: tuple[str, ...] = ("red", "blue", "green")) -> str:
    codes = {name: torch.full((6,), 0.1 * number) for number, name in enumerate(styles)}
    save_package(str(folder), "moments", {}, {}, codes, {})
    return str(folder)


@pytest.fixture
def pin(tmp_path: Path) -> Callable[..., PinnedModel]:
    """pin("builtin:moments", ["a.png"]) for a job that writes to tmp_path/out."""
    count = iter(range(99))

    def call(uri: str, styles: list[str] | None = None) -> PinnedModel:
        return pin_model(uri, styles, str(tmp_path / "out"), str(tmp_path / f"scratch{next(count)}"))

    return call


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., None]:
    """start("builtin:moments", ["a.png"]) plans a job that writes to tmp_path/out, as the stylize verb does."""
    write_image(tmp_path / "photos" / "a.png")

    def call(uri: str, styles: list[str] | None = None, dest: str = "out", **keys: object) -> None:
        places = {"source": str(tmp_path / "photos"), "dest": str(tmp_path / dest)}
        plan_stylize(StylizeConfig(**places, model=uri, styles=styles, **keys))

    return call


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


class TestFolder:
    @pytest.mark.parametrize("wanted", [None, ["mosaic", "waves"]])
    def test_with_all_its_styles_it_is_used_as_it_is(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, wanted: list[str] | None
    ) -> None:
        folder = save_johnson(tmp_path / "my-model")
        model = pin(f"{folder}/", wanted)
        package = read_package(folder)
        assert (model.name, model.version, model.package_uri) == ("my-model", "", f"{folder}/")
        assert model.sha256 == model.package_sha256 == package.sha256
        assert tuple(model.styles) == package.styles == ("mosaic", "waves")
        assert model.described() == {"uri": f"{folder}/", "name": "my-model", "version": "", "sha256": package.sha256}

    @pytest.mark.parametrize("wanted", [["waves"], ["waves", "mosaic"]])
    def test_some_of_its_styles_or_another_order_make_a_package_of_their_own(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, wanted: list[str]
    ) -> None:
        folder = save_johnson(tmp_path / "model")
        model = pin(folder, wanted)
        pinned, whole = load_package(model.package_uri, model.package_sha256), load_package(folder)
        assert list(model.styles) == list(pinned.styles) == wanted
        assert model.sha256 == whole.package.sha256 != model.package_sha256
        assert pinned.package.weights_sha256 == whole.package.weights_sha256
        assert pinned.package.training == {"steps": 10}

    def test_names_and_images_go_together_where_the_model_encodes(
        self, pin: Callable[..., PinnedModel], tmp_path: Path
    ) -> None:
        folder = save_moments(tmp_path / "model")
        image = write_image(tmp_path / "sunset.jpg.png")
        model = pin(folder, ["green", image, "red"])
        loaded, carried = load_package(model.package_uri), load_package(folder)
        assert list(loaded.styles) == ["green", "sunset.jpg", "red"]
        assert torch.equal(loaded.styles["green"], carried.styles["green"])
        assert torch.equal(loaded.styles["red"], carried.styles["red"])

    def test_digests_of_styles_tell_their_codes_apart(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        styles = pin(save_moments(tmp_path / "model")).styles
        assert len(set(styles.values())) == 3 and all(len(digest) == 64 for digest in styles.values())
        assert pin(save_moments(tmp_path / "other", ("red", "blue")), ["red"]).styles == {"red": styles["red"]}

    @pytest.mark.parametrize(
        ("wanted", "said"),
        [
            ("mosiac", "carries mosaic, waves and no other; did you mean 'mosaic'\\?"),
            ("picture.png", "carries mosaic, waves and no other$"),
        ],
    )
    def test_a_style_that_it_does_not_carry(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, wanted: str, said: str
    ) -> None:
        with pytest.raises(StyleError, match=f"styles={wanted}: .*{said}"):
            pin(save_johnson(tmp_path / "model"), ["waves", wanted])

    @pytest.mark.parametrize("wanted", [["red", "red"], ["x/a.png", "y/a.png"], ["red", "x/red.png"]])
    def test_two_styles_of_one_name_are_refused(
        self, pin: Callable[..., PinnedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in wanted:
            if name.endswith(".png"):
                write_image(tmp_path / name, seed=len(name))
        with pytest.raises(StyleError, match=f"two styles are called '{style_name(wanted[0])}'"):
            pin(save_moments(tmp_path / "model"), wanted)

    @pytest.mark.parametrize("place", ["absent", "photos", "photos/a.png"])
    def test_what_is_no_package(self, pin: Callable[..., PinnedModel], tmp_path: Path, place: str) -> None:
        write_image(tmp_path / "photos" / "a.png")
        with pytest.raises(ModelError, match=f"{place}: not a model package"):
            pin(str(tmp_path / place))

    def test_an_altered_package_is_refused(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        folder = save_johnson(tmp_path / "model")
        described = json.loads((tmp_path / "model" / "model.json").read_text())
        (tmp_path / "model" / "model.json").write_text(json.dumps(described | {"styles": ["waves", "mosaic"]}))
        with pytest.raises(ModelError, match="was altered"):
            pin(folder)

    def test_a_changed_folder_is_another_model_when_the_job_goes_on(
        self, pin: Callable[..., PinnedModel], start: Callable[..., None], tmp_path: Path
    ) -> None:
        folder = save_johnson(tmp_path / "model")
        first = pin(folder)
        start(folder)
        save_johnson(tmp_path / "model", seed=1)
        assert pin(folder).sha256 != first.sha256

    def test_a_changed_folder_with_an_at_in_its_path_is_another_model(
        self, pin: Callable[..., PinnedModel], start: Callable[..., None], tmp_path: Path
    ) -> None:
        folder = save_johnson(tmp_path / "me@home" / "model")
        first = pin(folder)
        start(folder)
        save_johnson(tmp_path / "me@home" / "model", seed=1)
        assert pin(folder).sha256 != first.sha256


class Registry:
    """A registry with one model; its alias may move, and it may go away."""

    def __init__(self, root: Path):
        self.root, self.version, self.tag, self.calls = root, "1", None, 0
        for number in (1, 2):
            save_johnson(root / str(number), seed=number)

    def resolve(self, uri: str) -> ModelVersion:
        self.calls += 1
        version = self.version if "@" in uri else uri.rsplit("/", 1)[-1]
        sha256 = read_package(str(self.root / version)).sha256 if self.tag is None else self.tag
        return ModelVersion("demo", version, None, sha256, ("champion",), f"models:/demo/{version}")

    def download(self, version: ModelVersion, into: str) -> str:
        return str(self.root / version.version)


class TestRegistered:
    @pytest.fixture
    def models(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
        models = Registry(tmp_path / "registry")
        monkeypatch.setattr(registry, "resolve_version", models.resolve)
        monkeypatch.setattr(registry, "download_package", models.download)
        return models

    @pytest.mark.parametrize("uri", [ALIAS, "models:/demo/1"])
    def test_it_is_resolved_to_a_version(self, pin: Callable[..., PinnedModel], models: Registry, uri: str) -> None:
        model = pin(uri)
        assert (model.uri, model.name, model.version) == (uri, "demo", "1")
        assert model.sha256 == read_package(str(models.root / "1")).sha256

    def test_a_package_that_is_not_the_registered_one_is_refused(
        self, pin: Callable[..., PinnedModel], models: Registry
    ) -> None:
        models.tag = "0" * 64
        with pytest.raises(ModelError, match=r"was registered with sha256 0000.*somebody changed it"):
            pin(ALIAS)

    def test_a_version_without_a_digest_is_trusted(self, pin: Callable[..., PinnedModel], models: Registry) -> None:
        models.tag = ""
        assert pin(ALIAS).version == "1"

    @pytest.mark.parametrize("wanted", [None, ["waves"], ["waves", "mosaic"]])
    def test_a_job_that_goes_on_keeps_its_model_and_asks_no_registry(
        self,
        pin: Callable[..., PinnedModel],
        start: Callable[..., None],
        models: Registry,
        tmp_path: Path,
        wanted: list[str] | None,
    ) -> None:
        first = pin(ALIAS, wanted)
        start(ALIAS, wanted)
        models.version = "2"
        asked = models.calls
        again = pin(ALIAS, wanted)
        start(ALIAS, wanted)
        assert models.calls == asked
        assert again.package_uri == pinned_uri(str(tmp_path / "out"))
        assert again.described() == first.described() and again.styles == first.styles
        assert again.package_sha256 == first.package_sha256
        assert list(load_package(again.package_uri, again.package_sha256).styles) == list(first.styles)

    def test_another_job_in_another_dest_follows_the_alias(
        self, pin: Callable[..., PinnedModel], start: Callable[..., None], models: Registry
    ) -> None:
        start(ALIAS, dest="elsewhere")
        models.version = "2"
        assert pin(ALIAS).version == "2"

    @pytest.mark.parametrize(("uri", "wanted"), [(ALIAS, ["waves"]), ("models:/demo@staging", None)])
    def test_another_command_in_the_same_dest_is_resolved_anew(
        self,
        pin: Callable[..., PinnedModel],
        start: Callable[..., None],
        models: Registry,
        uri: str,
        wanted: list[str] | None,
    ) -> None:
        start(ALIAS)
        models.version = "2"
        assert pin(uri, wanted).version == "2"

    def test_a_job_that_stopped_before_its_model_was_placed_asks_again(
        self,
        pin: Callable[..., PinnedModel],
        start: Callable[..., None],
        models: Registry,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def killed(*arguments: object) -> None:
            raise StorageError("killed")

        with monkeypatch.context() as patch, pytest.raises(StorageError):
            patch.setattr(stylize, "place_model", killed)
            start(ALIAS)
        assert pin(ALIAS).package_sha256 == read_package(str(models.root / "1")).sha256
        start(ALIAS)

    def test_a_pinned_package_that_was_altered_is_refused(
        self, pin: Callable[..., PinnedModel], start: Callable[..., None], models: Registry, tmp_path: Path
    ) -> None:
        start(ALIAS)
        path = Path(pinned_uri(str(tmp_path / "out"))) / "weights.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ModelError, match="was altered"):
            pin(ALIAS)

    def test_another_package_in_the_place_of_the_pinned_one_is_refused(
        self, start: Callable[..., None], models: Registry, tmp_path: Path
    ) -> None:
        start(ALIAS)
        save_johnson(Path(pinned_uri(str(tmp_path / "out"))), seed=7)
        with pytest.raises((ModelError, DriftError)):
            start(ALIAS)


class TestPlacing:
    def test_the_package_is_copied_beside_the_output(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        model = pin("builtin:moments", [write_image(tmp_path / "a.png")])
        folder = place_model(model, str(tmp_path / "out"))
        assert folder == pinned_uri(str(tmp_path / "out")) == str(tmp_path / "out" / "_stylejobs" / "model")
        assert load_package(folder, model.package_sha256).package == read_package(model.package_uri)

    def test_one_that_lies_there_already_stays(self, pin: Callable[..., PinnedModel], tmp_path: Path) -> None:
        folder = save_johnson(tmp_path / "out" / "_stylejobs" / "model")
        before = {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}
        assert place_model(pin(folder), str(tmp_path / "out")) == folder
        assert {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")} == before


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
