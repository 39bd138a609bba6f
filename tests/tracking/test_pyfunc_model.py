"""A registered model, loaded by MLflow in a process that knows nothing of us, gives the pixels of the package."""

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
from stylejobs.engine import __file__ as engine_file
from stylejobs.records.codec import Limits, decode_image, encode_image
from stylejobs.storage.packages import save_package
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import download_package, register_package, resolve_version

CODE_PATH = str(Path(engine_file).with_name("pyfunc_model.py"))


def _image(height, width):
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encode_image(values, "png", 90)


@pytest.fixture(scope="module")
def registered(tmp_path_factory, store_uri, client):
    folder = str(tmp_path_factory.mktemp("package"))
    torch.manual_seed(0)
    generator = build_network("moments").eval()
    styles = {
        "warm": torch.linspace(0.1, 0.6, generator.style_dim),
        "cold": torch.linspace(0.6, 0.1, generator.style_dim),
    }
    package = save_package(folder, "moments", {}, generator.state_dict(), styles, {"method": "none"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store_uri)
        with MlflowTracker.start("models", "train") as tracker:
            version = register_package(
                folder, "moments", tracker.run_id, sha256=package.sha256, code_path=CODE_PATH, alias="champion"
            )
    return version, generator, styles


def test_the_downloaded_package_is_the_registered_one(store, registered, tmp_path):
    from stylejobs.storage.packages import read_package

    version = resolve_version("models:/moments@champion")
    assert version == registered[0]
    assert read_package(download_package(version, str(tmp_path))).sha256 == version.sha256


def test_predict_gives_the_generators_pixels_without_ray_or_pickle(store_uri, registered, tmp_path):
    version, generator, styles = registered
    images = [_image(33, 21), _image(8, 50)]
    for number, image in enumerate(images):
        (tmp_path / f"in-{number}.png").write_bytes(image)
    # No PYTHONPATH to this checkout: the package's source must come with the model.
    code = f"""
        import sys, mlflow, pandas
        sys.path = [place for place in sys.path if place != {str(Path(__file__).parents[2])!r}]
        mlflow.set_tracking_uri({store_uri!r})
        model = mlflow.pyfunc.load_model({version.uri!r})
        images = [open(f"in-{{number}}.png", "rb").read() for number in (0, 1)]
        frame = pandas.DataFrame({{"image": images}}, index=["x", "y"])
        stylized = model.predict(frame, params={{"style": "cold", "format": "png"}})
        assert list(stylized.index) == ["x", "y"]
        for number, image in enumerate(stylized["image"]):
            open(f"out-{{number}}.png", "wb").write(image)
        open("first.jpg", "wb").write(model.predict(frame)["image"].iloc[0])
        try:
            model.predict(frame, params={{"style": "lukewarm"}})
        except Exception as error:
            assert "carries warm, cold" in str(error), error
        else:
            raise AssertionError("an unknown style was accepted")
        import stylejobs
        assert "/code/stylejobs" in stylejobs.__file__, stylejobs.__file__
        assert "ray" not in sys.modules
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for number, image in enumerate(images):
        pixels_HWC = torch.from_numpy(decode_image(image, Limits()))
        with torch.inference_mode():
            wanted_BHWC = to_uint8(generator(to_float(pixels_HWC[None]), styles["cold"][None]))
        found_HWC = decode_image((tmp_path / f"out-{number}.png").read_bytes(), Limits())
        np.testing.assert_array_equal(found_HWC, wanted_BHWC[0].numpy())
    assert (tmp_path / "first.jpg").read_bytes()[:2] == b"\xff\xd8"
