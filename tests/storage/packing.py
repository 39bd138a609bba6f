"""Small packages, and how to alter what they say of themselves."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from stylejobs.core.match import EMBEDDING_LENGTH, Match
from stylejobs.core.networks import build_network
from stylejobs.storage.packages import Package, read_package, save_package

TINY = {"width": 4, "blocks": 1}
FILES = ["card.md", "model.json", "styles/styles.safetensors", "weights.safetensors"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def save_johnson(folder: Path, seed: int = 0, **changes: object) -> Package:
    torch.manual_seed(seed)
    given = {
        "options": TINY,
        "styles": {"monet": torch.zeros(0)},
        "training": {"method": "fast", "steps": 10},
    } | changes
    return save_package(str(folder), "johnson", weights=build_network("johnson", **TINY).state_dict(), **given)


def save_moments(folder: Path, styles: dict[str, torch.Tensor]) -> Package:
    return save_package(str(folder), "moments", {}, {}, styles, {})


def make_match(*styles: str) -> Match:
    targets = {name: draw(EMBEDDING_LENGTH, seed=seed) for seed, name in enumerate(styles)}
    return Match(draw(EMBEDDING_LENGTH, seed=50), draw(EMBEDDING_LENGTH, EMBEDDING_LENGTH, seed=51), targets)


def restamp(folder: Path) -> None:
    """Gives a package whose styles file was changed the digests that it would have been saved with."""
    from stylejobs.storage.packages import _identity

    package = read_package(str(folder))
    sha256 = hashlib.sha256((folder / "styles" / "styles.safetensors").read_bytes()).hexdigest()
    identity = _identity(package.network, package.options, package.styles, package.weights_sha256, sha256)
    describe(styles_sha256=sha256, sha256=identity)(folder)


def describe(**changes: object) -> Callable[[Path], None]:
    """Changes keys of model.json."""

    def tamper(folder: Path) -> None:
        described = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**described, **changes}))

    return tamper
