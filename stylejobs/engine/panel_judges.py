"""The trained networks of LPIPS and FID: pinned by digest when an evaluation is planned, loaded by its workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stylejobs.config.perceptual import Perceptual
from stylejobs.core.metrics import Lpips, build_lpips
from stylejobs.core.metrics.inception import Inception, build_inception
from stylejobs.errors import ModelError
from stylejobs.storage import locations
from stylejobs.storage.weights import Weights, read_checkpoint


@dataclass(frozen=True)
class PerceptualFiles:
    """What workers load.

    Attributes:
        trunk: of LPIPS.
        files: key of the section -> (place, sha256); a key without a file is left out.
    """

    trunk: str = "alexnet"
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def digests(self) -> list[str]:
        """Of all files: other weights give other numbers."""
        return [sha256 for _, (_, sha256) in sorted(self.files.items())]


def pin_perceptual(config: Perceptual) -> PerceptualFiles:
    """Reads and builds what was asked for, so that a wrong file ends the command now.

    Raises:
        ModelError: a file that is missing, or whose weights are another network's.
        StorageError: a place that cannot be reached.
    """
    places = config.model_dump(include={"trunk_weights", "lpips_weights", "inception_weights"}, exclude_none=True)
    wanted = {key: (locations.absolute(place), None) for key, place in places.items()}
    found = _read(wanted)
    _build(config.trunk, wanted, found)
    return PerceptualFiles(config.trunk, {key: (wanted[key][0], weights.sha256) for key, weights in found.items()})


def load_perceptual(pinned: PerceptualFiles) -> tuple[Lpips | None, Inception | None]:
    """Networks on the CPU, None where it was not asked for.

    Raises:
        ModelError: a file that was altered since it was pinned, or is gone.
        StorageError: a place that cannot be reached.
    """
    return _build(pinned.trunk, pinned.files, _read(pinned.files))


def _read(files: Mapping[str, tuple[str, str | None]]) -> dict[str, Weights]:
    return {key: read_checkpoint(place, sha256, f"perceptual.{key}") for key, (place, sha256) in files.items()}


def _build(
    trunk: str, files: Mapping[str, tuple[str, str | None]], weights: Mapping[str, Weights]
) -> tuple[Lpips | None, Inception | None]:
    lpips = inception = None
    try:
        if "lpips_weights" in weights:
            lpips = build_lpips(trunk, weights["trunk_weights"].tensors, weights["lpips_weights"].tensors)
        if "inception_weights" in weights:
            inception = build_inception(weights["inception_weights"].tensors)
    except ValueError as error:
        told = ", ".join(f"perceptual.{key}={place}" for key, (place, _) in files.items())
        raise ModelError(f"{told}: {error}") from error
    return lpips, inception
