"""A model package: the folder that a trained, adopted or built-in generator is kept in.

    model.json                   network, options, styles, training, digests, schema version
    weights.safetensors          the generator's weights
    styles/styles.safetensors    one style code a style; the content match, where the model has one
    card.md                      for people

No pickle anywhere. The package's sha256 covers everything that decides an output pixel: network, options, style names
and the bytes of both safetensors files.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from stylejobs.core.match import Match
from stylejobs.core.networks import build_network
from stylejobs.errors import ModelError
from stylejobs.storage import locations
from stylejobs.storage.units import digest

PACKAGE_SCHEMA_VERSION = 1
CLASSIFIER = "classifier"
"""The network of packages that hold no generator; see classifiers.py."""

_RESERVED = "//"
_ORIGIN, _WHITENING, _TARGET = f"{_RESERVED}match/origin", f"{_RESERVED}match/whitening", f"{_RESERVED}match/target/"
"""Names of tensors beside the style codes; no style's name begins with //, so that they cannot be one."""


@dataclass(frozen=True)
class Package:
    """What a model is.

    Attributes:
        network: a name of `stylejobs.core.networks.NETWORKS`, or `CLASSIFIER`; `options` are what it is built with.
        styles: names of the styles that the model carries, in order.
        training: where it comes from: method, run, data, images seen; for people and lineage, no influence on pixels.
        sha256: identity of the package, see the module's text.
    """

    network: str
    options: dict
    styles: tuple[str, ...]
    training: dict = field(default_factory=dict)
    sha256: str = ""
    weights_sha256: str = ""
    styles_sha256: str = ""
    value_range: tuple[float, float] = (-1.0, 1.0)
    schema_version: int = PACKAGE_SCHEMA_VERSION


@dataclass(frozen=True)
class LoadedPackage:
    """A package in memory: the generator in evaluation mode and the code of each style, float32 [D].

    Attributes:
        match: chooses `strength=auto`; its targets are those of the styles that have one. None where nobody fitted it.
    """

    package: Package
    generator: torch.nn.Module
    styles: dict[str, Tensor]
    match: Match | None = None


def save_package(
    folder_uri: str,
    network: str,
    options: dict,
    weights: dict[str, Tensor],
    styles: dict[str, Tensor],
    training: dict,
    match: Match | None = None,
) -> Package:
    """Writes a package and returns its description with all digests; model.json is written last.

    Raises:
        ValueError: a style's name begins with `//`, which names of other tensors do.
    """
    reserved = [name for name in styles if name.startswith(_RESERVED)]
    if reserved:
        raise ValueError(f"wanted names of styles that do not begin with {_RESERVED}; got {reserved[0]!r}")
    stored = styles | _match_to_tensors(match, styles)
    weights_bytes = to_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    # Styles may share a code or a target; a file of safetensors holds no tensor twice.
    codes = {name: code.detach().cpu().float().contiguous().clone() for name, code in stored.items()}
    styles_bytes = to_safetensors(codes)
    weights_sha256 = hashlib.sha256(weights_bytes).hexdigest()
    styles_sha256 = hashlib.sha256(styles_bytes).hexdigest()
    package = Package(
        network=network,
        options=options,
        styles=tuple(styles),
        training=training,
        sha256=_identity(network, options, tuple(styles), weights_sha256, styles_sha256),
        weights_sha256=weights_sha256,
        styles_sha256=styles_sha256,
    )
    locations.write_atomic(locations.join(folder_uri, "weights.safetensors"), weights_bytes)
    locations.write_atomic(locations.join(folder_uri, "styles", "styles.safetensors"), styles_bytes)
    locations.write_atomic(locations.join(folder_uri, "card.md"), _card(package).encode())
    locations.write_atomic(locations.join(folder_uri, "model.json"), json.dumps(asdict(package), indent=1).encode())
    return package


def _identity(network: str, options: dict, styles: tuple[str, ...], weights_sha256: str, styles_sha256: str) -> str:
    return digest([PACKAGE_SCHEMA_VERSION, network, options, list(styles), weights_sha256, styles_sha256])


def read_package(folder_uri: str) -> Package:
    """The description of a package, without its weights.

    Raises:
        ModelError: the folder is missing, is not a package, or is of a version that this program does not know.
    """
    try:
        described = json.loads(locations.read_bytes(locations.join(folder_uri, "model.json")))
        version = dict(described)["schema_version"]
        if version != PACKAGE_SCHEMA_VERSION:
            raise ModelError(f"{folder_uri}: package version {version}, this program reads {PACKAGE_SCHEMA_VERSION}")
        return Package(**{**described, "styles": tuple(described["styles"]), "value_range": (-1.0, 1.0)})
    except FileNotFoundError:
        raise ModelError(f"{folder_uri}: not a model package (it has no model.json)") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{folder_uri}/model.json: not the description of a model package: {error}") from error


def check_package(folder_uri: str, sha256: str | None = None) -> Package:
    """The description of a package, after checking that it is the one that is wanted and that nobody altered it.

    Args:
        sha256: the identity that the job was planned with; None trusts the folder.

    Raises:
        ModelError: it is not, or was.
    """
    package = read_package(folder_uri)
    if sha256 is not None and package.sha256 != sha256:
        raise ModelError(f"{folder_uri}: wanted the model {sha256}, found {package.sha256}")
    identity = _identity(
        package.network, package.options, package.styles, package.weights_sha256, package.styles_sha256
    )
    if identity != package.sha256:
        raise ModelError(
            f"{folder_uri}/model.json was altered: its sha256 is {package.sha256}, its contents give {identity}"
        )
    return package


def load_package(folder_uri: str, sha256: str | None = None) -> LoadedPackage:
    """Loads a package after checking every digest.

    Args:
        sha256: the identity that the job was planned with; None trusts the folder.

    Raises:
        ModelError: something is missing, altered, or does not fit the network; or it is a classifier's package.
    """
    package = check_package(folder_uri, sha256)
    if package.network == CLASSIFIER:
        raise ModelError(
            f"{folder_uri}: is a classifier, which names what is in a picture and makes none; wanted a model that was "
            "trained with another method"
        )
    weights = read_weights(folder_uri, package)
    styles = _read_tensors(locations.join(folder_uri, "styles", "styles.safetensors"), package.styles_sha256)
    try:
        generator = build_network(package.network, **package.options)
        generator.load_state_dict(weights)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder_uri}: the weights do not fit network {package.network!r}: {error}") from error
    generator.eval().requires_grad_(False)
    codes = _codes(folder_uri, package, styles, generator.style_dim)
    return LoadedPackage(package, generator, codes, _match_from_tensors(folder_uri, package, styles))


def _match_to_tensors(match: Match | None, styles: dict[str, Tensor]) -> dict[str, Tensor]:
    if match is None:
        return {}
    targets = {f"{_TARGET}{name}": match.targets[name] for name in styles if name in match.targets}
    return {_ORIGIN: match.origin_D, _WHITENING: match.whitening_DD} | targets


def _match_from_tensors(folder_uri: str, package: Package, tensors: dict[str, Tensor]) -> Match | None:
    if _ORIGIN not in tensors:
        return None
    try:
        targets = {name: tensors[_TARGET + name] for name in package.styles if _TARGET + name in tensors}
        return Match(tensors[_ORIGIN], tensors[_WHITENING], targets)
    except (KeyError, ValueError) as error:
        raise ModelError(f"{folder_uri}: its content match is not whole: {error}") from error


def _codes(folder_uri: str, package: Package, styles: dict[str, Tensor], style_dim: int) -> dict[str, Tensor]:
    """The code of each style, of the length that the network takes."""
    for name in package.styles:
        if name not in styles:
            raise ModelError(
                f"{folder_uri}: style {name!r} has no code in styles.safetensors; the package is not whole"
            )
        if styles[name].shape != (style_dim,):
            raise ModelError(
                f"{folder_uri}: the code of style {name!r} does not fit network {package.network!r}: wanted shape "
                f"({style_dim},), found {tuple(styles[name].shape)}"
            )
    return {name: styles[name] for name in package.styles}


def read_weights(folder_uri: str, package: Package) -> dict[str, Tensor]:
    """The weights of a package that was checked.

    Raises:
        ModelError: they are missing or altered.
    """
    return _read_tensors(locations.join(folder_uri, "weights.safetensors"), package.weights_sha256)


def _read_tensors(uri: str, sha256: str) -> dict[str, Tensor]:
    try:
        data = locations.read_bytes(uri)
    except FileNotFoundError:
        raise ModelError(f"{uri}: missing; the package is not whole") from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(f"{uri}: was altered: wanted sha256 {sha256}, found {found}")
    try:
        return from_safetensors(data)
    except SafetensorError as error:
        raise ModelError(f"{uri}: not a safetensors file: {error}") from error


def copy_package(from_uri: str, to_uri: str) -> None:
    """Copies a package to where workers can read it."""
    for name in ("weights.safetensors", "styles/styles.safetensors", "card.md", "model.json"):
        try:
            locations.write_atomic(locations.join(to_uri, name), locations.read_bytes(locations.join(from_uri, name)))
        except FileNotFoundError:
            raise ModelError(f"{from_uri}/{name}: missing; the package is not whole") from None


def _card(package: Package) -> str:
    lines = [f"- {name}: {value}" for name, value in package.training.items()]
    holds = f"Styles: {', '.join(package.styles)}."
    if package.network == CLASSIFIER:
        holds = f"Classes: {', '.join(package.options['classes'])}. It makes no pictures."
    return "\n".join(
        [
            f"# {package.network}, {len(package.styles)} style(s)",
            "",
            f"{holds} Images are RGB in [-1, 1], any height and width.",
            f"sha256 {package.sha256}.",
            "",
            "## Training",
            *(lines or ["None: this model is computed from its style images."]),
            "",
        ]
    )
