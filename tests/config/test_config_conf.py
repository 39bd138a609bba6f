"""Every YAML under conf/ loads for the verb of its folder; site files load for every verb."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from stylejobs.config.gating import load_gates
from stylejobs.config.load import load_config
from stylejobs.config.methods import OPTION_OF_KEY
from stylejobs.config.schema import CONFIGS
from stylejobs.config.sections import flatten
from stylejobs.config.training import Method
from stylejobs.core.methods import METHODS, PRESETS

CONF = Path(__file__).parents[2] / "conf"
REQUIRED = {
    "ingest": ["source=a", "dest=b"],
    "train": ["content=a", "style=b", "name=c"],
    "promote": ["model=models:/m/1"],
    "stylize": ["source=a", "dest=b", "model=models:/m@champion"],
    "verify": ["dest=b"],
    "replay": ["dest=b", "key=c"],
    "adopt": ["checkpoint=a", "family=cut", "name=m"],
    "benchmark": [],
    "evaluate": ["model=a", "data=b"],
    "export": ["model=a", "out=b.safetensors"],
    "submit": ["address=http://head:8265"],
}
METHOD = ["method=cyclegan"]
FILES = sorted(path for path in CONF.rglob("*.yaml") if not path.name.startswith("gates"))
GATES = sorted(CONF.glob("evaluate/gates*.yaml"))


def required(verb: str, name: str) -> list[str]:
    """What a file of this name leaves to the command; a classifier has no style."""
    return [key for key in REQUIRED[verb] if key != "style=b" or not name.startswith("classifier")]


def test_the_files_are_those_of_the_design():
    assert {str(path.relative_to(CONF)) for path in FILES} >= {
        "ingest/default.yaml",
        *(f"train/{method}.yaml" for method in get_args(Method)),
        *(f"train/{method}-tiny.yaml" for method in get_args(Method) if method != "fastcut"),
        "stylize/default.yaml",
        "promote/default.yaml",
        "site/laptop.yaml",
        "site/kuberay.yaml",
    }
    assert {path.parent.name for path in FILES} <= {*CONFIGS, "site"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_loads(path: Path):
    folder = path.parent.name
    for verb in CONFIGS if folder == "site" else [folder]:
        loaded = load_config(
            verb, [str(path), *required(verb, path.name), *(METHOD if folder == "site" and verb == "train" else [])]
        )
        if folder != "site":
            assert any(origin.startswith(str(path)) for origin in loaded.origins.values())


@pytest.mark.parametrize("path", GATES, ids=lambda path: path.name)
def test_gates_load_and_ask_for_content(path: Path):
    rules, sha256 = load_gates(str(path))
    asked = {gate.measure for gate in rules.hard}
    assert {"edge_cosine", "identification", "clipped", "constant", "identity"} <= asked and len(sha256) == 64
    assert ("style" in rules.improves) == (path.name == "gates.yaml") and len(GATES) >= 2


@pytest.mark.parametrize("name", ["ingest", "stylize", "promote"])
def test_files_that_write_the_defaults_out_agree_with_the_schema(name: str):
    path = CONF / name / "default.yaml"
    assert load_config(name, [str(path), *REQUIRED[name]]).config == load_config(name, REQUIRED[name]).config


def test_site_files_say_something_for_train_and_stylize():
    laptop, kuberay = str(CONF / "site/laptop.yaml"), str(CONF / "site/kuberay.yaml")
    train = load_config("train", [laptop, *METHOD, *REQUIRED["train"]]).config
    # Without logical CPUs beside those of the workers, the data tasks never start.
    assert train.cluster.num_cpus > train.workers * train.worker_cpus
    assert load_config("train", [kuberay, *METHOD, *REQUIRED["train"]]).config.use_gpu
    assert load_config("stylize", [kuberay, *REQUIRED["stylize"]]).config.cluster.actor_gpus == 1


@pytest.mark.parametrize("method", get_args(Method))
def test_recipes_write_out_the_published_numbers_of_the_method(method: str):
    """So that the file and the method cannot disagree; the rate of stargan is scaled to its batch."""
    values = flatten(load_config("train", [str(CONF / f"train/{method}.yaml"), *required("train", method)]).config)
    assert values["method"] == method
    name, preset = PRESETS.get(method, (method, {}))
    options = METHODS[name].options_class
    published = {field.name: field.default for field in fields(options)} | preset
    written = {field: values[key] for key, field in OPTION_OF_KEY.items() if values[key] is not None}
    differing = {field for field, value in written.items() if value != published[field]}
    assert differing == {"stargan": {"learning_rate"}, "fst": {"mosaic"}}.get(method, set())


@pytest.mark.parametrize("method", [method for method in get_args(Method) if method != "fastcut"])
def test_tiny_recipes_are_tiny(method: str):
    config = load_config("train", [str(CONF / f"train/{method}-tiny.yaml"), *required("train", method)]).config
    assert config.method == method and config.workers == 2 and config.batch <= 2 and config.size_px <= 96
