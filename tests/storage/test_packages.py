"""Model packages: what is saved is loaded, and every change to what decides a pixel is caught."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylejobs.core.match import EMBEDDING_LENGTH
from stylejobs.core.networks import build_network
from stylejobs.errors import ModelError
from stylejobs.storage.packages import copy_package, load_package, read_package, save_package
from tests.storage.packing import FILES, TINY, draw, make_match, restamp, save_johnson, save_moments


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package folder of a tiny Johnson."""
    save_johnson(tmp_path / "package")
    return tmp_path / "package"


class TestRoundTrip:
    def test_a_network_with_weights(self, tmp_path: Path) -> None:
        torch.manual_seed(3)
        network = build_network("johnson", **TINY)
        training = {"method": "fast", "run": "abc", "images_seen": 12}
        styles = {"monet": torch.zeros(0)}
        package = save_package(str(tmp_path), "johnson", TINY, network.state_dict(), styles, training)
        loaded = load_package(str(tmp_path), package.sha256)
        assert loaded.package == package == read_package(str(tmp_path))
        assert (package.network, package.options, package.styles) == ("johnson", TINY, ("monet",))
        assert package.training == training and len(package.sha256) == 64
        assert loaded.generator.state_dict().keys() == network.state_dict().keys()
        assert all(torch.equal(loaded.generator.state_dict()[n], t) for n, t in network.state_dict().items())
        content_BCHW = draw(2, 3, 17, 21)
        with torch.no_grad():
            wanted = network.eval()(content_BCHW, torch.zeros(2, 0))
            found = loaded.generator(content_BCHW, torch.stack([loaded.styles["monet"]] * 2))
        assert torch.equal(found, wanted)

    def test_a_network_without_weights_keeps_its_style_codes_in_order(self, tmp_path: Path) -> None:
        codes = {name: draw(6, seed=seed) for seed, name in enumerate(["zebra", "ångström", "a/b.c", "monet"])}
        package = save_moments(tmp_path, codes)
        loaded = load_package(str(tmp_path))
        assert package.styles == tuple(loaded.styles) == tuple(codes)
        assert all(torch.equal(loaded.styles[name], code) for name, code in codes.items())
        assert loaded.generator(draw(4, 3, 8, 9), torch.stack(list(loaded.styles.values()))).shape == (4, 3, 8, 9)

    def test_styles_that_share_a_tensor(self, tmp_path: Path) -> None:
        code = torch.arange(6.0)
        save_package(str(tmp_path), "moments", {}, {}, {"a": code, "b": code}, {})
        styles = load_package(str(tmp_path)).styles
        assert torch.equal(styles["a"], code) and torch.equal(styles["b"], code)

    def test_a_package_may_carry_no_styles(self, tmp_path: Path) -> None:
        save_moments(tmp_path, {})
        assert load_package(str(tmp_path)).styles == {}

    def test_codes_come_back_as_float32_without_gradients(self, tmp_path: Path) -> None:
        code = draw(6).double().requires_grad_()
        save_moments(tmp_path, {"a": code})
        loaded = load_package(str(tmp_path)).styles["a"]
        assert loaded.dtype == torch.float32 and not loaded.requires_grad
        assert torch.equal(loaded, code.detach().float())

    def test_the_generator_is_ready_for_use(self, folder: Path) -> None:
        generator = load_package(str(folder)).generator
        assert not generator.training and not any(p.requires_grad for p in generator.parameters())

    def test_options_are_those_of_the_network(self, tmp_path: Path) -> None:
        save_johnson(tmp_path)
        (width, *_), *_ = [tuple(t.shape) for t in load_package(str(tmp_path)).generator.state_dict().values()]
        assert width == TINY["width"]

    def test_a_copy_is_the_same_package(self, folder: Path, tmp_path: Path) -> None:
        copy_package(str(folder), str(tmp_path / "copy"))
        assert load_package(str(tmp_path / "copy")).package == load_package(str(folder)).package
        assert {name: (tmp_path / "copy" / name).read_bytes() for name in FILES} == {
            name: (folder / name).read_bytes() for name in FILES
        }

    @pytest.mark.parametrize("name", FILES)
    def test_half_a_package_is_not_copied_and_says_so(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ModelError, match=f"{name}: missing; the package is not whole"):
            copy_package(str(folder), str(tmp_path / "copy"))
        with pytest.raises(ModelError):
            load_package(str(tmp_path / "copy"))


def test_the_files_of_a_package_are_these_and_none_is_a_pickle(folder: Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    assert [str(path.relative_to(folder)) for path in paths] == FILES
    # Pickles of protocol 2 and later begin with 0x80; torch.save wraps one in a zip.
    assert not [path for path in paths if path.read_bytes()[:1] == b"\x80" or path.read_bytes()[:2] == b"PK"]
    assert load_file(folder / "weights.safetensors").keys() == build_network("johnson", **TINY).state_dict().keys()
    card = (folder / "card.md").read_text()
    assert "steps: 10" in card and "monet" in card and read_package(str(folder)).sha256 in card


CODES = {"zebra": draw(6), "match/origin": draw(6, seed=1), "targets": draw(6, seed=2)}


class TestMatch:
    """The content match lies beside the style codes."""

    def test_it_comes_back_with_the_targets_of_the_styles_that_have_one(self, tmp_path: Path) -> None:
        match = make_match("zebra", "targets", "of no style")
        package = save_package(str(tmp_path), "moments", {}, {}, CODES, {}, match)
        loaded = load_package(str(tmp_path), package.sha256)
        assert package.styles == tuple(loaded.styles) == tuple(CODES)
        assert all(torch.equal(loaded.styles[name], code) for name, code in CODES.items())
        assert list(loaded.match.targets) == ["zebra", "targets"]
        assert torch.equal(loaded.match.origin_D, match.origin_D)
        assert torch.equal(loaded.match.whitening_DD, match.whitening_DD)
        assert all(torch.equal(target, match.targets[name]) for name, target in loaded.match.targets.items())

    def test_a_package_without_one_says_so_and_has_the_identity_that_it_always_had(self, tmp_path: Path) -> None:
        codes = {"zebra": torch.arange(6.0) / 7, "ångström": -torch.arange(6.0) / 3}
        package = save_moments(tmp_path, codes)
        assert load_package(str(tmp_path)).match is None
        # Written by version 0.1.0, which knew no content match.
        assert package.sha256 == "002ecc7abb632667b77da5319f6775b0ffc1d27b7cf8d9b34793540d8d2be6a0"
        assert package.styles_sha256 == "630834d972db640b635c908959192ef85efaee520341e2d902078bd457e6f22b"

    def test_it_is_part_of_the_identity(self, tmp_path: Path) -> None:
        matches = [None, make_match(), make_match("zebra"), make_match("zebra", "targets"), make_match("zebra")]
        shas = [
            save_package(str(tmp_path / str(n)), "moments", {}, {}, CODES, {}, match).sha256
            for n, match in enumerate(matches)
        ]
        assert len(set(shas[:4])) == 4 and shas[4] == shas[2]

    def test_a_style_cannot_take_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="do not begin with //; got '//match/origin'"):
            save_moments(tmp_path, {"//match/origin": draw(EMBEDDING_LENGTH)})
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("change", ["missing", "short"])
    def test_half_of_one_is_refused(self, tmp_path: Path, change: str) -> None:
        save_package(str(tmp_path), "moments", {}, {}, CODES, {}, make_match("zebra"))
        path = tmp_path / "styles" / "styles.safetensors"
        tensors = load_file(path)
        if change == "missing":
            del tensors["//match/whitening"]
        else:
            tensors["//match/target/zebra"] = tensors["//match/target/zebra"][:5].clone()
        save_file(tensors, path)
        restamp(tmp_path)
        with pytest.raises(ModelError, match="its content match is not whole"):
            load_package(str(tmp_path))


class TestIdentity:
    def test_saving_again_gives_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        again = save_johnson(tmp_path / "again")
        assert again == read_package(str(folder))
        assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in FILES)

    @pytest.mark.parametrize(
        "changes",
        [
            {"seed": 1},
            {"options": {"width": 4, "blocks": 1, "extra": 0}},
            {"styles": {"manet": torch.zeros(0)}},
            {"styles": {"monet": torch.zeros(1)}},
            {"styles": {}},
        ],
        ids=["weights", "options", "name", "code", "none"],
    )
    def test_it_changes_with_all_that_decides_a_pixel(self, folder: Path, tmp_path: Path, changes: dict) -> None:
        assert save_johnson(tmp_path / "other", **changes).sha256 != read_package(str(folder)).sha256

    def test_it_changes_with_one_bit_of_a_style_code_and_with_the_order_of_styles(self, tmp_path: Path) -> None:
        codes = {"a": draw(6), "b": draw(6, seed=1)}
        nudged = {**codes, "b": torch.nextafter(codes["b"], torch.tensor(2.0))}
        swapped = {"b": codes["b"], "a": codes["a"]}
        shas = [save_moments(tmp_path / str(n), c).sha256 for n, c in enumerate([codes, nudged, swapped, dict(codes)])]
        assert len(set(shas[:3])) == 3 and shas[3] == shas[0]

    def test_training_notes_do_not_change_it(self, folder: Path, tmp_path: Path) -> None:
        other = save_johnson(tmp_path / "other", training={"method": "by hand", "steps": 7})
        assert other.sha256 == read_package(str(folder)).sha256
        described = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**described, "training": {"run": "another"}}))
        assert load_package(str(folder), other.sha256).package.training == {"run": "another"}
