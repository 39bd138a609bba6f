"""Loading: merge order, overrides, verb sections, origins, digest, --show; laws by hypothesis."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylejobs.config.load import Loaded, format_show, load_config, split_flags
from stylejobs.config.overrides import FORBIDDEN

TRAIN = ["method=fast", "content=images", "style=style.png", "name=mosaic"]
STYLIZE = ["source=images", "dest=out", "model=models:/m@champion"]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_files_merge_left_to_right_then_overrides_wherever_they_stand(folder: Path):
    first = write("a.yaml", "steps: 1\nbatch: 1\nseed: 1\ngenerator: {width: 8, blocks: 1}\n")
    second = write("b.yaml", "batch: 2\nseed: 2\ngenerator:\n  blocks: 2\n")
    loaded = load_config("train", ["seed=3", first, *TRAIN, second])
    config = loaded.config
    assert (config.steps, config.batch, config.seed) == (1, 2, 3)
    assert (config.generator.width, config.generator.blocks) == (8, 2)
    assert loaded.origins["steps"] == "a.yaml:1"
    assert loaded.origins["batch"] == "b.yaml:1"
    assert loaded.origins["generator.width"] == "a.yaml:4"
    assert loaded.origins["generator.blocks"] == "b.yaml:4"
    assert loaded.origins["seed"] == "override"
    assert loaded.origins["optim.lr"] == "default"


def test_a_file_that_is_merged_later_may_mend_an_earlier_value(folder: Path):
    first = write("a.yaml", "steps: 0\n")
    assert load_config("train", [first, "steps=5", *TRAIN]).config.steps == 5


def test_the_last_of_equal_overrides_wins():
    assert load_config("train", [*TRAIN, "steps=4", "steps=5"]).config.steps == 5


def test_words_become_values():
    config = load_config(
        "train",
        [*TRAIN, "use_gpu=true", "optim.lr=1e-3", "backbone.style_layers=fire2,fire3", "run_name=none", "loss.tv=null"],
    ).config
    assert config.use_gpu is True
    assert config.optim.lr == 0.001
    assert config.backbone.style_layers == ("fire2", "fire3")
    assert config.run_name is None and config.loss.tv is None


def test_yaml_values(folder: Path):
    path = write(
        "a.yaml",
        "optim: {lr: 1e-4}  # PyYAML reads text here\nbackbone:\n  style_layers: [fire2, fire3]\n"
        "run_name: 'one $run; \"with\" any text'\nloss:\n  # all commented out\ncontent: /a folder/images\n",
    )
    config = load_config("train", ["method=fast", "style=b", "name=c", path]).config
    assert config.optim.lr == 1e-4
    assert config.backbone.style_layers == ("fire2", "fire3")
    assert config.run_name == 'one $run; "with" any text'
    assert config.content == "/a folder/images"


def test_none_stays_a_choice_where_it_is_one():
    arguments = ["source=a", "dest=b"]
    assert load_config("ingest", [*arguments, "labels=none"]).config.labels == "none"


def test_size_is_keep_or_a_number():
    assert load_config("stylize", [*STYLIZE, "size=keep"]).config.size == "keep"
    assert load_config("stylize", [*STYLIZE, "size=512"]).config.size == 512


def test_an_empty_file_and_dotted_keys_mean_what_they_say(folder: Path):
    empty, dotted = write("e.yaml", "# nothing\n"), write("d.yml", "generator.width: 12\n")
    assert load_config("train", [empty, dotted, *TRAIN]).config.generator.width == 12


def test_a_verb_section_is_for_that_verb_only_and_wins_in_its_file(folder: Path):
    site = write(
        "site.yaml", "train:\n  workers: 3\n  seed: 9\nseed: 1\nstylize: {cluster: {actors: 2}, nonsense: 1}\n"
    )
    loaded = load_config("train", [site, *TRAIN])
    assert (loaded.config.workers, loaded.config.seed) == (3, 9)
    assert loaded.origins["seed"] == "site.yaml:3"
    later = write("later.yaml", "seed: 4\n")
    assert load_config("train", [site, later, *TRAIN]).config.seed == 4
    assert load_config("train", [write("null.yaml", "train:\nstylize:\n"), *TRAIN]).config.seed == 0


def test_digest_is_of_the_values_not_of_their_spelling(folder: Path):
    path = write("a.yaml", "steps: 40000\nema: 0.999\nlimits: {max_mb: 64}\n")
    plain = load_config("train", TRAIN)
    assert load_config("train", [path, *TRAIN]).digest == plain.digest
    assert load_config("train", [*TRAIN, "ema=999e-3"]).digest == plain.digest
    assert load_config("train", [*TRAIN, "seed=1"]).digest != plain.digest
    canonical = json.dumps(plain.config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    assert plain.digest == hashlib.sha256(canonical.encode()).hexdigest()


def test_every_key_has_an_origin():
    loaded = load_config("stylize", STYLIZE)
    assert loaded.verb == "stylize"
    assert set(flatten(loaded.config.model_dump())) == set(loaded.origins)


def test_flags_are_split_off_and_unknown_ones_left():
    assert split_flags(["a.yaml", "--show", "x=1", "--help", "--shw"]) == (
        {"--show", "--help"},
        ["a.yaml", "x=1", "--shw"],
    )
    assert split_flags([]) == (set(), [])


def test_show_prints_values_with_origins(folder: Path):
    path = write("a.yaml", "# one\nstyles: [sea, sky]\nlimits:\n  max_mb: 2\n")
    text = format_show(load_config("stylize", [path, *STYLIZE, "seed=3"]))
    shown = re.sub(" +#", " #", text).splitlines()
    for line in (
        "source: images # override",
        "styles: [sea, sky] # a.yaml:2",
        "seed: 3 # override",
        "strength: 1.0 # default",
        "limits:",
        "  max_mb: 2.0 # a.yaml:4",
        "run_name: null # default",
    ):
        assert line in shown


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def to_override(key: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{key}={','.join(value)}"
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def optional(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


UNSET = ("none", "null")
PLAIN = st.from_regex(r"[A-Za-z0-9._/+-][A-Za-z0-9._/+:=-]{0,20}", fullmatch=True).filter(
    lambda text: text.lower() not in UNSET and text not in ("images", "out")
)
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.lower() not in UNSET and "://" not in text
)
POSITIVE = st.floats(1e-9, 1e12)
VALUES: dict[str, st.SearchStrategy] = {
    "run_name": optional(PLAIN),
    "styles": optional(st.lists(PLAIN, min_size=1, max_size=3)),
    "variants": st.integers(1, 100),
    "strength": st.floats(0, 1),
    "seed": st.integers(0, 2**63 - 1),
    "size": st.just("keep") | st.integers(8, 4096),
    "format": st.sampled_from(["jpeg", "png", "webp"]),
    "plan": st.booleans(),
    "unit_mb": POSITIVE,
    "limits.max_mb": POSITIVE,
    "cluster.actors": optional(st.integers(1, 99)),
}
SOME_VALUES = st.fixed_dictionaries({}, optional=VALUES)


def to_yaml_file(name: str, values: dict[str, Any]) -> str:
    return write(name, yaml.safe_dump(values, allow_unicode=True))


def values_of(loaded: Loaded) -> dict[str, Any]:
    return flatten(loaded.config.model_dump())


@QUICK
@given(values=SOME_VALUES)
def test_law_an_override_means_what_the_same_value_means_in_a_file(folder: Path, values: dict[str, Any]):
    overrides = [to_override(key, value) for key, value in values.items()]
    by_override = load_config("stylize", [*STYLIZE, *overrides])
    by_file = load_config("stylize", [*STYLIZE, to_yaml_file("v.yaml", values)])
    assert by_override.digest == by_file.digest
    for key, value in values.items():
        assert values_of(by_override)[key] == (tuple(value) if isinstance(value, list) else value)


@QUICK
@given(values=SOME_VALUES)
def test_law_a_config_written_as_overrides_is_the_same_config(values: dict[str, Any]):
    loaded = load_config("stylize", [*STYLIZE, *(to_override(key, value) for key, value in values.items())])
    again = [to_override(key, value) for key, value in values_of(loaded).items()]
    assert not any(FORBIDDEN.search(text) for text in again)
    assert load_config("stylize", again).config == loaded.config


@QUICK
@given(first=SOME_VALUES, second=SOME_VALUES, third=SOME_VALUES)
def test_law_merging_is_last_wins_and_associative(folder: Path, first: dict, second: dict, third: dict):
    paths = [to_yaml_file(f"{i}.yaml", values) for i, values in enumerate((first, second, third))]
    one_by_one = load_config("stylize", [*STYLIZE, *paths])
    at_once = load_config("stylize", [*STYLIZE, to_yaml_file("all.yaml", {**first, **second, **third})])
    left = load_config("stylize", [*STYLIZE, to_yaml_file("left.yaml", {**first, **second}), paths[2]])
    assert one_by_one.digest == at_once.digest == left.digest
    assert load_config("stylize", [*STYLIZE, *paths, paths[2]]).digest == one_by_one.digest


@QUICK
@given(values=SOME_VALUES, run_name=ANY_TEXT)
def test_law_show_is_a_file_that_loads_to_the_same_config(folder: Path, values: dict[str, Any], run_name: str):
    loaded = load_config("stylize", [*STYLIZE, to_yaml_file("v.yaml", {**values, "run_name": run_name})])
    shown = load_config("stylize", [write("shown.yaml", format_show(loaded))])
    assert shown.config == loaded.config and shown.digest == loaded.digest


def test_loading_is_fast_and_imports_nothing_heavy():
    """A wrong config must answer in under two seconds, on a busy machine too."""
    code = (
        "import sys, time\n"
        "from stylejobs.config.load import load_config\n"
        "from stylejobs.errors import ConfigError\n"
        "try: load_config('train', ['sorce=x'])\n"
        "except ConfigError as error: assert 'required' in str(error)\n"
        "heavy = {'ray', 'torch', 'mlflow', 'pyarrow', 'numpy', 'PIL', 'fsspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(time.process_time())\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1.5
