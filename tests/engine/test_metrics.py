"""What a job did, and what Prometheus reads of it on the port of Ray's node: the same."""

import ast
import json
import logging
import os
import subprocess
import sys
import timeit
from pathlib import Path

import numpy as np
import pytest
import ray

from stylejobs.engine.metrics import SPECS, record, record_tracking, running
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from tests.engine import small_training
from tests.engine.measuring import Away, Measured, Noting, meet_trouble, read_exported, stylize

ROOT = Path(__file__).parents[2]
CALLS = [
    (path.name, node)
    for path in sorted((ROOT / "stylejobs/engine").glob("*.py"))
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "record"
]


@pytest.fixture(scope="module")
def measured(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, np.ndarray]) -> Measured:
    tracker = MlflowTracker(Away(), "run", uri="http://away", owns_run=False, flush_seconds=0.1)
    tracker.log_metrics({"a": 1.0, "b": 2.0}, step=1)
    done = Measured(ray.get_runtime_context().get_worker_id())
    done.result = stylize(tmp_path_factory.mktemp("measured"), photos)
    record_tracking("behind", tracker)
    tracker.finish()
    return read_exported(done)


@pytest.fixture(scope="module")
def troubled(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("troubled")
    done = Measured(measured.driver, meet_trouble(folder))
    training, batches = small_training.start("cyclegan", folder)
    watch = training._watch = Noting(training._s, print)
    training.run(batches)
    done.repairs = watch.repairs
    return read_exported(done)


@pytest.mark.ray
class TestOneJob:
    def test_rows_units_and_stages_are_those_of_the_result(self, measured: Measured) -> None:
        result = measured.result
        assert result.exit_code == 0 and result.rows["bad"] == 2 and result.units["done"] > 1
        assert measured.of_driver("rows_ok_total", verb="measured") == result.rows["ok"]
        for reason, count in result.rows["by_reason"].items():
            assert measured.of_driver("rows_bad_total", verb="measured", reason=reason) == count
        assert measured.of_driver("images_total", verb="measured") == result.rows["ok"]
        assert measured.of_driver("units_total", verb="measured", outcome="done") == result.units["done"]
        for stage, seconds in result.stage_seconds.items():
            found = measured.of_driver("stage_seconds_total", verb="measured", stage=stage)
            assert found == pytest.approx(seconds, abs=0.002), stage

    def test_the_time_of_a_unit_is_a_histogram(self, measured: Measured) -> None:
        num_units = measured.result.units["done"]
        assert measured.of_driver("unit_seconds_count", verb="measured") == num_units
        assert measured.of_driver("unit_seconds_bucket", verb="measured", le="+Inf") == num_units
        assert measured.of_driver("unit_seconds_bucket", verb="measured", le="2000.0") == num_units

    def test_what_is_left_when_it_is_over(self, measured: Measured) -> None:
        assert measured.of_driver("jobs_running", verb="measured") == 0
        assert measured.of_driver("units_left", verb="measured") == 0
        assert measured.of_driver("images_per_second", verb="measured") > 0

    def test_what_waits_for_tracking(self, measured: Measured) -> None:
        assert measured.of_driver("tracking_waiting", verb="behind") == 2
        assert 0 < measured.of_driver("tracking_lag_seconds", verb="behind") < 300
        assert measured.of_driver("tracking_waiting", verb="measured") == 0


@pytest.mark.faults
@pytest.mark.ray
class TestTrouble:
    def test_a_worker_that_died(self, troubled: Measured) -> None:
        assert troubled.of_worker("retries_total", kind="worker") == 1

    def test_a_storage_that_was_busy_and_one_that_failed(self, troubled: Measured) -> None:
        assert troubled.of_worker("retries_total", kind="storage") == 2
        assert troubled.of_worker("storage_errors_total", action="write") == 1

    def test_memory_that_ran_out(self, troubled: Measured) -> None:
        assert troubled.of_worker("oom_steps_total") == 3

    def test_a_training(self, troubled: Measured) -> None:
        assert troubled.of_driver("train_steps_total") == small_training.STEPS
        assert troubled.of_driver("images_total", verb="train") == small_training.BATCH * small_training.STEPS
        assert troubled.of_driver("train_repairs_total") == troubled.repairs > 0

    def test_ray_exports_each_metric_as_what_the_table_calls_it(self, measured: Measured, troubled: Measured) -> None:
        """Together: Ray forgets a gauge that is not repeated."""
        ending = {"counter": "_total", "gauge": "", "histogram": ""}
        assert measured.types | troubled.types == {spec.name + ending[spec.kind]: spec.kind for spec in SPECS}


def test_every_metric_is_recorded_somewhere_with_its_tags_and_no_other_is() -> None:
    table = {spec.name: spec.tags for spec in SPECS}
    recorded = set()
    for file, call in CALLS:
        if isinstance(call.args[0], ast.Name):
            continue  # what was recorded before, again
        name = ast.literal_eval(call.args[0])
        assert name in table, f"{file} records {name}, which is not in the table"
        tags = tuple(keyword.arg for keyword in call.keywords)
        assert sorted(tags) == sorted(table[name]), f"{file}: {ast.unparse(call)}"
        recorded.add(name)
    assert recorded == table.keys()


def test_names_and_descriptions_are_in_the_ways_of_prometheus() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    for spec in SPECS:
        assert not spec.name.endswith(("_total", "_bucket", "_count", "_sum")), "Ray adds the ending"
        assert spec.description.endswith("]"), f"{spec.name}: wanted a unit"
        assert bool(spec.boundaries) == (spec.kind == "histogram")


@pytest.mark.ray
def test_what_ray_does_not_take_ends_nothing(ray_cluster: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), running("verify"):
        record("rows_ok", 5, word="not a tag")
        record("rows_ok", 0, verb="verify")
    assert [entry.message for entry in caplog.records] == [
        "metrics: stylejobs_rows_ok was not recorded: ValueError: Missing value for tag key(s): verb."
    ]


def test_without_ray_nothing_happens_and_ray_is_not_imported() -> None:
    code = (
        "import sys; from stylejobs.engine.metrics import record, running\n"
        "with running('stylize'): record('rows_ok', 5, verb='stylize')\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ray
def test_a_record_costs_microseconds(ray_cluster: None) -> None:
    def once() -> None:
        record("rows_bad", 1, verb="verify", reason="truncated")

    assert min(timeit.repeat(once, number=200, repeat=5)) / 200 < 1e-3


_ON_A_RAY_OF_ITS_OWN = """
import json, time
import ray
from stylejobs.engine import metrics
from stylejobs.engine.session import ray_session
from tests.engine.measuring import scrape

def look():
    values = scrape(port)[1].items()
    return [value for key, value in values if key[0] == "jobs_running"]

metrics._REPEAT_SECONDS = 0.4
seen = []
with ray_session(num_cpus=1, object_store_mb=100):
    port = ray.nodes()[0]["MetricsExportPort"]
    for _ in range(2):
        with metrics.running("stylize"):
            time.sleep(6)
            seen.append(look())
        time.sleep(6)
        seen.append(look())
print(json.dumps(seen))
"""


@pytest.mark.faults
def test_a_gauge_is_there_while_a_job_runs_and_gone_after_it() -> None:
    """Ray, told to export every second, forgets a gauge after two."""
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_RAY_OF_ITS_OWN], cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "RAY_metrics_report_interval_ms": "1000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[1.0], [], [1.0], []]
