"""The edge of a command: exit codes, one JSON line, text for people, and what is kept in the dataset."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from stylejobs import errors
from stylejobs.engine.command import failure, run_command
from stylejobs.engine.results import JobResult
from stylejobs.storage.units import read_json

ARGUMENTS = ["source=in", "dest=out", "model=builtin:moments"]
EXIT_CODES = {
    "StylejobsError": 1,
    "TrainingError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "SourceError": 2,
    "ModelError": 2,
    "StyleError": 2,
    "PartialError": 3,
    "GateError": 4,
    "BudgetError": 4,
    "DriftError": 5,
    "InfrastructureError": 6,
    "StorageError": 6,
    "RegistryError": 6,
    "ClusterError": 6,
    "RowError": 1,
    "DecodeError": 1,
    "GenerateError": 1,
    "EncodeError": 1,
    "ReadError": 1,
}


@pytest.fixture(autouse=True)
def sigterm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("STYLEJOBS_DEBUG", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Ended:
    """Exit code, the JSON of the last line, and both streams."""

    def __init__(self, exit_code: int, out: str, err: str):
        self.exit_code, self.out, self.err = exit_code, out, err

    @property
    def result(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a recipe, or one that raises the given exception or returns the given result."""

    def call(recipe: object, *arguments: str, verb: str = "stylize") -> Ended:
        def given(config: object) -> JobResult:
            if isinstance(recipe, BaseException):
                raise recipe
            return recipe

        capsys.readouterr()
        exit_code = run_command(verb, recipe if callable(recipe) else given, arguments or ARGUMENTS)
        return Ended(exit_code, *capsys.readouterr())

    return call


def raised(name: str) -> errors.StylejobsError:
    kind = getattr(errors, name)
    if issubclass(kind, errors.RowError):
        return kind("decode", "what is wrong")
    return kind(["what is wrong"]) if kind is errors.ConfigError else kind("what is wrong")


def subclasses(kind: type) -> set[str]:
    return {kind.__name__}.union(
        *(subclasses(sub) for sub in kind.__subclasses__() if sub.__module__ == kind.__module__)
    )


def test_every_error_has_its_exit_code_here() -> None:
    assert subclasses(errors.StylejobsError) == EXIT_CODES.keys()


class TestErrors:
    @pytest.mark.parametrize("name", EXIT_CODES)
    def test_each_class_ends_with_its_code_one_json_line_and_one_message(
        self, run: Callable[..., Ended], name: str
    ) -> None:
        ended = run(raised(name))
        assert ended.exit_code == ended.result["exit_code"] == EXIT_CODES[name]
        assert ended.result["verb"] == "stylize" and len(ended.out.splitlines()) == 1
        assert ended.err.startswith("stylize: ") and "what is wrong" in ended.err
        assert "internal error" not in ended.err and "Traceback" not in ended.err
        assert ended.result["message"] == ended.err.rstrip("\n")

    @pytest.mark.parametrize(
        "error", [ValueError("no good"), KeyError("no good"), OSError(5, "no good"), MemoryError()]
    )
    def test_anything_else_is_an_internal_error_that_says_how_to_see_more(
        self, run: Callable[..., Ended], error: Exception
    ) -> None:
        ended = run(error)
        assert ended.exit_code == ended.result["exit_code"] == 1
        assert ended.err.startswith(f"stylize: internal error: {type(error).__name__}: ")
        assert "STYLEJOBS_DEBUG=1" in ended.err and "Traceback" not in ended.err

    def test_a_keyboard_interrupt_is_a_partial_result(self, run: Callable[..., Ended]) -> None:
        ended = run(KeyboardInterrupt())
        assert ended.exit_code == ended.result["exit_code"] == 3
        assert "stopped" in ended.err and "Traceback" not in ended.err

    def test_sigterm_stops_as_a_keyboard_interrupt_does(self, run: Callable[..., Ended]) -> None:
        def terminated(config: object) -> JobResult:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it went on")

        assert run(terminated).exit_code == 3

    @pytest.mark.parametrize("error", [errors.SourceError("no good"), RuntimeError("no good"), KeyboardInterrupt()])
    def test_the_trace_is_shown_on_demand_and_on_stderr(
        self, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        monkeypatch.setenv("STYLEJOBS_DEBUG", "1")
        ended = run(error)
        assert "Traceback (most recent call last)" in ended.err and "in given" in ended.err
        assert len(ended.out.splitlines()) == 1 and ended.result["exit_code"] == failure("stylize", error).exit_code

    def test_a_wrong_config_never_reaches_the_recipe(self, run: Callable[..., Ended]) -> None:
        ended = run(AssertionError("it was called"), "sourc=x", "dest=y")
        assert ended.exit_code == ended.result["exit_code"] == 2
        assert "did you mean 'source'?" in ended.err and "model" in ended.err

    def test_messages_of_any_text_stay_one_json_line_and_no_terminal_obeys_them(
        self, run: Callable[..., Ended]
    ) -> None:
        text = 'two\nlines, "quotes", ü \u2028 \x1b[31m'
        ended = run(errors.SourceError(text))
        assert (
            len(ended.out.split("\n")) == 2
            and ended.result["message"] == f"stylize: {text.replace(chr(27), chr(0xFFFD))}"
        )


class TestFlags:
    @pytest.mark.parametrize("verb", ["ingest", "train", "promote", "stylize", "verify", "replay", "benchmark"])
    def test_help_prints_the_keys_and_stops(self, run: Callable[..., Ended], verb: str) -> None:
        ended = run(AssertionError("it was called"), "--help", "nonsense=1", verb=verb)
        assert ended.exit_code == 0 and ended.err == ""
        assert f"python -m pipelines.{verb}" in ended.out

    def test_show_prints_the_config_and_stops(self, run: Callable[..., Ended]) -> None:
        ended = run(AssertionError("it was called"), *ARGUMENTS, "--show", "quality=50")
        assert ended.exit_code == 0 and ended.err == ""
        shown = yaml.safe_load(ended.out)
        assert (shown["quality"], shown["dest"], shown["variants"]) == (50, "out", 1)

    def test_a_wrong_config_cannot_be_shown(self, run: Callable[..., Ended]) -> None:
        assert run(AssertionError("it was called"), "--show", "dest=y").exit_code == 2

    def test_an_unknown_flag_is_a_usage_error(self, run: Callable[..., Ended]) -> None:
        ended = run(AssertionError("it was called"), *ARGUMENTS, "--shwo")
        assert ended.exit_code == 2 and "--shwo" in ended.err


class TestResult:
    def test_it_is_the_last_line_with_every_key_of_the_contract(self, run: Callable[..., Ended]) -> None:
        def talkative(config: object) -> JobResult:
            print("something else on stdout")
            return JobResult("stylize", dest=config.dest, rows={"in": 1, "ok": 1, "bad": 0}, message="done")

        ended = run(talkative)
        assert ended.exit_code == 0 and ended.err == "done\n"
        promised = {"verb", "exit_code", "dest", "rows", "units", "images_per_second", "seconds", "model", "mlflow"}
        assert promised | {"resume_command"} <= ended.result.keys()
        assert (ended.result["dest"], ended.result["rows"]["in"], ended.result["units"]) == ("out", 1, None)
        assert ended.result["seconds"] >= 0 and ended.result["resume_command"] is None
        assert "record_uri" not in ended.result and "proof" not in ended.result

    def test_the_recipes_exit_code_counts(self, run: Callable[..., Ended]) -> None:
        ended = run(JobResult("stylize", exit_code=4, message="the gate refused"))
        assert ended.exit_code == ended.result["exit_code"] == 4 and ended.err == "the gate refused\n"

    @pytest.mark.parametrize(("exit_code", "resumes", "says_so"), [
        (0, False, False), (1, False, False), (2, False, False), (3, True, True),
        (4, True, False), (5, False, False), (6, True, True),
    ])  # fmt: skip
    def test_a_command_that_can_go_on_says_how(
        self, run: Callable[..., Ended], tmp_path: Path, exit_code: int, resumes: bool, says_so: bool
    ) -> None:
        (tmp_path / "my job.yaml").write_text("{source: in, dest: out}")
        arguments = [f"{tmp_path}/my job.yaml", "model=models:/m@champion"]
        ended = run(JobResult("stylize", exit_code=exit_code, record_uri=str(tmp_path)), *arguments)
        resume = f"python -m pipelines.stylize '{tmp_path}/my job.yaml' model=models:/m@champion"
        assert ended.result["resume_command"] == (resume if resumes else None)
        assert (f"go on with: {resume}" in ended.err) == says_so

    def test_before_a_dest_is_taken_there_is_nothing_to_go_on_with(self, run: Callable[..., Ended]) -> None:
        ended = run(errors.StorageError("unreachable"))
        assert ended.result["resume_command"] is None and "go on with" not in ended.err


class TestRecord:
    @pytest.mark.parametrize("exit_code", [0, 3, 4, 6])
    def test_it_is_kept_in_the_dataset_as_it_was_printed(
        self, run: Callable[..., Ended], tmp_path: Path, exit_code: int
    ) -> None:
        ended = run(JobResult("stylize", exit_code=exit_code, record_uri=str(tmp_path), message="ü"))
        assert read_json(str(tmp_path / "_stylejobs" / "result.json")) == ended.result
        assert not (tmp_path / "_SUCCESS").exists()

    def test_the_proof_is_written_with_it(self, run: Callable[..., Ended], tmp_path: Path) -> None:
        assert run(JobResult("stylize", record_uri=str(tmp_path), proof={"rows": 3})).exit_code == 0
        assert read_json(str(tmp_path / "_SUCCESS")) == {"rows": 3}
        assert (tmp_path / "_stylejobs" / "result.json").exists()

    def test_without_a_dest_nothing_is_written(
        self, run: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run(JobResult("stylize"))
        run(errors.SourceError("no good"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("exit_code", [0, 3, 4])
    def test_a_dataset_that_cannot_take_it_is_an_error_of_its_own(
        self, run: Callable[..., Ended], tmp_path: Path, exit_code: int
    ) -> None:
        (tmp_path / "file").write_text("")
        proof = {"rows": 3} if exit_code == 0 else None
        result = JobResult("stylize", exit_code, message="first", record_uri=str(tmp_path / "file"), proof=proof)
        ended = run(result)
        assert ended.exit_code == ended.result["exit_code"] == (exit_code or 6)
        lines = ended.err.splitlines()
        assert lines[0] == "first" and lines[1].startswith("stylize: cannot write ") and "Traceback" not in ended.err
        assert ended.result["message"].splitlines() == lines[:2]

    def test_a_dataset_that_cannot_take_it_can_be_gone_on_with(self, run: Callable[..., Ended], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ended = run(JobResult("stylize", record_uri=str(tmp_path / "file")))
        assert ended.exit_code == 6 and ended.result["resume_command"] is not None


def test_a_command_may_run_in_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_command, "stylize", lambda config: JobResult("stylize"), ARGUMENTS).result() == 0


def test_help_and_a_typo_cost_little() -> None:
    """Neither torch nor Ray nor MLflow is imported for them."""
    script = (
        "import sys; from stylejobs.engine.command import run_command; "
        "codes = [run_command('stylize', None, [a]) for a in ('--help', 'sourc=x')]; "
        "assert codes == [0, 2], codes; assert not {'ray', 'mlflow', 'torch', 'pyarrow'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
