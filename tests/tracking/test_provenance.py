"""The tags against git, pip and the files themselves."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import stylejobs
from stylejobs.tracking.provenance import PACKAGE, code_tags, installed_packages

COMMIT = "mlflow.source.git.commit"
DIRTY = "mlflow.source.git.dirty"


def _git(folder, *arguments):
    line = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a package in it, and a remote that holds a password."""
    package = tmp_path / "tree" / "stylejobs"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    (package / "sub" / "two.py").write_text("two = 2\n")
    (tmp_path / "tree" / "requirements.lock").write_text("torch==1\n")
    _git(tmp_path, "init", "--quiet", "tree")
    _git(package, "remote", "add", "origin", "https://ann:hunter2@host/repo.git")
    _git(package, "add", "--all", "..")
    _git(package, "commit", "--quiet", "--message", "first")
    return package


def test_a_checkout_knows_its_commit_and_its_changes(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    clean = code_tags(checkout)
    monkeypatch.delenv("GIT_DIR")
    assert clean[COMMIT] == _git(checkout, "rev-parse", "HEAD") and clean[DIRTY] == "false"
    (checkout / "new.py").write_text("")
    (checkout.parent / "notes.txt").write_text("not of the package, not committed")
    new = code_tags(checkout)
    assert new[DIRTY] == "false" and new["stylejobs.code_sha256"] != clean["stylejobs.code_sha256"]
    (checkout / "sub" / "two.py").write_text("two = 3\n")
    assert code_tags(checkout)[DIRTY] == "true"
    assert "hunter2" not in json.dumps(clean)


def test_a_package_inside_the_checkout_of_something_else_has_no_commit(checkout):
    installed = checkout.parent / ".venv" / "stylejobs"
    shutil.copytree(checkout, installed)
    tags = code_tags(installed)
    assert COMMIT not in tags and DIRTY not in tags and "stylejobs.lock_sha256" not in tags
    assert tags["stylejobs.code_sha256"] == code_tags(checkout)["stylejobs.code_sha256"]


@pytest.mark.parametrize(("commit", "known"), [("0123abc", True), ("https://ann:hunter2@host", False), ("", False)])
def test_where_git_is_missing_the_image_can_say_the_commit(checkout, monkeypatch, commit, known):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("STYLEJOBS_GIT_COMMIT", commit)
    tags = code_tags(checkout)
    assert tags.get(COMMIT) == (commit if known else None) and DIRTY not in tags
    assert tags["stylejobs.version"] == stylejobs.__version__


def test_the_digests_are_those_of_the_files(checkout):
    tags = code_tags(checkout)
    lines = [
        f"{hashlib.sha256(b'one = 1' + bytes([10])).hexdigest()}  __init__.py\n",
        f"{hashlib.sha256(b'two = 2' + bytes([10])).hexdigest()}  sub/two.py\n",
    ]
    assert tags["stylejobs.code_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert tags["stylejobs.lock_sha256"] == hashlib.sha256(b"torch==1\n").hexdigest()
    assert tags["stylejobs.packages_sha256"] == hashlib.sha256(installed_packages().encode()).hexdigest()


def test_the_packages_are_those_that_pip_lists():
    line = [sys.executable, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    wanted = sorted(f"{canonicalize_name(row['name'])}=={row['version']}" for row in listed)
    assert installed_packages().splitlines() == wanted


def test_what_a_program_puts_on_the_path_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "vendored-1.0.dist-info").mkdir()
    (tmp_path / "vendored-1.0.dist-info" / "METADATA").write_text("Name: vendored\nVersion: 1.0\n")
    before = installed_packages()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_packages() == before


def test_this_tree_has_all_tags():
    assert PACKAGE.name == "stylejobs" and (PACKAGE / "api.py").exists()
    assert {"stylejobs.lock_sha256", "mlflow.source.name"} <= set(code_tags())
