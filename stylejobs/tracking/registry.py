"""The model registry: versions that never change. The aliases that move between them are in aliases.py.

A package is registered as an MLflow pyfunc from code: the folder, the file that MLflow runs to load it, and this
package's source. No pickle is written, so a version loads where MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false. All
functions talk to `client.tracking_uri()`.
"""

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylejobs.errors import ModelError
from stylejobs.tracking.client import error_code, is_missing, is_permanent, open_client, reaching, redact, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow", "pyarrow", "s3fs", "safetensors", "torch", "torchvision")
PACKAGE = "package"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>[0-9]+))")
_MOST_LISTED = 20


@dataclass(frozen=True)
class ModelVersion:
    """One registered version.

    Attributes:
        name, version: the registered model, and the number of the version as text.
        run_id: the run that made it; None when it was registered without one.
        sha256: identity of its package; an empty text when it was registered by other means.
        aliases: that pointed at it when it was read, sorted.
        uri: `models:/name/version`, which always means this version.
    """

    name: str
    version: str
    run_id: str | None
    sha256: str
    aliases: tuple[str, ...]
    uri: str


def register_package(
    package_path: str,
    name: str,
    run_id: str,
    *,
    sha256: str,
    code_path: str,
    tags: Mapping[str, Any] | None = None,
    alias: str = "candidate",
) -> ModelVersion:
    """Logs a model package to a run, registers it as the next version of a model, and moves an alias to it.

    Args:
        package_path: a local package folder.
        name: the registered model; made when it does not exist.
        run_id: the run that made the package; it may be over.
        sha256: the package's identity, kept as the version's tag `sha256`.
        code_path: the file that MLflow runs to load the package: `stylejobs/engine/pyfunc_model.py`.
        tags: more tags of the version.
        alias: that moves to the new version.

    Returns:
        The new version.

    Raises:
        ModelError: the folder or the code file is missing, or the server does not allow the name or alias.
        RegistryError: the server cannot be reached, or the run does not exist.
    """
    if not os.path.isdir(package_path):
        raise ModelError(f"wanted a local model package folder; {package_path} is not a folder")
    if not os.path.isfile(code_path):
        raise ModelError(f"wanted the file that loads the package; {code_path} is not a file")
    if not re.fullmatch(r"[^/@:]+", name):
        raise ModelError(f"name={name}: a model's name is not empty and has no '/', '@' or ':'")
    uri = tracking_uri()
    client = open_client(uri)
    texts = {key: redact(str(value)) for key, value in {**(tags or {}), "sha256": sha256}.items()}
    with reaching(uri, refused=ModelError), tempfile.TemporaryDirectory(prefix="stylejobs-model-") as folder:
        logged = _log_package(client, package_path, run_id, code_path, folder)
        _ensure_model(client, name)
        # The location instead of models:/<id>: an SQLite registry resolves that through MLflow's global server.
        made = client.create_model_version(
            name, logged.artifact_location, run_id=run_id, tags=texts, model_id=logged.model_id
        )
        client.set_registered_model_alias(name, alias, str(made.version))
        return _read_version(client, name, str(made.version))


def resolve_version(model_uri: str) -> ModelVersion:
    """The version that a model URI means now.

    Args:
        model_uri: `models:/name@alias` or `models:/name/3`.

    Raises:
        ModelError: it is not such a URI, or the model, version or alias does not exist; says which do.
        RegistryError: the server cannot be reached.
    """
    match = _MODEL_URI.fullmatch(model_uri)
    if match is None:
        raise ModelError(f"{model_uri}: wanted models:/name@alias or models:/name/3")
    name, alias, version = match["name"], match["alias"], match["version"]
    uri = tracking_uri()
    client = open_client(uri)
    with reaching(uri, refused=ModelError):
        try:
            if alias is not None:
                version = str(client.get_model_version_by_alias(name, alias).version)
            return _read_version(client, name, version)
        except Exception as error:
            # A missing alias is answered with "refused", so ask what exists instead of trusting the code.
            if is_permanent(error) and not _exists(client, name, alias, version):
                raise ModelError(f"{model_uri} does not exist: {_existing(client, uri, name)}") from None
            raise


def download_package(version: ModelVersion, into: str) -> str:
    """Downloads a version's package.

    Args:
        version: as `resolve_version` gives it.
        into: a local folder; made when it does not exist.

    Returns:
        Path of the package folder, below `into`.

    Raises:
        ModelError: the version holds no package of ours.
        RegistryError: the server or its artifact store cannot be reached.
    """
    uri = tracking_uri()
    client = open_client(uri)
    from mlflow import artifacts

    with reaching(uri, refused=ModelError):
        place = f"{client.get_model_version_download_uri(version.name, version.version).rstrip('/')}/artifacts"
        found = artifacts.list_artifacts(artifact_uri=place, tracking_uri=uri)
        if PACKAGE not in {Path(item.path).name for item in found}:
            raise ModelError(
                f"{version.uri} holds no model package (artifacts/{PACKAGE}): it was registered by other means, or its "
                f"files are gone; register it with the verbs train or adopt"
            )
        os.makedirs(into, exist_ok=True)
        return artifacts.download_artifacts(artifact_uri=f"{place}/{PACKAGE}", dst_path=into, tracking_uri=uri)


def _log_package(client: "MlflowClient", package_path: str, run_id: str, code_path: str, folder: str) -> "LoggedModel":
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, name=PACKAGE, source_run_id=run_id, model_type="stylejobs"
    )
    status = "FAILED"
    try:
        # Copied under one name, so that a version's layout does not depend on what the folder was called.
        staged = os.path.join(folder, PACKAGE)
        shutil.copytree(package_path, staged)
        _write_pyfunc(os.path.join(folder, "model"), staged, code_path, logged)
        client.log_model_artifacts(logged.model_id, os.path.join(folder, "model"))
        status = "READY"
    finally:
        client.finalize_logged_model(logged.model_id, status)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _write_pyfunc(path: str, package_path: str, code_path: str, logged: "LoggedModel") -> None:
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    images = Schema([ColSpec("binary", "image")])
    params = ParamSchema(
        [
            ParamSpec("style", "string", ""),
            ParamSpec("format", "string", "jpeg"),
            ParamSpec("strength", "double", 1.0),
            ParamSpec("preserve_colour", "boolean", False),
        ]
    )
    described = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=logged.source_run_id,
        model_id=logged.model_id,
    )
    with warnings.catch_warnings():
        # It asks for an input example, with which it would load and run the model here.
        warnings.filterwarnings("ignore", message=".*input example.*")
        pyfunc.save_model(
            path,
            mlflow_model=described,
            python_model=code_path,
            artifacts={PACKAGE: package_path},
            signature=ModelSignature(images, images, params),
            pip_requirements=[f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS],
            code_paths=[str(Path(__file__).parents[1])],
        )


def _ensure_model(client: "MlflowClient", name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise


def _read_version(client: "MlflowClient", name: str, version: str) -> ModelVersion:
    found = client.get_model_version(name, version)
    aliases = client.get_registered_model(name).aliases
    return ModelVersion(
        name=name,
        version=str(found.version),
        run_id=found.run_id or None,
        sha256=found.tags.get("sha256", ""),
        aliases=tuple(sorted(alias for alias, target in aliases.items() if str(target) == str(found.version))),
        uri=f"models:/{name}/{found.version}",
    )


def _exists(client: "MlflowClient", name: str, alias: str | None, version: str | None) -> bool:
    try:
        known = client.get_registered_model(name)
        if alias is not None and alias not in known.aliases:
            return False
        client.get_model_version(name, version or str(known.aliases[alias]))
    except Exception as error:
        if is_missing(error):
            return False
        raise
    return True


def _existing(client: "MlflowClient", uri: str, name: str) -> str:
    """What there is instead, for a person."""
    try:
        aliases = client.get_registered_model(name).aliases
    except Exception as error:
        if not is_missing(error):
            raise
        names = sorted(model.name for model in client.search_registered_models(max_results=1000))
        near = get_close_matches(name, names, n=3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        # The nearest come first: of a long list only the beginning is shown.
        return f"{redact(uri)} has no model {name!r}, it has {_listed(list(dict.fromkeys([*near, *names])))}{hint}"
    quoted = name.replace("'", "''")
    versions = client.search_model_versions(f"name = '{quoted}'", max_results=1000)
    numbers = sorted((int(found.version) for found in versions), reverse=True)
    targets = [f"{alias} -> {version}" for alias, version in sorted(aliases.items())]
    return f"model {name!r} has the versions {_listed(numbers)} and the aliases {_listed(targets)}"


def _listed(items: list) -> str:
    shown = ", ".join(str(item) for item in items[:_MOST_LISTED]) or "none"
    return shown if len(items) <= _MOST_LISTED else f"{shown} and {len(items) - _MOST_LISTED} more"
