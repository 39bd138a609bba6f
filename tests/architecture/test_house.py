"""The house rules of DESIGN, held by tests."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted([*ROOT.glob("stylejobs/**/*.py"), *ROOT.glob("pipelines/*.py"), *ROOT.glob("infra/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))


def test_the_floors_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["stylejobs.core.losses", "stylejobs.core.methods", "stylejobs.core.networks"])
def test_core_works_with_torch_alone(module: str) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['ray', 'mlflow', 'pyarrow', 'pydantic', 'fsspec', 'PIL']))"
    # torchvision imports PIL on its own account, where it can live without it.
    blocked = blocked.replace(", 'PIL'", "")
    done = subprocess.run([sys.executable, "-c", f"{blocked}; import {module}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_imports_nothing() -> None:
    tree = ast.parse((ROOT / "stylejobs/__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_functions_and_arguments_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is longer than 50 lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            assert len(named) <= 7, f"{node.name} takes {len(named)} arguments"


def test_no_catch_all_files() -> None:
    assert not [path for path in CODE if path.stem in ("utils", "common", "helpers", "misc")]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py" and not tree.body:
        return
    assert ast.get_docstring(tree), "the module says nothing about itself"
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    silent = [node.name for node in public if not ast.get_docstring(node) and node.name != "main"]
    assert not silent, f"no docstring: {silent}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled_or_swallowed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not {"pickle", "cloudpickle", "dill", "joblib"} & set(names)
        if isinstance(node, ast.ExceptHandler):
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), "an exception is swallowed"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


def test_the_public_face_is_frozen() -> None:
    from stylejobs import api

    assert api.__all__ == sorted(name for names in api._HOMES.values() for name in names)
    assert api.__all__ == [
        "AdoptConfig",
        "BenchmarkConfig",
        "EvaluateConfig",
        "ExportConfig",
        "IngestConfig",
        "JobResult",
        "PromoteConfig",
        "ReplayConfig",
        "StylizeConfig",
        "Submission",
        "TrainConfig",
        "VerifyConfig",
        "adopt",
        "benchmark",
        "benchmark_place",
        "describe_plan",
        "evaluate",
        "export",
        "ingest",
        "load_submission",
        "plan_benchmark",
        "plan_ingest",
        "plan_panel",
        "plan_retry",
        "plan_stylize",
        "plan_training",
        "promote",
        "register",
        "replay",
        "run_command",
        "stylize",
        "submit",
        "train",
        "verify",
    ]
    for name in api.__all__:
        assert getattr(api, name).__doc__


def test_commands_of_the_readme_parse() -> None:
    from stylejobs.config.load import load_config, split_flags
    from stylejobs.config.submission import load_submission

    lines = re.findall(r"python -m pipelines\.(\w+) ([^\n`#]+)", (ROOT / "README.md").read_text().replace("\\\n", " "))
    assert len(lines) >= 4
    os.chdir(ROOT)
    for verb, arguments in lines:
        flags, rest = split_flags(arguments.split())
        if not flags:
            (load_submission if verb == "submit" else load_config)(verb, rest)


def test_changelog_names_this_version() -> None:
    from stylejobs import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_is_short_and_the_places_that_texts_name_are_there() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for place in re.findall(r"^\s*((?:stylejobs|pipelines|conf|infra|tests)/[\w./]*)", text, re.MULTILINE):
            assert (ROOT / place).exists(), f"{name} names {place}, which is not there"


def test_no_path_of_one_machine_is_committed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    texts = [ROOT / name for name in tracked if not name.endswith((".png", ".jpg", ".lock"))]
    assert not [
        path
        for path in texts
        if path.exists() and re.search(r"(^|[^\w.])/(work|root|home)/\w", path.read_text(errors="replace"))
    ]
