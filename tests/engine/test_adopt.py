"""Adopting into a real registry: every family, digests, what is refused and what it says, and export back."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stylejobs.config.schema import AdoptConfig, ExportConfig
from stylejobs.engine.adopt import adopt
from stylejobs.engine.export import export
from stylejobs.engine.models import find_package, pin_model
from stylejobs.engine.results import JobResult
from stylejobs.errors import ModelError, RegistryError, StorageError, StyleError
from stylejobs.storage.packages import LoadedPackage, load_package, save_package
from stylejobs.tracking.client import open_client
from stylejobs.tracking.registry import resolve_version
from tests.core.originals import (
    PublicFast,
    PublicResnet,
    PublicStarGan,
    draw_adain,
    draw_images,
    draw_weights,
    public_adain,
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tracking_store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    return tmp_path


def adopted(family: str, checkpoint: str = "net.pth", name: str = "adopted", **keys: object) -> JobResult:
    return adopt(AdoptConfig(family=family, checkpoint=checkpoint, name=name, **keys))


def fetched(result: JobResult, scratch: Path) -> LoadedPackage:
    """What a job gets that names the version."""
    _, _, package_uri = find_package(result.model["uri"], str(scratch / "fetched"))
    return load_package(package_uri, result.model["sha256"])


def sha256_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_cyclegan(path: str = "net.pth", seed: int = 0) -> PublicResnet:
    original = draw_weights(PublicResnet(), seed).eval()
    torch.save(original.state_dict(), path)
    return original


def test_a_version_is_registered_with_its_origin_and_gives_the_originals_pictures(place: Path, tracking_store: str):
    original = write_cyclegan()
    result = adopted("cyclegan", name="vintage", sha256=sha256_of("net.pth"))
    assert result.exit_code == 0 and result.model["name"] == "vintage"
    version = resolve_version("models:/vintage@candidate")
    assert (version.uri, version.sha256) == (result.model["uri"], result.model["sha256"])
    assert version.run_id == result.mlflow["run_id"]
    client = open_client(tracking_store)
    tags = client.get_model_version("vintage", version.version).tags
    assert tags["checkpoint_sha256"] == sha256_of("net.pth") and tags["family"] == "cyclegan"
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["stylejobs.verb"] == "adopt"
    assert run.data.params["network.upsample"] == "transposed"
    loaded = fetched(result, place)
    assert loaded.package.training["checkpoint_sha256"] == sha256_of("net.pth")
    assert list(loaded.styles) == ["vintage"]
    content = draw_images(1, 3, 40, 32)
    with torch.no_grad():
        found = loaded.generator(content, loaded.styles["vintage"][None])
        torch.testing.assert_close(found, original(content), rtol=0, atol=1e-5)


def test_fast_from_safetensors_whatever_its_name(place: Path):
    original = draw_weights(PublicFast()).eval()
    save_file(original.state_dict(), "mosaic.model")
    loaded = fetched(adopted("fast", "mosaic.model", styles=("mosaic",)), place)
    content = draw_images(1, 3, 20, 24)
    with torch.no_grad():
        pixels = original((content + 1) * 127.5).clamp(0, 255)
        found = loaded.generator(content, loaded.styles["mosaic"][None])
    torch.testing.assert_close(found, pixels / 127.5 - 1, rtol=0, atol=1e-5)


def test_the_domains_of_stargan_are_styles_in_their_order(place: Path):
    original = draw_weights(PublicStarGan(domains=3)).train()
    torch.save({f"module.{key}": value for key, value in original.state_dict().items()}, "200000-G.ckpt")
    loaded = fetched(adopted("stargan", "200000-G.ckpt", styles=("black", "blond", "brown")), place)
    content = draw_images(1, 3, 24, 24)
    for number, name in enumerate(("black", "blond", "brown")):
        with torch.no_grad():
            wanted = original(content, torch.eye(3)[number : number + 1])
            found = loaded.generator(content, loaded.styles[name][None])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    with pytest.raises(StyleError, match="a name for each of the checkpoint's 3 domains, in their order; got 2"):
        adopted("stargan", "200000-G.ckpt", styles=("black", "blond"))


def test_adain_is_two_files_and_images_of_styles(place: Path):
    vgg, decoder = draw_adain()
    torch.save(vgg.state_dict(), "vgg.pth")
    torch.save(decoder.state_dict(), "decoder.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save("waves.png")
    files = {"encoder": "vgg.pth", "encoder_sha256": sha256_of("vgg.pth"), "styles": ("waves.png",)}
    result = adopted("adain", "decoder.pth", **files)
    assert result.details["encoder_sha256"] == sha256_of("vgg.pth")
    loaded = fetched(result, place)
    content = draw_images(1, 3, 32, 40)
    style = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        image = public_adain(vgg, decoder, (content + 1) / 2, style).clamp(0, 1)
        found = loaded.generator(content, loaded.styles["waves"][None])
    torch.testing.assert_close(found, 2 * image - 1, rtol=0, atol=1e-5)
    with pytest.raises(ModelError, match=r"encoder=vgg\.pth: wanted sha256 0000"):
        adopted("adain", "decoder.pth", **{**files, "encoder_sha256": "0" * 64})
    with pytest.raises(StyleError, match=r"style absent\.png: no such file"):
        adopted("adain", "decoder.pth", **{**files, "styles": ("absent.png",)})


class Payload:
    """Something whose loading runs code: it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_a_checkpoint_that_runs_code_when_it_is_loaded_is_not_run(place: Path, kind: str):
    canary = place / "canary"
    poisoned = {**draw_weights(PublicResnet()).state_dict(), "model.99.weight": Payload(canary)}
    if kind == "pickle":
        Path("net.pth").write_bytes(pickle.dumps(poisoned))
        pickle.loads(Path("net.pth").read_bytes())
    else:
        torch.save(poisoned, "net.pth", _use_new_zipfile_serialization=kind == "torch")
        torch.load("net.pth", weights_only=False)
    assert canary.exists(), "this file is not what the test is about"
    canary.unlink()
    with pytest.raises(ModelError, match=r"checkpoint=net\.pth: not a file of plain tensors"):
        adopted("cyclegan", name="poisoned")
    assert not canary.exists()
    with pytest.raises(ModelError, match="does not exist"):
        resolve_version("models:/poisoned@candidate")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "not a file of plain tensors"),
        (b"not even weights" * 9, "not a file of plain tensors"),
        (b"\x10\0\0\0\0\0\0\0{not safetensors", "not a safetensors file"),
    ],
)
def test_what_is_no_checkpoint(content: bytes | None, said: str):
    if content is not None:
        Path("net.pth").write_bytes(content)
    with pytest.raises(ModelError, match=rf"checkpoint=net\.pth: {said}"):
        adopted("cyclegan")


@pytest.mark.parametrize("thing", [{"epoch": 3}, [torch.ones(1)], {0: torch.ones(1)}])
def test_a_file_of_other_things_is_no_state_dict(thing: object):
    torch.save(thing, "net.pth")
    with pytest.raises(ModelError, match="wanted a state dict"):
        adopted("cyclegan")


def test_another_digest_is_refused_before_parsing():
    Path("net.pth").write_bytes(b"not even weights")
    with pytest.raises(ModelError, match=r"checkpoint=net\.pth: wanted sha256 0000.*got [0-9a-f]{64}"):
        adopted("cyclegan", sha256="0" * 64)


def test_another_family_is_named_and_nothing_is_registered():
    write_cyclegan()
    with pytest.raises(ModelError, match=r"family fast; its keys look like those of family cyclegan(.|\n)*missing"):
        adopted("fast", name="nothing")
    with pytest.raises(ModelError, match="does not exist"):
        resolve_version("models:/nothing@candidate")


def test_weights_that_overflow_are_refused():
    original = draw_weights(PublicResnet())
    with torch.no_grad():
        original.model[1].weight.fill_(1e30)
        original.model[1].bias.fill_(1e38)
    torch.save(original.state_dict(), "net.pth")
    with pytest.raises(ModelError, match="gives NaN or infinity for a plain picture"):
        adopted("cyclegan")


def test_a_registry_that_is_away(monkeypatch: pytest.MonkeyPatch):
    write_cyclegan()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="wanted the MLflow server"):
        adopted("cyclegan")


def test_a_storage_that_is_away(monkeypatch: pytest.MonkeyPatch):
    from stylejobs.storage import locations, s3_client

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    options = {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1}}
    monkeypatch.setattr(s3_client, "OPTIONS", options)  # instead of minutes of patience
    locations._filesystem.cache_clear()
    with pytest.raises(StorageError, match=r"cannot read s3://models/net\.pth"):
        adopted("cyclegan", "s3://models/net.pth")
    locations._filesystem.cache_clear()


def _weights_of(tracking_store: str, result: JobResult) -> Path:
    """The weights file of a version in the registry's own files."""
    client = open_client(tracking_store)
    place = client.get_model_version_download_uri(result.model["name"], result.model["version"])
    return next(Path(place.removeprefix("file://")).rglob("weights.safetensors"))


def test_weights_that_were_altered_in_the_registry_are_refused(place: Path, tracking_store: str):
    write_cyclegan()
    result = adopted("cyclegan", name="altered")
    weights = _weights_of(tracking_store, result)
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"weights\.safetensors: was altered: wanted sha256"):
        pin_model(result.model["uri"], None, str(place / "out"), str(place / "scratch"))


def test_another_package_in_the_registrys_files_is_refused_by_the_tag(place: Path, tracking_store: str):
    write_cyclegan()
    result = adopted("cyclegan", name="swapped")
    package = _weights_of(tracking_store, result).parent
    loaded = load_package(str(package))
    weights = {key: value + 0.001 for key, value in loaded.generator.state_dict().items()}
    save_package(str(package), "resnet", loaded.package.options, weights, loaded.styles, {})
    load_package(str(package))  # whole in itself
    with pytest.raises(ModelError, match=r"was registered with sha256 .* somebody changed it"):
        pin_model(result.model["uri"], None, str(place / "out"), str(place / "scratch"))


@pytest.mark.parametrize("blurs", [(False, False), (True, True)])
def test_what_is_exported_is_the_checkpoint_and_adopts_as_the_same_version(place: Path, blurs: tuple[bool, bool]):
    original = draw_weights(PublicResnet(blurs=blurs))
    torch.save(original.state_dict(), "net.pth")
    first = adopted("cut", name="there")
    written = export(ExportConfig(model=first.model["uri"], out=str(place / "back" / "net_G.safetensors")))
    exported = load_file(written.details["out"])
    state = original.state_dict()
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)
    assert written.details["out_sha256"] == sha256_of(written.details["out"])
    again = adopted("cut", written.details["out"], name="there")
    assert again.model["sha256"] == first.model["sha256"] and again.model["version"] != first.model["version"]


def test_other_networks_are_not_exported(place: Path):
    save_package(str(place / "moments"), "moments", {}, {}, {"red": torch.zeros(6)}, {})
    with pytest.raises(ModelError, match="only resnet models can be exported; this is a moments"):
        export(ExportConfig(model=str(place / "moments"), out="x.safetensors"))
    from stylejobs.core.networks import build_network

    weights = build_network("resnet", width=4, blocks=1).state_dict()
    save_package(str(place / "own"), "resnet", {"width": 4, "blocks": 1}, weights, {"a": torch.zeros(0)}, {})
    with pytest.raises(ModelError, match="has no upsample=nearest"):
        export(ExportConfig(model=str(place / "own"), out="x.safetensors"))
    assert not (place / "x.safetensors").exists()
