"""Files of gates: what they mean, their digest, and what a person reads when one is wrong."""

from pathlib import Path

import pytest

from stylejobs.config.gating import load_gates
from stylejobs.core.gates import Gate, Rules
from stylejobs.errors import ConfigError

GATES = """\
confidence: 0.95
hard:
  edge_cosine: {at_least: 0.45}
  style: {above: reinhard}
  sliced_wasserstein_0: {at_most: 1.25, of: baseline}
  nyquist: {at_least: 0.5, at_most: 2, confidence: 0.9}
  label_agreement: {at_least: 0.8, if_measured: true}
improves: [style, downstream]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str) -> tuple[Rules, str]:
    Path("gates.yaml").write_text(text)
    return load_gates("gates.yaml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_code == 2
    return [" ".join(line.split()) for line in caught.value.problems]


def test_a_file_means_these_gates():
    rules, _ = load(GATES)
    assert set(rules.hard) == {
        Gate("edge_cosine", "at_least", 0.45),
        Gate("style", "above", None, "reinhard"),
        Gate("sliced_wasserstein_0", "at_most", 1.25, "baseline"),
        Gate("nyquist", "at_least", 0.5, confidence=0.9),
        Gate("nyquist", "at_most", 2.0, confidence=0.9),
        Gate("label_agreement", "at_least", 0.8, if_measured=True),
    }
    assert rules.improves == ("style", "downstream") and rules.confidence == 0.95
    assert rules.confidences == (0.9, 0.95) and rules.rows == ("reinhard",)


@pytest.mark.parametrize(
    "same",
    [
        "# another comment\n" + GATES.replace("at_most: 2,", "at_most: 2.0,"),
        GATES.replace(
            "{at_least: 0.5, at_most: 2, confidence: 0.9}", "{confidence: 0.90, at_most: 2e0, at_least: 5e-1}"
        ),
        GATES.replace("confidence: 0.95\n", ""),
        GATES.replace("  edge_cosine: {at_least: 0.45}\n", "").replace(
            "improves:", "  edge_cosine:\n    at_least: 0.45\nimproves:"
        ),
        GATES.replace("[style, downstream]", "downstream,style"),
        GATES.replace("{at_least: 0.45}", "{at_least: 0.45, if_measured: false, confidence: 0.95}"),
    ],
)
def test_the_digest_is_of_what_is_meant(same):
    assert same != GATES and load(same)[1] == load(GATES)[1]


@pytest.mark.parametrize(
    "other",
    [
        GATES.replace("0.45", "0.46"),
        GATES.replace("confidence: 0.95", "confidence: 0.99"),
        GATES.replace("reinhard", "fda"),
        GATES.replace(", of: baseline", ""),
        GATES.replace(", if_measured: true", ""),
        GATES.replace("[style, downstream]", "[style]"),
    ],
)
def test_another_meaning_has_another_digest(other):
    assert other != GATES and load(other)[1] != load(GATES)[1]


def test_all_problems_at_once_with_their_lines():
    text = (
        "confidnce: 0.9\n"
        "hard:\n"
        "  edge_cosin: {at_least: 0.5}\n"
        "  edge_cosine: {at_most: 0.5}\n"
        "  clipped: {at_mots: 0.5, at_most: many}\n"
        "  style: {above: rainhard}\n"
        "  coverage: 0.5\n"
        "  pairwise: {if_measured: true}\n"
        "  ms_ssim: {at_least: 0.3, confidence: 1}\n"
        "  style_raw: {above: fda, of: baseline}\n"
        "improves: [styl]\n"
    )
    *lines, last = problems(text)
    assert lines == [
        "confidnce unknown key of gates; did you mean 'confidence'? [gates.yaml:1]",
        "hard.edge_cosin.at_least unknown measure; did you mean 'edge_cosine'? [gates.yaml:3]",
        "hard.clipped.at_mots unknown key of a gate; did you mean 'at_most'? [gates.yaml:5]",
        "hard.coverage is a section; wanted bounds such as at_least below it [gates.yaml:7]",
        "hard.edge_cosine.at_most edge_cosine is better higher; wanted at_least or above [gates.yaml:4]",
        "hard.pairwise.if_measured wanted a bound beside it: at_least, at_most, above or below [gates.yaml:8]",
        "hard.style_raw.of is read only with at_least or at_most [gates.yaml:10]",
        "hard.ms_ssim.confidence wanted < 1.0; got 1 [gates.yaml:9]",
        "hard.style.above wanted one of 'identity', 'reinhard', 'fda', 'blur', 'noise', 'checkerboard', 'shuffled', "
        "'copy', 'collapse', 'baseline'; got 'rainhard'; did you mean 'reinhard'? [gates.yaml:6]",
        "hard.clipped.at_most wanted a number; got 'many' [gates.yaml:5]",
    ]
    assert last.startswith("improves wanted one of") and last.endswith("did you mean 'style'? [gates.yaml:11]")


def test_only_what_is_compared_image_by_image_can_be_held_against_the_baseline():
    [line] = problems("hard: {style: {at_least: 0.9, of: baseline}}\n")
    assert line.startswith("hard.style.of only these are compared as ratios: sliced_wasserstein_0")
    [line] = problems("hard: {coverage: {above: baseline}}\n")
    assert line.startswith("hard.coverage.above coverage of two models is not compared image by image")


def test_improves_takes_measures_that_have_a_better_side():
    [line] = problems("hard: {style: {above: fda}}\nimproves: [nyquist]\n")
    assert line.startswith("improves wanted one of 'edge_cosine'") and "got 'nyquist'" in line
    [line] = problems("hard: {style: {above: fda}}\nimproves: [styl]\n")
    assert "did you mean 'style'" in line and line.endswith("[gates.yaml:2]")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "asks for nothing"),
        ("hard:\nimproves: [style]\n", "asks for nothing"),
        ("hard: 3\n", "is a section; wanted measures below it"),
        ("- a\n", "wanted lines `key: value`"),
        ("hard: {nonsense: {at_least: 1}}\n", "unknown measure; there are edge_cosine"),
        ("hard: {clipped: {at_most: .nan}}\n", "wanted a finite number"),
        ("hard: {clipped: {at_most: 1}, clipped: {at_most: 2}}\n", "written twice"),
    ],
)
def test_what_cannot_be_meant(text, says):
    assert any(says in line for line in problems(text))


def test_the_defaults_are_found_from_every_folder(folder: Path):
    defaults = load_gates("conf/evaluate/gates.yaml")
    assert "style" in defaults[0].improves
    (folder / "conf/evaluate").mkdir(parents=True)
    (folder / "conf/evaluate/gates.yaml").write_text("hard: {clipped: {at_most: 0.5}}\n")
    assert load_gates("conf/evaluate/gates.yaml")[0].hard == (Gate("clipped", "at_most", 0.5),)
    with pytest.raises(ConfigError, match="no such file"):
        load_gates("conf/evaluate/others.yaml")
