"""From `model=` and `styles=` to one pinned package: resolved once, when the job is planned."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor, nn

from stylejobs.core.match import style_target
from stylejobs.core.networks import NETWORKS, build_network
from stylejobs.core.pixels import to_float
from stylejobs.errors import DecodeError, ModelError, StyleError
from stylejobs.records.codec import Limits, decode_image
from stylejobs.records.lineage import parse_mix, random_seed
from stylejobs.storage import locations
from stylejobs.storage.packages import LoadedPackage, copy_package, load_package, read_package, save_package
from stylejobs.storage.units import read_json

BUILTIN = "builtin:"
REGISTERED = "models:/"


@dataclass(frozen=True)
class PinnedModel:
    """A model that cannot change any more.

    Attributes:
        uri: as the command names it; `name`, `version` and `sha256` say what it was resolved to.
        styles: sha256 of each style's code, by name, in order.
        package_uri: a package that holds exactly these styles; `package_sha256` is its identity.
        matched: the styles that `strength=auto` can be used with.
    """

    uri: str
    name: str
    version: str
    sha256: str
    styles: dict[str, str]
    package_uri: str
    package_sha256: str
    matched: tuple[str, ...]

    def described(self) -> dict:
        """The model in results and plans."""
        return {"uri": self.uri, "name": self.name, "version": self.version, "sha256": self.sha256}


def pin_model(uri: str, styles: Sequence[str] | None, dest: str, scratch: str, renew: bool = False) -> PinnedModel:
    """Resolves a model and its styles for a job that writes to `dest`.

    A job that goes on uses the package that it pinned in `dest` when it was planned: an alias that has moved since
    changes nothing.

    Args:
        uri: `models:/name@alias`, `models:/name/version`, a package folder, or `builtin:NAME`.
        styles: names that the model carries; for models that take any style, image URIs; for models that invent
            styles, `random:SEED`; for models with style codes, mixes of these, `monet:0.7+hokusai:0.3`. None for all
            that the model carries.
        scratch: a local folder for the package until `place_model` has copied it.
        renew: ask the registry where an alias stands now, whatever `dest` holds.

    Raises:
        ModelError, StyleError: one of them does not exist or cannot be used.
        RegistryError: the registry cannot be reached.
    """
    wanted = list(styles) if styles is not None else None
    plan = read_json(locations.join(locations.absolute(dest), "_stylejobs", "plan.json")) or {}
    is_planned = plan.get("model", {}).get("uri") == uri and plan.get("wanted_styles") == wanted
    is_alias = uri.startswith(REGISTERED) and "@" in uri
    if is_alias and is_planned and not renew and locations.exists(locations.join(pinned_uri(dest), "model.json")):
        return held_model(dest, plan)
    name, version, package_uri = find_package(uri, scratch)
    described = {"uri": uri, "name": name, "version": version, "sha256": read_package(package_uri).sha256}
    return _pinned(described, _with_styles(package_uri, wanted, os.path.join(scratch, "pinned"), uri))


def find_package(uri: str, scratch: str) -> tuple[str, str, str]:
    """Name, version and package of a model, which is the one that the registry has the sha256 of.

    Args:
        uri: as of `pin_model`.
        scratch: a local folder for the package of a registered or built-in model.

    Raises:
        ModelError: there is no such model, or its package is not the registered one.
        RegistryError: the registry cannot be reached.
    """
    if uri.startswith(BUILTIN):
        return uri.removeprefix(BUILTIN), "builtin", _builtin(uri, scratch)
    if uri.startswith(REGISTERED):
        return _registered(uri, scratch)
    return os.path.basename(uri.rstrip("/")), "", uri


def held_model(dest: str, plan: dict) -> PinnedModel:
    """The model of the job that `dest` holds, from the package that lies there; `plan` is its plan.json.

    Raises:
        ModelError: the package is damaged, or is not the one that the plan was made for.
    """
    model = _pinned(plan["model"], pinned_uri(dest))
    if model.package_sha256 != plan["package_sha256"]:
        raise ModelError(
            f"{pinned_uri(dest)}: sha256 {model.package_sha256}, the job was planned with {plan['package_sha256']}; "
            "somebody put another package there: put the old one back, or choose a new dest"
        )
    return model


def _pinned(described: dict, package_uri: str) -> PinnedModel:
    loaded = load_package(package_uri)
    styles = {name: hashlib.sha256(code.numpy().tobytes()).hexdigest() for name, code in loaded.styles.items()}
    matched = tuple(loaded.match.targets) if loaded.match else ()
    return PinnedModel(
        **described, styles=styles, package_uri=package_uri, package_sha256=loaded.package.sha256, matched=matched
    )


def pinned_uri(dest: str) -> str:
    """Where a job keeps its model: beside its output, so that workers, resumes and replays need no registry."""
    return locations.join(locations.absolute(dest), "_stylejobs", "model")


def place_model(model: PinnedModel, dest: str) -> str:
    """Copies the pinned package into `dest` and returns its URI."""
    folder = pinned_uri(dest)
    if model.package_uri != folder and not _holds(folder, model.package_sha256):
        copy_package(model.package_uri, folder)
    return folder


def _holds(folder: str, sha256: str) -> bool:
    """Whether a whole package of this identity lies there already."""
    try:
        return load_package(folder).package.sha256 == sha256
    except ModelError:
        return False


def _builtin(uri: str, folder: str) -> str:
    name = uri.removeprefix(BUILTIN)
    if name not in NETWORKS or not _is_training_free(name):
        known = [BUILTIN + network for network in NETWORKS if _is_training_free(network)]
        raise ModelError(f"model={uri}: no such built-in model; there is {', '.join(known)}")
    place = os.path.join(folder, "builtin")
    save_package(place, name, {}, build_network(name).state_dict(), {}, {})
    return place


def _is_training_free(network: str) -> bool:
    try:
        try:
            with torch.device("meta"):  # neither memory nor random numbers
                built = build_network(network)
        except RuntimeError:  # its constructor computes
            built = build_network(network)
    except ValueError:  # it cannot be built without options, which a built-in model has none of
        return False
    return not any(True for _ in built.parameters())


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
    codes: dict[str, Tensor] = {}
    targets: dict[str, Tensor] = {}
    for text in wanted:
        style = _style(text, loaded, uri)
        if style.name in codes:
            raise StyleError(f"styles=: two styles are called {style.name!r}; give the files different names")
        codes[style.name] = style.code_D
        if style.target_D is not None:
            targets[style.name] = style.target_D
    package, weights = loaded.package, loaded.generator.state_dict()
    match = loaded.match.with_targets(targets) if loaded.match else None
    save_package(folder, package.network, package.options, weights, codes, package.training, match)
    return folder


@dataclass(frozen=True)
class _Style:
    """A style as a job uses it; `target_D` is what `strength=auto` compares with, None where there is nothing."""

    name: str
    code_D: Tensor
    target_D: Tensor | None


def _style(text: str, loaded: LoadedPackage, uri: str) -> _Style:
    """One item of `styles=`: a style, or a mix. Codes and targets mix linearly."""
    parts = ((text, 1.0),) if text in loaded.styles else parse_mix(text)
    if len(parts) == 1:
        return _pure_style(text, loaded, uri)
    if loaded.generator.style_dim == 0:
        raise StyleError(f"styles={text}: model={uri} has its style in its weights; it has no style codes to mix")
    pure = [(_pure_style(style, loaded, uri), weight) for style, weight in parts]
    # What stands behind a style, its weight, is kept letter by letter.
    weights = [part[len(style) :] for part, (style, _) in zip(text.split("+"), parts, strict=True)]
    name = "+".join(style.name + weight for (style, _), weight in zip(pure, weights, strict=True))
    code_D = torch.stack([weight * style.code_D for style, weight in pure]).sum(dim=0)
    targets = [weight * style.target_D for style, weight in pure if style.target_D is not None]
    return _Style(name, code_D, torch.stack(targets).sum(dim=0) if len(targets) == len(pure) else None)


def _pure_style(style: str, loaded: LoadedPackage, uri: str) -> _Style:
    generator, match = loaded.generator, loaded.match
    if style in loaded.styles:
        return _Style(style, loaded.styles[style], match.targets.get(style) if match else None)
    if style.startswith("random:"):
        return _Style(style, _draw_style(style, generator, uri), None)
    if not hasattr(generator, "encode_style"):
        near = get_close_matches(style, loaded.styles, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StyleError(f"styles={style}: model={uri} carries {', '.join(loaded.styles)} and no other{hint}")
    image_1CHW = read_style(style)
    target_D = style_target(match, [image_1CHW]) if match else None
    return _Style(style_name(style), generator.encode_style(image_1CHW)[0], target_D)


def _draw_style(style: str, generator: nn.Module, uri: str) -> Tensor:
    seed = random_seed(style)
    if not hasattr(generator, "draw_style"):
        raise StyleError(f"styles={style}: model={uri} cannot invent styles; only exemplar and style_modulated do")
    if seed is None or seed >= 2**63:
        raise StyleError(f"styles={style}: wanted random:SEED, a whole number below 2^63")
    return generator.draw_style(seed)


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
