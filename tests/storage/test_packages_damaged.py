"""Packages that were altered, swapped or do not fit their network: each is refused and says why."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from stylejobs.core.networks import build_network
from stylejobs.errors import ModelError
from stylejobs.storage.packages import load_package, read_package, save_package
from tests.storage.packing import TINY, describe, draw, restamp, save_johnson, save_moments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package folder of a tiny Johnson."""
    save_johnson(tmp_path / "package")
    return tmp_path / "package"


def _flip(name: str, at: int) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1
        (folder / name).write_bytes(data)

    return tamper


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(text.encode("latin-1"))


class TestTampering:
    @pytest.mark.parametrize(
        ("tamper", "said"),
        [
            (_flip("weights.safetensors", -1), r"weights\.safetensors: was altered: wanted sha256"),
            (_flip("weights.safetensors", 20), r"weights\.safetensors: was altered"),
            (_flip("styles/styles.safetensors", -3), r"styles\.safetensors: was altered"),
            (_write("weights.safetensors", ""), "was altered"),
            (describe(network="moments"), r"model\.json was altered"),
            (describe(options={"width": 8, "blocks": 1}), r"model\.json was altered"),
            (describe(options=None), r"model\.json was altered"),
            (describe(styles=["manet"]), r"model\.json was altered"),
            (describe(styles=["monet", "manet"]), r"model\.json was altered"),
            (describe(sha256="0" * 64), r"model\.json was altered"),
            (describe(weights_sha256="0" * 64), r"model\.json was altered"),
            (describe(styles_sha256=None), r"model\.json was altered"),
            (describe(schema_version=2), "package version 2, this program reads 1"),
            (describe(surprise=1), "not the description of a model package"),
            (describe(styles=None), "not the description of a model package"),
            (_write("model.json", "{"), "not the description of a model package"),
            (_write("model.json", "[]"), "not the description of a model package"),
            (_write("model.json", "\xff"), "not the description of a model package"),
            (lambda folder: (folder / "model.json").unlink(), r"not a model package \(it has no model.json\)"),
            (lambda folder: (folder / "weights.safetensors").unlink(), r"weights\.safetensors: missing"),
            (lambda folder: shutil.rmtree(folder / "styles"), r"styles\.safetensors: missing"),
            (lambda folder: shutil.rmtree(folder), "not a model package"),
        ],
    )
    def test_it_is_caught_and_named(self, folder: Path, tamper: Callable[[Path], object], said: str) -> None:
        load_package(str(folder))
        tamper(folder)
        with pytest.raises(ModelError, match=said):
            load_package(str(folder))

    @pytest.mark.parametrize("at", range(0, 2000, 97))
    @pytest.mark.parametrize("name", ["weights.safetensors", "styles/styles.safetensors"])
    def test_any_byte_of_the_tensors(self, folder: Path, name: str, at: int) -> None:
        _flip(name, at % (folder / name).stat().st_size)(folder)
        with pytest.raises(ModelError, match="was altered"):
            load_package(str(folder))

    def test_another_package_in_its_place(self, folder: Path) -> None:
        planned = read_package(str(folder)).sha256
        save_johnson(folder, seed=1)
        load_package(str(folder))
        with pytest.raises(ModelError, match=f"wanted the model {planned}, found"):
            load_package(str(folder), planned)

    def test_weights_of_another_package_with_their_digest(self, folder: Path, tmp_path: Path) -> None:
        other = save_johnson(tmp_path / "other", seed=1)
        shutil.copy(tmp_path / "other" / "weights.safetensors", folder / "weights.safetensors")
        describe(weights_sha256=other.weights_sha256)(folder)
        with pytest.raises(ModelError, match=r"model\.json was altered"):
            load_package(str(folder))

    def test_a_file_in_place_of_the_folder(self, folder: Path) -> None:
        with pytest.raises(ModelError, match="not a model package"):
            load_package(str(folder / "card.md"))

    def test_a_package_of_a_later_version_is_called_that(self, folder: Path) -> None:
        describe(schema_version=2, tile_px=512)(folder)
        with pytest.raises(ModelError, match="package version 2, this program reads 1"):
            load_package(str(folder))


class TestUnfitting:
    """Packages with right digests that were made wrong."""

    @pytest.mark.parametrize(
        ("network", "options"),
        [("johnson", {"width": 8, "blocks": 1}), ("johnson", {"depth": 1}), ("nobody2030", {}), ("moments", {})],
    )
    def test_weights_that_do_not_fit_the_network(self, tmp_path: Path, network: str, options: dict) -> None:
        weights = build_network("johnson", **TINY).state_dict()
        save_package(str(tmp_path), network, options, weights, {}, {})
        with pytest.raises(ModelError, match=f"the weights do not fit network '{network}'"):
            load_package(str(tmp_path))

    def test_tensors_that_are_no_safetensors_file(self, tmp_path: Path) -> None:
        from stylejobs.storage.packages import _identity

        package = save_johnson(tmp_path)
        torch_bytes = b"not tensors at all"
        sha256 = hashlib.sha256(torch_bytes).hexdigest()
        (tmp_path / "weights.safetensors").write_bytes(torch_bytes)
        identity = _identity("johnson", TINY, ("monet",), sha256, package.styles_sha256)
        describe(weights_sha256=sha256, sha256=identity)(tmp_path)
        with pytest.raises(ModelError, match="not a safetensors file"):
            load_package(str(tmp_path))

    def test_a_style_that_has_no_code(self, tmp_path: Path) -> None:
        save_moments(tmp_path, {"a": draw(6), "b": draw(6)})
        save_file({"a": draw(6)}, tmp_path / "styles" / "styles.safetensors")
        restamp(tmp_path)
        with pytest.raises(ModelError, match="'b'"):
            load_package(str(tmp_path))

    def test_a_code_of_the_wrong_length(self, tmp_path: Path) -> None:
        save_moments(tmp_path, {"a": draw(5)})
        with pytest.raises(ModelError, match="'a'"):
            load_package(str(tmp_path))
