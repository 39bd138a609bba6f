"""Model packages into the registry, from wherever they are stored."""

import tempfile
from pathlib import Path

from stylejobs.storage.packages import copy_package, read_package
from stylejobs.tracking.registry import ModelVersion, register_package

_PYFUNC_CODE = Path(__file__).with_name("pyfunc_model.py")


def register_folder(package_uri: str, name: str, run_id: str, tags: dict[str, str]) -> ModelVersion:
    """Registers a package as a new version with the alias `candidate`.

    Raises:
        ModelError: the package is not whole.
        RegistryError: the registry cannot be reached.
    """
    package = read_package(package_uri)
    with tempfile.TemporaryDirectory(prefix="stylejobs-register-") as folder:
        copy_package(package_uri, folder)
        return register_package(folder, name, run_id, sha256=package.sha256, tags=tags, code_path=_PYFUNC_CODE)
