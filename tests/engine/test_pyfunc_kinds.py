"""Every kind of model predicts in a process that has its requirements alone, and none of this checkout."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from stylejobs.core.networks import build_network
from stylejobs.core.pixels import to_float, to_uint8
from stylejobs.engine.registering import register_folder
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.storage.packages import load_package, save_package
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from tests.core.test_networks import OPTIONS

ADOPTED = {
    "adopted johnson": ("johnson", {"width": 4, "blocks": 1, "public": True}),
    "adopted label_conditioned": ("label_conditioned", {"domains": 3, "width": 4, "blocks": 1, "public": True}),
    "adopted resnet": ("resnet", {"width": 4, "blocks": 1, "norm": "affine_instance", "upsample": "antialiased"}),
}
SIZES = [(33, 21), (8, 50), (64, 64)]

# Everything that the requirements do not bring is not there, whatever this environment has.
PREDICT = """
    import json, re, sys
    from importlib import metadata

    def normal(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    def closure(names):
        found, todo = set(), list(names)
        while todo:
            name = normal(todo.pop())
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            if name in found:
                continue
            found.add(name)
            todo += [re.match(r"[\\w.-]+", need)[0] for need in needs if "extra ==" not in need]
        return found

    class Only:
        '''Finds every module but the installed ones that no requirement brings.'''

        def __init__(self, allowed, finders):
            self.finders, self.allowed = finders, allowed
            owners = metadata.packages_distributions()
            names = {module: set(map(normal, own)) for module, own in owners.items()}
            self.refused = {module for module, own in names.items() if not own & allowed} - {"stylejobs", "pipelines"}

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.refused:
                return None
            return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)

        def find_distributions(self, *context):
            for finder in self.finders:
                for found in getattr(finder, "find_distributions", lambda *context: ())(*context):
                    if normal(found.metadata["Name"]) in self.allowed:
                        yield found

        def invalidate_caches(self):
            for finder in self.finders:
                getattr(finder, "invalidate_caches", lambda: None)()

    uris, requirements, checkout, store = json.loads(sys.argv[1])
    finders = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    only = Only(closure(requirements), finders)
    assert {"ray", "rich", "pytest", "hypothesis"} <= only.refused, sorted(only.refused)
    sys.meta_path[:] = [only]
    sys.path = [place for place in sys.path if place != checkout]
    try:
        import ray
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError("ray was imported")

    import mlflow, pandas
    mlflow.set_tracking_uri(store)
    images = [open(f"in-{number}.png", "rb").read() for number in range(3)]
    for number, uri in enumerate(uris):
        model = mlflow.pyfunc.load_model(uri)
        stylized = model.predict(pandas.DataFrame({"image": images}), params={"format": "png"})
        for size, image in enumerate(stylized["image"]):
            open(f"out-{number}-{size}.png", "wb").write(image)
    import stylejobs
    assert not stylejobs.__file__.startswith(checkout), stylejobs.__file__
    assert "ray" not in sys.modules
"""


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_predicts_at_any_size_with_its_requirements_alone(
    tmp_path: Path, tracking_store: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    kinds = {name: (name, options) for name, options in OPTIONS.items()} | ADOPTED
    run = MlflowTracker.start("kinds", "all", {})
    versions = []
    for name, (network, options) in kinds.items():
        torch.manual_seed(0)
        generator = build_network(network, **options).eval()
        code = torch.rand(generator.style_dim)  # any code is one
        folder = str(tmp_path / "packages" / name.replace(" ", "-"))
        save_package(folder, network, options, generator.state_dict(), {"only": code}, {})
        versions.append((register_folder(folder, name.replace(" ", "-"), run.run_id, {}), load_package(folder)))
    run.finish("FINISHED")
    images = []
    for number, (height, width) in enumerate(SIZES):
        images.append(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8))
        (tmp_path / f"in-{number}.png").write_bytes(encode_image(images[-1], "png", 90))
    _predict(tmp_path, [version.uri for version, _ in versions], tracking_store)
    for number, (version, loaded) in enumerate(versions):
        for size, pixels_HWC in enumerate(images):
            with torch.inference_mode():
                made = loaded.generator(to_float(torch.from_numpy(pixels_HWC)[None]), loaded.styles["only"][None])
            found = decode_image((tmp_path / f"out-{number}-{size}.png").read_bytes(), Limits())
            difference = np.abs(found.astype(int) - to_uint8(made)[0].numpy())
            assert difference.max() <= 1, f"{version.name} at {pixels_HWC.shape[:2]}"


def _predict(folder: Path, uris: list[str], store: str) -> None:
    from stylejobs.tracking.registry import REQUIREMENTS

    told = json.dumps([uris, list(REQUIREMENTS), str(Path(__file__).parents[2]), store])
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(PREDICT), told],
        cwd=folder,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
