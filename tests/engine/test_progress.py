"""Progress on stderr: seldom in a log, a bar on a terminal, and numbers that are right after a resume."""

import re
from collections.abc import Callable

import pytest

from stylejobs.engine import progress
from stylejobs.engine.progress import JobProgress

Clock = Callable[[float], None]


@pytest.fixture
def sleep(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the clock that progress looks at; no time passes otherwise."""
    now = [1000.0]

    class Time:
        strftime = progress.time.strftime
        gmtime = progress.time.gmtime

        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(progress, "time", Time)

    def call(seconds: float) -> None:
        now[0] += seconds

    return call


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class TestLog:
    def test_a_line_a_minute_and_one_at_the_end(self, sleep: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with JobProgress("stylize", total=100, unit="images") as job:
            for _ in range(50):
                sleep(10)
                job.advance(1)
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert [line.split()[1] for line in lines] == [f"{n}/100" for n in (6, 12, 18, 24, 30, 36, 42, 48, 50)]
        assert captured.out == ""

    def test_a_line_says_how_far_how_fast_how_long_and_what_else(
        self, sleep: Clock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with JobProgress("ingest", total=12_000, unit="images") as job:
            sleep(500)
            job.advance(2000, "7 bad")
            line = capsys.readouterr().err
        assert line.startswith("ingest: 2,000/12,000 images, 4.0 images/s, ETA ") and line.endswith(", 7 bad\n")
        assert "0:41:40" in line

    @pytest.mark.parametrize(("left", "said"), [(3600 * 30, "30:00:00|1 day, 6:00:00"), (3600 * 240, "240:|10 days")])
    def test_days_are_not_lost(self, sleep: Clock, capsys: pytest.CaptureFixture[str], left: int, said: str) -> None:
        with JobProgress("stylize", total=100 + left, unit="images") as job:
            sleep(100)
            job.advance(100)
            assert re.search(said, capsys.readouterr().err)

    def test_after_a_resume_the_rate_counts_only_what_was_done_now(
        self, sleep: Clock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with JobProgress("stylize", total=1000, unit="images", done=900) as job:
            sleep(60)
            job.advance(30)
            assert job.rate == pytest.approx(0.5)
            line = capsys.readouterr().err
        assert line.startswith("stylize: 930/1,000 images, 0.5 images/s, ETA ") and "0:02:20" in line

    def test_a_finished_job_has_no_eta(self, sleep: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with JobProgress("stylize", total=10, unit="images") as job:
            sleep(5)
            job.advance(10)
        assert capsys.readouterr().err == "stylize: 10/10 images, 2.0 images/s\n"

    def test_without_a_total_there_is_no_eta(self, sleep: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with JobProgress("train", total=None, unit="steps") as job:
            sleep(5)
            job.advance(10, "loss 0.5")
        assert capsys.readouterr().err == "train: 10 steps, 2.0 steps/s, loss 0.5\n"

    def test_nothing_done_divides_by_nothing(self, sleep: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with JobProgress("stylize", total=10, unit="images") as job:
            assert job.rate == 0.0
        assert capsys.readouterr().err == "stylize: 0/10 images, 0.0 images/s\n"

    def test_an_error_is_not_hidden_and_the_last_line_is_still_written(
        self, sleep: Clock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(RuntimeError, match="boom"), JobProgress("stylize", total=10, unit="images") as job:
            job.advance(3)
            raise RuntimeError("boom")
        assert "3/10 images" in capsys.readouterr().err


def test_on_a_terminal_there_is_a_bar_with_counts_rate_and_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with JobProgress("stylize", total=20, unit="images", done=5) as job:
        job.advance(10, "2 bad")
    captured = capsys.readouterr()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", captured.err)
    assert "stylize" in text and "15/20" in text and "images/s, 2 bad" in text
    assert captured.out == ""
