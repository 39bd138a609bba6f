"""Models and workers for the tests of the stylizing worker."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from stylejobs.config.schema import StylizeConfig
from stylejobs.core.match import fit_match
from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float
from stylejobs.engine import stylizer
from stylejobs.engine.models import PinnedModel, pin_model
from stylejobs.engine.stylize import plan_stylize
from stylejobs.engine.stylizer import Stylizer
from stylejobs.storage.packages import LoadedPackage, Package, save_package
from tests.engine.pinning import write_image
from tests.engine.stylizing import NO_COLUMNS, changed, pixels, settings_for


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Package]]:
    """name -> folder and description of each model."""
    root = tmp_path_factory.mktemp("packages")

    def save(name: str, network: str, options: dict, weights: dict, styles: dict, match=None) -> tuple[str, Package]:
        return str(root / name), save_package(str(root / name), network, options, weights, styles, {}, match)

    torch.manual_seed(0)
    tiny = {"width": 4, "blocks": 1}
    weights = build_network("johnson", **tiny).state_dict()
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    moments = build_network("moments")
    codes = {name: moments.encode_style(torch.rand(1, 3, 8, 8) * 2 - 1)[0] for name in ("red", "blue", "green")}
    none = {"mosaic": torch.zeros(0)}
    content = [to_float(torch.from_numpy(pixels(n) // (1 + n % 3))[None]) for n in range(100, 120)]
    colours = {"red": (250, 20, 30), "blue": (20, 30, 250), "green": (20, 250, 30)}
    flat = {name: np.broadcast_to(np.uint8(rgb), (16, 24, 3)).copy() for name, rgb in colours.items()}
    match = fit_match(content, {name: [to_float(torch.from_numpy(image)[None])] for name, image in flat.items()})
    return {
        "johnson": save("johnson", "johnson", tiny, weights, none),
        "broken": save("broken", "johnson", tiny, broken, none),
        "moments": save("moments", "moments", {}, {}, codes),
        "matched": save("matched", "moments", {}, {}, codes, match),
        "one bad style": save("half", "moments", {}, {}, {**codes, "nan": torch.full((6,), torch.nan)}),
    }


@pytest.fixture
def build(packages: dict[str, tuple[str, Package]], tmp_path: Path) -> Callable[..., Stylizer]:
    """A worker: build("moments", variants=2)."""

    def call(model: str = "moments", carried: pa.Schema = NO_COLUMNS, **changes: object) -> Stylizer:
        return Stylizer(changed(settings_for(packages, model, str(tmp_path / "out"), carried), **changes))

    return call


@pytest.fixture
def build_spying(build: Callable[..., Stylizer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stylizer]:
    """A worker whose generator inverts, is not finite for the pixels that `is_bad` names, and remembers batches."""

    class Inverting(nn.Module):
        def __init__(self, is_bad: Callable[[Tensor], bool]):
            super().__init__()
            self.is_bad, self.batches = is_bad, []

        def forward(self, content_BCHW: Tensor, style_BD: Tensor) -> Tensor:
            self.batches.append(content_BCHW)
            made_BCHW = -content_BCHW
            for image_CHW, content_CHW in zip(made_BCHW, content_BCHW, strict=True):
                if self.is_bad(content_CHW):
                    image_CHW[0, 0, 0] = torch.inf
            return made_BCHW

    def call(is_bad: Callable[[Tensor], bool] = lambda content_CHW: False, **changes: object) -> Stylizer:
        generator = Inverting(is_bad)
        package = Package("spy", {}, ("only",))
        loaded = LoadedPackage(package, generator, {"only": torch.zeros(0)})
        monkeypatch.setattr(stylizer, "load_package", lambda uri, sha256: loaded)
        worker = build(**changes, styles=("only",))
        worker.batches = generator.batches
        return worker

    return call


@pytest.fixture
def pin(tmp_path: Path) -> Callable[..., PinnedModel]:
    """pin("builtin:moments", ["a.png"]) for a job that writes to tmp_path/out."""
    count = iter(range(99))

    def call(uri: str, styles: list[str] | None = None) -> PinnedModel:
        return pin_model(uri, styles, str(tmp_path / "out"), str(tmp_path / f"scratch{next(count)}"))

    return call


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., None]:
    """start("builtin:moments", ["a.png"]) plans a job that writes to tmp_path/out, as the stylize verb does."""
    write_image(tmp_path / "photos" / "a.png")

    def call(uri: str, styles: list[str] | None = None, dest: str = "out", **keys: object) -> None:
        places = {"source": str(tmp_path / "photos"), "dest": str(tmp_path / dest)}
        plan_stylize(StylizeConfig(**places, model=uri, styles=styles, **keys))

    return call
