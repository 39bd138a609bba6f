"""The Dockerfile, read as text, since tests have no Docker. What it leaves out of the packages is left out for real."""

import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stylejobs import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra/docker/Dockerfile"
TARGETS = ("cpu", "cuda", "s3")


class Instruction(NamedTuple):
    """One instruction, its lines joined, and the stage that it stands in."""

    stage: str
    word: str
    text: str


def read_dockerfile() -> list[Instruction]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = ""
    for line in "\n".join(lines).replace("\\\n", "\n\t").replace("\n\t", "\x00").splitlines():
        word, _, text = line.partition(" ")
        if word == "FROM":
            stage = text.rpartition(" AS ")[2]
        if word:
            found.append(Instruction(stage, word, text.replace("\x00", "\\\n")))
    return found


INSTRUCTIONS = read_dockerfile()
STAGES = [one.stage for one in INSTRUCTIONS if one.word == "FROM"]


def texts(word: str, stage: str | None = None) -> list[str]:
    return [one.text for one in INSTRUCTIONS if one.word == word and stage in (None, one.stage)]


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def packages_that_go(stage: str) -> set[str]:
    (script,) = [text for text in texts("RUN", stage) if "uv pip uninstall" in text]
    _, _, words = script.replace("\\\n", " ").partition("/bin/python ")
    return {canonicalize_name(name) for name in words.split()}


def test_bases_are_pinned_and_targets_are_there() -> None:
    assert set(TARGETS) < set(STAGES) and len(set(STAGES)) == len(STAGES)
    bases = [text.partition(" AS ")[0] for text in texts("FROM")]
    outside = [base for number, base in enumerate(bases) if base not in STAGES[:number]]
    assert len(outside) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", outside[0])


def test_what_is_copied_is_there_and_comes_from_nowhere_else() -> None:
    assert not texts("ADD")
    files = tracked()
    for one in INSTRUCTIONS:
        if one.word == "COPY":
            *sources, _ = one.text.split()
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in STAGES[: STAGES.index(one.stage)]
                continue
            for source in sources:
                assert any(name == source or name.startswith(f"{source.rstrip('/')}/") for name in files), source


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root(target: str) -> None:
    *_, user = texts("USER", target)
    worker = yaml.safe_load((ROOT / "infra/kuberay/base/cluster.yaml").read_text())["spec"]["headGroupSpec"]["template"]
    uid = worker["spec"]["securityContext"]["runAsUser"]
    assert user == f"{uid}:{uid}"
    assert [one.word for one in INSTRUCTIONS if one.stage == target][-2:] == ["USER", "CMD"]
    assert f"--uid {uid} --gid {uid}" in "\n".join(texts("RUN", "base"))


def test_packages_are_those_that_the_makefile_installs() -> None:
    """The same uv, both locks, with the same options that keep other bytes out."""
    makefile = (ROOT / "Makefile").read_text()
    (uv,) = re.findall(r"uv==([\d.]+)", makefile)
    runs = "\n".join(texts("RUN"))
    assert re.findall(r"uv==([\d.]+)", runs) == [uv]

    def installs(text: str) -> dict[str, set[str]]:
        joined = text.replace("\\\n", " ")
        found = re.findall(r"uv pip install ([^&\n]*?--requirement \S+)", joined)
        options = {"--require-hashes", "--no-deps", "--compile-bytecode"}
        return {Path(words.split()[-1]).name: options & set(words.split()) for words in found}

    assert installs(runs) == installs(makefile)
    assert all("--require-hashes" in options for options in installs(runs).values()) and len(installs(runs)) == 2
    assert "requirements" not in runs.replace("requirements.lock", "").replace("requirements-weights.lock", "")


def test_no_secret_comes_in() -> None:
    for text in [*texts("ARG"), *texts("ENV"), *texts("LABEL")]:
        assert not re.search(r"(?i)(secret|password|passwd|token|key|credential)", text), text
    assert not re.search(r"https?://|curl |wget http", "\n".join(texts("RUN")))


@pytest.mark.parametrize("number", range(len(texts("RUN"))))
def test_scripts_hold_before_shellcheck(number: int, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text(re.sub(r"^(--\S+\s+(\\\n)?\s*)+", "", texts("RUN")[number]) + "\n")
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--shell=sh", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def is_let_in(path: str) -> bool:
    """What the file beside the Dockerfile says of a path: the last pattern that matches it, or a folder above it."""
    let_in = True
    for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if re.fullmatch(f"{pattern}(/.*)?", path):
                let_in = line.startswith("!")
    return let_in


def test_only_what_is_copied_goes_into_the_build() -> None:
    copied = [source for text in texts("COPY") if "--from=" not in text for source in text.split()[:-1]]
    wanted = {
        name
        for name in tracked()
        if any(name == source or (source.endswith("/") and name.startswith(source)) for source in copied)
        and not name.endswith(".md")
    }
    assert {name for name in tracked() if is_let_in(name)} == wanted
    assert "stylejobs/report/page.html.j2" in wanted and "conf/evaluate/gates.yaml" in wanted
    baits = (".env", "infra/compose/.env", ".venv/bin/python", ".stylejobs/mlflow.db", "out/a.jpg", "conf/key.pem")
    assert not [bait for bait in (*baits, "stylejobs/a.parquet", ".git/config") if is_let_in(bait)]


def closure(names: set[str]) -> set[str]:
    """These packages and all that they need here."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        key = f"{canonicalize_name(requirement.name)}[{','.join(sorted(requirement.extras))}]"
        if key in found:
            continue
        found.add(key)
        try:
            needed = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # for another system
            continue
        for text in needed:
            inner = Requirement(text)
            if any(inner.marker is None or inner.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                waiting.append(inner)
    return {key.partition("[")[0] for key in found}


def test_what_only_developers_start_stays_out_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = closure({*project["dependencies"], *extras["demo"], *extras["server"]})
    tools = {canonicalize_name(Requirement(text).name) for text in extras["test"]}
    gone = packages_that_go("runtime")
    assert gone == tools - needed
    assert not gone & closure(set(extras["server"]))


_COMPUTES = """
import glob, sys
find = glob.glob  # torch loads at its start whatever it finds of these
glob.glob = lambda *wanted, **how: [path for path in find(*wanted, **how) if "cusolver" not in path]
sys.modules["triton"] = None  # importing it fails, as where it is not there
import torch, torchvision
from torch import nn
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())
net(torch.rand(2, 3, 16, 16)).square().mean().backward()
square = torch.rand(5, 5, dtype=torch.float64) + 5 * torch.eye(5, dtype=torch.float64)
torch.linalg.qr(square); torch.linalg.eigh(square @ square.T); torch.linalg.svdvals(square)
torch.linalg.inv(square); torch.linalg.cholesky_ex(square @ square.T)
assert net[0].weight.grad.isfinite().all()
print(open("/proc/self/maps").read())
"""


@pytest.mark.faults
def test_torch_computes_without_what_the_cpu_target_leaves_out() -> None:
    """No byte of it is in the memory of a process without a GPU that has computed, though it could have been."""
    gone = packages_that_go("cpu-packages")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", _COMPUTES], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {Path(line.split()[-1]) for line in done.stdout.splitlines() if ".so" in line}

    def loaded_of(names: set[str]) -> set[Path]:
        return loaded & {
            Path(metadata.distribution(n).locate_file(f)).resolve() for n in names for f in metadata.files(n)
        }

    assert gone == {"nvidia-cuda-cccl", "nvidia-cusolver", "nvidia-nvtx", "triton"} and not loaded_of(gone)
    # What stays has to: torch is linked with it.
    assert loaded_of({"nvidia-nccl-cu13"}) and loaded_of({"nvidia-cublas"})


def test_kuberay_takes_a_target_of_this_version_with_what_its_probes_call() -> None:
    (image,) = yaml.safe_load((ROOT / "infra/kuberay/base/kustomization.yaml").read_text())["images"]
    version, _, target = image["newTag"].rpartition("-")
    assert version == __version__ and target in TARGETS
    assert f"--target {target} -t {image['newName']}:{image['newTag']}" in DOCKERFILE.read_text()
    assert re.search(r"apt-get install [^&]*\bwget\b", "\n".join(texts("RUN", "base")))
    paths = "\n".join(texts("ENV", "base"))
    assert "PATH=/opt/venv/bin:$PATH" in paths and "PYTHONPATH=/opt/stylejobs" in paths
    assert texts("WORKDIR", "base") == ["/opt/stylejobs"]
