"""Every YAML under conf/ loads for the verb of its folder; site files load for every verb."""

from pathlib import Path

import pytest

from stylejobs.config.load import load_config
from stylejobs.config.schema import CONFIGS

CONF = Path(__file__).parents[2] / "conf"
REQUIRED = {
    "ingest": ["source=a", "dest=b"],
    "train": ["method=fast", "content=a", "style=b", "name=c"],
    "promote": ["model=models:/m/1"],
    "stylize": ["source=a", "dest=b", "model=models:/m@champion"],
}
FILES = sorted(CONF.rglob("*.yaml"))


def test_the_files_are_those_of_the_design():
    assert {str(path.relative_to(CONF)) for path in FILES} >= {
        "ingest/default.yaml",
        "train/fast.yaml",
        "train/fast-tiny.yaml",
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
        loaded = load_config(verb, [str(path), *REQUIRED[verb]])
        if folder != "site":
            assert any(origin.startswith(str(path)) for origin in loaded.origins.values())


@pytest.mark.parametrize("name", ["ingest", "stylize", "promote"])
def test_files_that_write_the_defaults_out_agree_with_the_schema(name: str):
    path = CONF / name / "default.yaml"
    assert load_config(name, [str(path), *REQUIRED[name]]).config == load_config(name, REQUIRED[name]).config


def test_site_files_say_something_for_train_and_stylize():
    laptop, kuberay = str(CONF / "site/laptop.yaml"), str(CONF / "site/kuberay.yaml")
    train = load_config("train", [laptop, *REQUIRED["train"]]).config
    # Without logical CPUs beside those of the workers, the data tasks never start.
    assert train.cluster.num_cpus > train.workers * train.worker_cpus
    assert load_config("train", [kuberay, *REQUIRED["train"]]).config.use_gpu
    assert load_config("stylize", [kuberay, *REQUIRED["stylize"]]).config.cluster.actor_gpus == 1
