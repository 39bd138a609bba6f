"""From `model=` and `styles=` to one pinned package: resolved once, when the job is planned."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from stylejobs.core.networks import NETWORKS, build_network
from stylejobs.core.pixels import to_float
from stylejobs.errors import DecodeError, ModelError, StyleError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.storage import locations
from stylejobs.storage.packages import copy_package, load_package, read_package, save_package
from stylejobs.storage.units import read_json

BUILTIN = "builtin:"
REGISTERED = "models:/"


@dataclass(frozen=True)
class PinnedModel:
    """A model that cannot change any more.

    Attributes:
        uri: as the command names it; `name` and `version` say what it was resolved to.
        package_uri: a package that holds exactly `styles`.
        sha256: of that package: network, weights and style codes.
    """

    uri: str
    name: str
    version: str
    sha256: str
    styles: tuple[str, ...]
    package_uri: str

    def described(self) -> dict:
        return {"uri": self.uri, "name": self.name, "version": self.version, "sha256": self.sha256}


def pin_model(uri: str, styles: Sequence[str] | None, dest: str) -> PinnedModel:
    """Resolves a model and its styles for a job that writes to `dest`.

    A job that goes on uses the package that it pinned in `dest` when it was planned: an alias that has moved since
    changes nothing.

    Args:
        uri: `models:/name@alias`, `models:/name/version`, a package folder, or `builtin:NAME`.
        styles: names that the model carries or, for models that take any style, image URIs; None for all it carries.

    Raises:
        ModelError, StyleError: one of them does not exist or cannot be used.
        RegistryError: the registry cannot be reached.
    """
    wanted = list(styles) if styles is not None else None
    kept = read_json(locations.join(locations.absolute(dest), "_stylejobs", "plan.json")) or {}
    if "@" in uri and kept.get("model", {}).get("uri") == uri and kept.get("wanted_styles") == wanted:
        folder = pinned_uri(dest)
        package = read_package(folder)
        return PinnedModel(**kept["model"], styles=package.styles, package_uri=folder)
    folder = tempfile.mkdtemp(prefix="stylejobs-model-")
    if uri.startswith(BUILTIN):
        name, version, package_uri = uri.removeprefix(BUILTIN), "builtin", _builtin(uri, folder)
    elif uri.startswith(REGISTERED):
        name, version, package_uri = _registered(uri, folder)
    else:
        name, version, package_uri = os.path.basename(uri.rstrip("/")), "", uri
    package_uri = _with_styles(package_uri, wanted, os.path.join(folder, "pinned"), uri)
    package = read_package(package_uri)
    return PinnedModel(uri, name, version, package.sha256, package.styles, package_uri)


def pinned_uri(dest: str) -> str:
    """Where a job keeps its model: beside its output, so that workers, resumes and replays need no registry."""
    return locations.join(locations.absolute(dest), "_stylejobs", "model")


def place_model(model: PinnedModel, dest: str) -> str:
    """Copies the pinned package into `dest` and returns its URI."""
    folder = pinned_uri(dest)
    if model.package_uri != folder:
        copy_package(model.package_uri, folder)
    return folder


def _builtin(uri: str, folder: str) -> str:
    name = uri.removeprefix(BUILTIN)
    if name not in NETWORKS or not _is_training_free(name):
        known = [BUILTIN + network for network in NETWORKS if _is_training_free(network)]
        raise ModelError(f"model={uri}: no such built-in model; there is {', '.join(known)}")
    place = os.path.join(folder, "builtin")
    save_package(place, name, {}, build_network(name).state_dict(), {}, {})
    return place


def _is_training_free(network: str) -> bool:
    return not any(True for _ in build_network(network).parameters())


def _registered(uri: str, folder: str) -> tuple[str, str, str]:
    from stylejobs.tracking.registry import download_package, resolve_version

    version = resolve_version(uri)
    place = download_package(version, os.path.join(folder, "registered"))
    package = read_package(place)
    if version.sha256 and package.sha256 != version.sha256:
        raise ModelError(
            f"{uri}: version {version.version} was registered with sha256 {version.sha256}, its package has "
            f"{package.sha256}; somebody changed it: register it again"
        )
    return version.name, version.version, place


def _with_styles(package_uri: str, wanted: list[str] | None, folder: str, uri: str) -> str:
    """A package that holds exactly the wanted styles: the given one, or a new one with other codes."""
    loaded = load_package(package_uri)
    carried = loaded.styles
    if wanted is None or wanted == list(carried):
        if not carried:
            raise StyleError(f"model={uri} carries no styles: name style images with styles=URI,URI")
        return package_uri
    encode = getattr(loaded.generator, "encode_style", None)
    codes: dict[str, Tensor] = {}
    for style in wanted:
        if style in carried:
            name, code = style, carried[style]
        elif encode is None:
            near = get_close_matches(style, carried, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StyleError(f"styles={style}: model={uri} carries {', '.join(carried)} and no other{hint}")
        else:
            name, code = style_name(style), encode(read_style(style))[0]
        if name in codes:
            raise StyleError(f"styles=: two styles are called {name!r}; give the files different names")
        codes[name] = code
    package = loaded.package
    save_package(folder, package.network, package.options, loaded.generator.state_dict(), codes, package.training)
    return folder


def style_name(uri: str) -> str:
    """The name of a style that is given as an image: its file name without the ending."""
    return os.path.splitext(os.path.basename(uri.rstrip("/")))[0]


def read_style(uri: str, limits: Limits | None = None) -> Tensor:
    """A style image as float32 [1, 3, H, W] in [-1, 1].

    Raises:
        StyleError: it is missing or not an image that we read.
    """
    try:
        pixels_HWC = decode_image(locations.read_bytes(uri), limits or Limits())
    except (FileNotFoundError, IsADirectoryError):
        raise StyleError(f"style {uri}: no such file; wanted an image") from None
    except DecodeError as error:
        raise StyleError(f"style {uri}: not an image that we read: {error}") from error
    return to_float(torch.from_numpy(np.ascontiguousarray(pixels_HWC))[None])
