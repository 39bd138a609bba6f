"""Adopts a checkpoint that somebody else's code made: a package with its digest, registered under a run of its own."""

import tempfile

import torch
from torch import Tensor, nn

from stylejobs.config.schema import AdoptConfig
from stylejobs.core.networks import build_network
from stylejobs.core.networks.layouts import Adopted, adopt_checkpoint
from stylejobs.engine.models import read_style, style_name
from stylejobs.engine.registering import register_folder
from stylejobs.engine.results import JobResult
from stylejobs.errors import ModelError, StyleError
from stylejobs.storage.packages import save_package
from stylejobs.storage.weights import read_checkpoint

_TRIED_PX = 64


def adopt(config: AdoptConfig) -> JobResult:
    """Registers a checkpoint as a version of `name`, alias `candidate`; everything is checked before a run begins.

    Raises:
        ModelError: a file that is missing, has another digest, is not of plain tensors, or not of the family.
        StyleError: styles that do not fit the checkpoint, or cannot be read.
        RegistryError, StorageError: the registry, or where the files are, cannot be reached.
    """
    adopted, digests = _read(config)
    generator = build_network(adopted.network, **adopted.options)
    generator.load_state_dict(adopted.weights)
    generator.eval().requires_grad_(False)
    styles = _styles(config, generator)
    _try(config, generator, styles)
    return _register(config, adopted, styles, digests)


def _read(config: AdoptConfig) -> tuple[Adopted, dict[str, str]]:
    """The network, and the sha256 of each file that it came from."""
    checkpoint = read_checkpoint(config.checkpoint, config.sha256)
    digests, encoder = {"checkpoint_sha256": checkpoint.sha256}, None
    if config.encoder is not None:
        encoder = read_checkpoint(config.encoder, config.encoder_sha256, key="encoder")
        digests["encoder_sha256"] = encoder.sha256
    try:
        return adopt_checkpoint(config.family, checkpoint.tensors, encoder and encoder.tensors), digests
    except ValueError as error:
        raise ModelError(f"checkpoint={config.checkpoint}: {error}") from error


@torch.inference_mode()
def _styles(config: AdoptConfig, generator: nn.Module) -> dict[str, Tensor]:
    """The code of each style that the version carries."""
    if hasattr(generator, "encode_style"):
        codes = {style_name(uri): generator.encode_style(read_style(uri))[0].clone() for uri in config.styles or ()}
        if len(codes) < len(config.styles or ()):
            raise StyleError("styles=: two styles have the same file name; give the files different names")
        return codes
    names = config.styles or (config.name,)
    if generator.style_dim == 0:
        return {names[0]: torch.zeros(0)}
    if len(names) != generator.style_dim:
        raise StyleError(
            f"styles={','.join(names)}: wanted a name for each of the checkpoint's {generator.style_dim} domains, in "
            f"their order; got {len(names)}"
        )
    return dict(zip(names, torch.eye(generator.style_dim), strict=True))


@torch.inference_mode()
def _try(config: AdoptConfig, generator: nn.Module, styles: dict[str, Tensor]) -> None:
    """Stylizes one small picture: weights that are finite may still give what is not."""
    ramp = torch.linspace(-1.0, 1.0, _TRIED_PX)
    content_1CHW = torch.stack([ramp[:, None] * ramp, ramp[None, :].expand(_TRIED_PX, -1), ramp[:, None] - ramp])[None]
    stylized_1CHW = generator(content_1CHW.clamp(-1.0, 1.0), next(iter(styles.values()))[None])
    if not stylized_1CHW.isfinite().all():
        raise ModelError(
            f"checkpoint={config.checkpoint}: its network gives NaN or infinity for a plain picture; this training "
            "went wrong: take an earlier checkpoint"
        )


def _register(config: AdoptConfig, adopted: Adopted, styles: dict[str, Tensor], digests: dict[str, str]) -> JobResult:
    from stylejobs.tracking.mlflow_tracker import MlflowTracker
    from stylejobs.tracking.provenance import code_tags

    origin = {"family": config.family, "checkpoint": config.checkpoint, "encoder": config.encoder, **digests}
    origin = {key: value for key, value in origin.items() if value is not None}
    options = ", ".join(f"{key} {value}" for key, value in adopted.options.items())
    about = f"{config.checkpoint}, of family {config.family}, as {adopted.network}: {options}."
    tags = {"stylejobs.verb": "adopt", **code_tags(), "mlflow.note.content": about}
    run_name = config.run_name or f"adopt {config.name}"
    params = origin | {"network": adopted.network} | {f"network.{key}": value for key, value in adopted.options.items()}
    with MlflowTracker.start(config.experiment, run_name, tags) as tracker, tempfile.TemporaryDirectory() as folder:
        tracker.log_params(params)
        training = {"method": "adopt", **origin, "mlflow_run": tracker.run_id}
        save_package(folder, adopted.network, adopted.options, adopted.weights, styles, training)
        version = register_folder(folder, config.name, tracker.run_id, {"method": "adopt", **origin})
    return JobResult(
        "adopt",
        message=f"adopted {about[:-1]}: {config.name} version {version.version} (alias candidate)",
        model={"uri": version.uri, "name": version.name, "version": version.version, "sha256": version.sha256},
        mlflow={"run_id": tracker.run_id, "url": tracker.url},
        details={**origin, "network": adopted.network, "options": adopted.options, "styles": list(styles)},
    )
