"""What is measured, under which names, at what cost, and what happens when a driver fails or hangs."""

import logging
import shutil
import threading
import time

import psutil
import pytest

from stylejobs.tracking import system_metrics
from stylejobs.tracking.mlflow_tracker import MlflowTracker
from stylejobs.tracking.system_metrics import SystemMetrics
from stylejobs.tracking.tracker import MemoryTracker, NullTracker


def _threads():
    return [thread for thread in threading.enumerate() if thread.name == "stylejobs-system-metrics"]


def test_the_names_are_those_that_mlflow_gives(store, client):
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    with MlflowTracker.start("demo", "load") as tracker, SystemMetrics(tracker, "node-0", seconds=0.05):
        time.sleep(0.2)
    found = client.get_run(tracker.run_id).data.metrics
    monitor = SystemMetricsMonitor(tracker.run_id, node_id="node-0", tracking_uri=store)
    assert set(found) == {f"system/node-0/{name}" for name in monitor.collect_metrics()}
    assert len(client.get_metric_history(tracker.run_id, "system/node-0/cpu_utilization_percentage")) >= 2


def test_the_numbers_are_those_of_this_machine():
    tracker = MemoryTracker()
    deadline = time.monotonic() + 0.6
    with SystemMetrics(tracker, seconds=0.3):
        while time.monotonic() < deadline:
            sum(range(1000))
    last = {name: history[-1][1] for name, history in tracker.metrics.items()}
    memory = psutil.virtual_memory()
    assert last["system/system_memory_usage_megabytes"] == pytest.approx(memory.used / 1e6, rel=0.3)
    assert last["system/disk_available_megabytes"] == pytest.approx(shutil.disk_usage("/").free / 1e6, rel=0.1)
    assert max(value for _, value in tracker.metrics["system/cpu_utilization_percentage"]) > 0


@pytest.mark.parametrize(("step", "wanted"), [(None, {0}), (lambda: 70, {70})])
def test_a_short_block_has_one_sample_at_its_step(step, wanted):
    tracker = MemoryTracker()
    with pytest.raises(KeyError), SystemMetrics(tracker, seconds=60, step=step):
        raise KeyError("the training failed")
    assert {at for history in tracker.metrics.values() for at, _ in history} == wanted
    assert all(len(history) == 1 for history in tracker.metrics.values()) and not _threads()


def test_nothing_is_measured_for_nobody():
    with SystemMetrics(NullTracker(), seconds=0.01):
        assert not _threads()


def test_what_cannot_be_measured_is_left_out_and_said_once(monkeypatch, caplog):
    def denied(*_):
        raise PermissionError("no statistics here")

    monkeypatch.setattr(psutil, "disk_usage", denied)
    monkeypatch.setattr(psutil, "net_io_counters", denied)
    tracker = MemoryTracker()
    with caplog.at_level(logging.WARNING, system_metrics.__name__), SystemMetrics(tracker, seconds=0.02):
        time.sleep(0.2)
    assert {name.split("_")[0] for name in tracker.metrics} == {"system/cpu", "system/system"}
    assert [record.message for record in caplog.records] == [
        "system metrics: no NetworkMonitor: no statistics here",
        "system metrics: no more of DiskMonitor: no statistics here",
    ]


def test_a_gpu_is_measured_where_there_is_one(monkeypatch, caplog):
    """Through the real bindings, with a driver that answers like a slice of a GPU: no power, no load."""
    import pynvml

    def not_told(handle):
        raise pynvml.NVMLError_NotSupported(pynvml.NVML_ERROR_NOT_SUPPORTED)

    class Memory:
        used, total = 2_000_000_000, 8_000_000_000

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: Memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", not_told)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", not_told)
    tracker = MemoryTracker()
    with SystemMetrics(tracker, "a", seconds=60):
        pass
    gpu = {name: history[0][1] for name, history in tracker.metrics.items() if "gpu" in name}
    assert gpu == {
        "system/a/gpu_0_memory_usage_percentage": 25.0,
        "system/a/gpu_0_memory_usage_megabytes": 2000.0,
    }
    assert not caplog.records


def test_a_driver_that_hangs_does_not_hold_the_end(monkeypatch, caplog):
    hanging, release = threading.Event(), threading.Event()

    def hang():
        hanging.set()
        release.wait(30)

    tracker = MemoryTracker()
    monkeypatch.setattr(system_metrics, "STOP_SECONDS", 0.1)
    with SystemMetrics(tracker, seconds=0.05):
        time.sleep(0.5)
        monkeypatch.setattr(psutil, "virtual_memory", hang)
        assert hanging.wait(10)
        num_before = len(tracker.metrics)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    release.set()
    for thread in _threads():
        thread.join(10)
    assert len(tracker.metrics) == num_before and "is left out" in caplog.text


def test_a_sample_costs_next_to_nothing():
    collectors = system_metrics._open_collectors()
    system_metrics._measure(collectors)
    began = time.process_time()
    for _ in range(100):
        system_metrics._measure(collectors)
    assert (time.process_time() - began) / 100 < 0.005
