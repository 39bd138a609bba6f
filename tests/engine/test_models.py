"""From `model=` and `styles=` to one pinned package; the registry is a stand-in (tests/tracking has the real one)."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stylejobs.engine import stylize
from stylejobs.engine.models import PinnedModel, pinned_uri, place_model, style_name
from stylejobs.errors import DriftError, ModelError, StorageError, StyleError
from stylejobs.storage.packages import load_package, read_package
from stylejobs.tracking import registry
from stylejobs.tracking.registry import ModelVersion
from tests.engine.pinning import save_johnson, save_moments, write_image

ALIAS = "models:/demo@champion"


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
