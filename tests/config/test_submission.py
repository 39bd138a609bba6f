"""The command line of submit: whose key is whose, and what a person reads when one is wrong."""

from pathlib import Path

import pytest

from stylejobs.config.load import format_show
from stylejobs.config.submission import load_submission
from stylejobs.errors import ConfigError

ADDRESS = "address=http://127.0.0.1:8265"
JOB = ("source=photos", "dest=out", "model=builtin:moments")


def load(*arguments: str):
    return load_submission("submit", arguments)


def problems(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)
    return [" ".join(line.split()) for line in caught.value.problems]


def test_keys_go_where_they_belong_wherever_they_stand():
    submission = load("stylize", *JOB, ADDRESS, "detach=true", "seed=3").config
    assert submission.keys.detach and submission.keys.address == "http://127.0.0.1:8265"
    assert submission.job.verb == "stylize"
    assert (submission.job.config.source, submission.job.config.seed) == ("photos", 3)


def test_a_key_whose_value_is_a_file_is_no_file_of_keys():
    job = ("model=models:/m/3", "data=photos", "gates=conf/evaluate/gates-demo.yaml")
    assert load("evaluate", ADDRESS, *job).config.job.config.gates == "conf/evaluate/gates-demo.yaml"


def test_a_file_about_a_place_holds_keys_of_both(tmp_path: Path):
    site = tmp_path / "site.yaml"
    site.write_text("submit: {address: http://head:8265, stop_on_cancel: true}\nstylize: {unit_mb: 8}\nseed: 5\n")
    submission = load("stylize", str(site), *JOB).config
    assert submission.keys.address == "http://head:8265" and submission.keys.stop_on_cancel
    assert (submission.job.config.unit_mb, submission.job.config.seed) == (8, 5)


def test_show_is_a_file_that_loads_to_the_same(tmp_path: Path):
    loaded = load("stylize", *JOB, ADDRESS, "heartbeat_seconds=5", "cluster.actors=2")
    path = tmp_path / "shown.yaml"
    path.write_text(format_show(loaded))
    again = load("stylize", str(path))
    assert again.config.keys == loaded.config.keys and again.digest == loaded.digest


def test_all_problems_of_both_at_once():
    lines = problems("stylize", "adress=http://head:8265", "source=a", "dest=b", "model=c", "sead=1", "detach=maybe")
    assert lines[0] == "adress unknown key of submit and of stylize; did you mean 'address'?"
    assert any(line.startswith("address required") for line in lines)
    assert any(line.startswith("detach wanted true or false") for line in lines)
    assert any(line.startswith("sead unknown key of stylize; did you mean 'seed'?") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "submit no verb; wanted submit VERB"),
        (("stylise", ADDRESS), "unknown verb; did you mean 'stylize'?"),
        (("submit", ADDRESS), "unknown verb"),
        (("stylize", "address=http://me:secret@head:8265", *JOB), "holds credentials"),
        (("stylize", "address=head:8265", *JOB), "wanted http://HOST:PORT"),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], wanted: str):
    assert any(wanted in line for line in problems(*arguments))
