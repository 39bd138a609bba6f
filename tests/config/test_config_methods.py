"""Which keys a method reads: equal to what the core takes, and an error for every other key that is set."""

import inspect
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from stylejobs.config.load import load_config
from stylejobs.config.methods import (
    CRITIC_OPTIONS,
    CRITICS,
    GENERATOR_OPTIONS,
    GENERATORS,
    METHOD_KEYS,
    OPTION_KEYS,
    OPTION_OF_KEY,
    find_unread,
    method_keys,
)
from stylejobs.config.schema import TrainConfig
from stylejobs.config.sections import list_fields
from stylejobs.config.training import Critic, Generator, Method
from stylejobs.core.methods import METHODS, PRESETS
from stylejobs.core.networks import NETWORKS
from stylejobs.core.networks.classifier import Classifier
from stylejobs.core.networks.critics import CRITICS as CRITIC_CLASSES
from stylejobs.errors import ConfigError

REQUIRED = ["content=a", "style=b", "name=c"]
# What a network takes but no person sets: the method knows it.
_INNER = {"domains", "classes", "adapter", "style_dim", "grid", "width_scale", "size_px", "inner", "public"}


def options_class(method: str) -> type:
    name = PRESETS.get(method, (method, {}))[0]
    return METHODS[name].options_class


def test_every_method_of_the_schema_is_described():
    assert set(get_args(Method)) == set(GENERATORS) == set(OPTION_KEYS) == set(METHOD_KEYS)
    assert set(METHODS) | set(PRESETS) == set(GENERATORS)


@pytest.mark.parametrize("method", GENERATORS)
def test_keys_of_a_method_are_the_fields_of_its_options(method: str):
    assert {OPTION_OF_KEY[key] for key in OPTION_KEYS[method]} == {
        field.name for field in fields(options_class(method))
    }


@pytest.mark.parametrize("name", GENERATOR_OPTIONS)
def test_generator_keys_are_arguments_of_the_network(name: str):
    inner = _INNER - {"size_px"} if name == "exemplar" else _INNER
    network = Classifier if name == "classifier" else NETWORKS[name]
    taken = set(inspect.signature(network).parameters) - inner
    assert set(GENERATOR_OPTIONS[name].split()) == taken


@pytest.mark.parametrize("name", CRITIC_OPTIONS)
def test_critic_keys_are_arguments_of_the_network(name: str):
    assert set(CRITIC_OPTIONS[name].split()) == set(inspect.signature(CRITIC_CLASSES[name]).parameters) - _INNER


def test_names_of_networks_are_those_of_the_schema():
    def choices(section: type) -> set[str]:
        return {name for kind in get_args(section.model_fields["name"].annotation) for name in get_args(kind)}

    assert choices(Generator) == set(GENERATOR_OPTIONS) == {name for names in GENERATORS.values() for name in names}
    assert choices(Critic) == set(CRITIC_OPTIONS) == {name for names in CRITICS.values() for name in names}


def test_every_key_of_a_method_is_a_key_and_every_key_has_a_method():
    keys = set(list_fields(TrainConfig))
    read = {
        key
        for method, generators in GENERATORS.items()
        for generator in generators
        for critic in CRITICS.get(method, (None,))
        for key in method_keys(method, generator, critic)
    }
    assert read <= keys and set(OPTION_OF_KEY) <= keys
    sections = ("generator.", "critic.", "loss.", "recipe.")
    assert {key for key in keys if key.startswith(sections)} <= read


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        ("loss.cycle=1", "loss.cycle", "is not read by method=fast, which reads loss.content, loss.style, loss.tv"),
        ("critic.width=8", "critic.width", "is not read by method=fast, which has no critic keys; leave it out"),
        ("generator.name=resnet", "generator.name", "method=fast trains with johnson; got 'resnet'"),
        ("generator.tied=true", "generator.tied", "which reads generator.name, generator.width, generator.blocks"),
        ("optim.beta1=0.5", "optim.beta1", "which reads optim.lr"),
        ("backbone.layer=relu4_1", "backbone.layer", "unknown key of train"),
    ],
)
def test_a_key_that_the_method_does_not_read_is_refused_where_it_stands(given: str, key: str, said: str):
    with pytest.raises(ConfigError) as caught:
        load_config("train", ["method=fast", *REQUIRED, given])
    (line,) = caught.value.problems
    assert line.startswith(key) and said in line and line.endswith(f"[override {key}=]")


def test_it_is_told_together_with_all_other_problems(tmp_path: Path):
    file = tmp_path / "t.yaml"
    file.write_text("method: fast\nloss:\n  cycle: 3\nseed: x\nrecipe: {pool: 4}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("train", [str(file), "content=a", "name=c"])
    origins = {line.split()[0]: line.rpartition("[")[2] for line in caught.value.problems}
    assert origins["loss.cycle"] == f"{file}:3]" and origins["recipe.pool"] == f"{file}:5]"
    assert origins.keys() == {"loss.cycle", "recipe.pool", "seed", "style"}


def test_a_config_that_is_built_by_hand_is_checked_too():
    with pytest.raises(ValidationError) as caught:
        TrainConfig(method="adain", content="a", style="b", name="c", loss={"cycle": 1}, recipe={"pool": 1})
    assert {error["loc"] for error in caught.value.errors()} == {("loss", "cycle"), ("recipe", "pool")}


def test_none_sets_nothing():
    values = {"method": "fast", "style": "b", "loss.cycle": None, "recipe.pool": "none", "critic.name": "null"}
    assert find_unread(values) == {}
    load_config("train", ["method=fast", *REQUIRED, "loss.cycle=none", "recipe.adapters=none"])


def test_networks_decide_which_of_their_keys_are_read():
    load_config(
        "train",
        ["method=cyclegan", *REQUIRED, "generator.tied=true", "critic.name=multiscale", "critic.scales=2"],
    )
    for wrong in ("generator.name=johnson", "critic.name=dcgan"):
        with pytest.raises(ConfigError, match=r"with (generator|critic)\.name="):
            load_config("train", ["method=cyclegan", *REQUIRED, "generator.tied=true", "critic.layers=2", wrong])


@pytest.mark.parametrize(("wrong", "near"), [("cyclegann", "cyclegan"), ("fastcat", "fastcut"), ("adian", "adain")])
def test_a_method_that_does_not_exist_gets_the_nearest_one(wrong: str, near: str):
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        load_config("train", [f"method={wrong}", *REQUIRED])


@pytest.mark.parametrize(("key", "wrong", "near"), [("generator", "resnt", "resnet"), ("critic", "patchs", "patch")])
def test_a_network_that_does_not_exist_gets_the_nearest_one(key: str, wrong: str, near: str):
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        load_config("train", ["method=cyclegan", *REQUIRED, f"{key}.name={wrong}"])


def test_errors_come_at_once_and_without_torch():
    code = (
        "import sys\nfrom stylejobs.config.load import load_config\n"
        "try:\n    load_config('train', ['method=fast', 'content=a', 'style=b', 'name=c', 'loss.cycle=1'])\n"
        "except Exception as error:\n    print(error)\n"
        "assert not {'torch', 'ray', 'pyarrow'} & sys.modules.keys()"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "loss.cycle" in done.stdout and done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10


def test_a_classifier_learns_no_style_and_all_others_do():
    load_config("train", ["method=classifier", "content=a", "name=c", "generator.width=8", "optim.decay_from=0.5"])
    TrainConfig(method="classifier", content="a", name="c")
    for wrong in ("style=b", "evaluation.every_images=100", "critic.width=8"):
        with pytest.raises(ConfigError, match=r"is not read by method=classifier"):
            load_config("train", ["method=classifier", "content=a", "name=c", wrong])
    with pytest.raises(ConfigError, match=r"style +required by method=fast, not set: one image, or a set of them"):
        load_config("train", ["method=fast", "content=a", "name=c"])
    with pytest.raises(ValidationError, match="required by method=adain"):
        TrainConfig(method="adain", content="a", name="c")
