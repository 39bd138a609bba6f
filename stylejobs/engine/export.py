"""Takes a model's weights out again, by the names that the public code of CycleGAN and CUT has for them."""

import hashlib
import tempfile

from safetensors.torch import save

from stylejobs.config.schema import ExportConfig
from stylejobs.core.networks.layouts import export_resnet
from stylejobs.engine.models import find_package
from stylejobs.engine.results import JobResult
from stylejobs.errors import ModelError
from stylejobs.storage import locations
from stylejobs.storage.packages import load_package


def export(config: ExportConfig) -> JobResult:
    """Writes the generator of a `resnet` package as safetensors; adopting that file gives the same weights again.

    Where the public code reads a state dict with `torch.load`, `safetensors.torch.load_file` reads this one.

    Raises:
        ModelError: there is no such model, it was altered, or the public code has no such network.
        RegistryError, StorageError: the registry or the place of `out` cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="stylejobs-export-") as scratch:
        name, version, package_uri = find_package(config.model, scratch)
        loaded = load_package(package_uri)
    package = loaded.package
    if package.network != "resnet":
        raise ModelError(f"model={config.model}: only resnet models can be exported; this is a {package.network}")
    try:
        weights = export_resnet(package.options, loaded.generator.state_dict())
    except ValueError as error:
        raise ModelError(f"model={config.model}: {error}") from error
    data = save({key: value.contiguous() for key, value in weights.items()})
    locations.write_atomic(config.out, data)
    return JobResult(
        "export",
        message=f"exported {config.model} to {config.out}; load it with "
        f'net.load_state_dict(safetensors.torch.load_file("{config.out}"))',
        model={"uri": config.model, "name": name, "version": version, "sha256": package.sha256},
        details={"out": locations.absolute(config.out), "out_sha256": hashlib.sha256(data).hexdigest()},
    )
