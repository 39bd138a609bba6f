"""Versions and aliases in a real SQLite registry. The stand-in package is a folder with one number in it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stylejobs.errors import ModelError
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.registry import (
    ModelVersion,
    download_package,
    register_package,
    resolve_version,
)

ROOT = Path(__file__).parents[2]
STAND_IN = """
import mlflow
import pandas

class StandIn(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(context.artifacts["package"] + "/model.json") as file:
            self.suffix = file.read().encode()

    def predict(self, context, model_input: pandas.DataFrame, params=None):
        style = params["style"].encode()
        return pandas.DataFrame({"image": [image + self.suffix + style for image in model_input["image"]]})

mlflow.models.set_model(StandIn())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, store_uri, client):
    """A run, a code file, and two registered versions of `demo` with folders of different names."""
    folder = tmp_path_factory.mktemp("packages")
    code_path = folder / "stand_in.py"
    code_path.write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store_uri)
        with MlflowTracker.start("models", "train") as tracker:
            versions = []
            for number in (1, 2):
                package = folder / f"built-{number}"
                (package / "styles").mkdir(parents=True)
                (package / "model.json").write_text(str(number))
                (package / "styles" / "styles.safetensors").write_bytes(b"s" * number)
                versions.append(
                    register_package(
                        str(package),
                        "demo",
                        tracker.run_id,
                        sha256=str(number) * 64,
                        code_path=str(code_path),
                        tags={"data": "s3://ann:hunter2@bucket"},
                    )
                )
    return versions, str(folder), str(code_path), tracker.run_id


def test_registering_makes_the_next_version_and_moves_the_alias(store, made, client):
    (one, two), _, _, run_id = made
    assert one == ModelVersion("demo", "1", run_id, "1" * 64, ("candidate",), "models:/demo/1")
    assert two == ModelVersion("demo", "2", run_id, "2" * 64, ("candidate",), "models:/demo/2")
    assert resolve_version("models:/demo@candidate") == two
    assert resolve_version("models:/demo/1").aliases == ()
    assert client.get_model_version("demo", "1").tags["data"] == "s3://***@bucket"
    assert len(client.get_run(run_id).outputs.model_outputs) == 2


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/demo/7", r"versions 2, 1 .*candidate -> 2"),
        ("models:/demo@champoin", r"versions 2, 1 .*candidate -> 2"),
        ("models:/dmeo@candidate", r"no model 'dmeo', it has .*demo.*did you mean 'demo'"),
        ("models:/dmeo/1", r"no model 'dmeo'"),
        ("models:/demo", r"wanted models:/name@alias or models:/name/3"),
        ("models:/demo/latest", r"wanted models:/name@alias"),
        ("demo@candidate", r"wanted models:/name@alias"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(store, made, uri, says):
    with pytest.raises(ModelError, match=says):
        resolve_version(uri)


def test_a_package_comes_back_whole(store, made, tmp_path):
    for version in made[0]:
        place = Path(download_package(version, str(tmp_path / version.version)))
        assert (place / "model.json").read_text() == version.version
        assert (place / "styles" / "styles.safetensors").read_bytes() == b"s" * int(version.version)
        assert tmp_path / version.version in place.parents


def test_a_version_of_other_origin_is_refused(store, made, client, tmp_path):
    client.create_registered_model("foreign")
    (tmp_path / "elsewhere").mkdir()
    client.create_model_version("foreign", str(tmp_path / "elsewhere"), run_id=made[3])
    version = resolve_version("models:/foreign/1")
    assert version.sha256 == ""
    with pytest.raises(ModelError, match="no model package"):
        download_package(version, str(tmp_path / "into"))


def test_what_cannot_be_registered_is_said_before_anything_is_made(store, made, tmp_path):
    _, folder, code_path, run_id = made
    with pytest.raises(ModelError, match="not a folder"):
        register_package(f"{folder}/none", "demo", run_id, sha256="0", code_path=code_path)
    with pytest.raises(ModelError, match="not a file"):
        register_package(f"{folder}/built-1", "demo", run_id, sha256="0", code_path=f"{folder}/none.py")
    with pytest.raises(ModelError, match="name=a/b"):
        register_package(f"{folder}/built-1", "a/b", run_id, sha256="0", code_path=code_path)
    assert resolve_version("models:/demo@candidate").version == "2"


def test_registering_and_loading_are_quiet_and_need_no_pickle(store_uri, made, tmp_path):
    _, folder, code_path, run_id = made
    code = f"""
        import sys
        from stylejobs.tracking.registry import register_package
        version = register_package({folder + "/built-1"!r}, "quiet", {run_id!r}, sha256="1", code_path={code_path!r})
        print("registered", file=sys.stderr)
        import mlflow, pandas
        mlflow.set_tracking_uri({store_uri!r})
        model = mlflow.pyfunc.load_model(version.uri)
        answer = model.predict(pandas.DataFrame({{"image": [b"a", b"b"]}}), params={{"style": "x"}})
        assert answer["image"].tolist() == [b"a1x", b"b1x"], answer
        assert model.predict(pandas.DataFrame({{"image": [b"a"]}}))["image"].tolist() == [b"a1"]
        requirements = open(mlflow.artifacts.download_artifacts(version.uri + "/requirements.txt")).read().split()
        assert any(line.startswith("torch==") for line in requirements) and len(requirements) < 12, requirements
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MLFLOW_TRACKING_URI": store_uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.partition("registered")[0] == "" and done.stdout == ""
    assert not list(tmp_path.rglob("*.db")), "something used MLflow's global store"
