"""Whole jobs on a real S3 server behind a bad network: the same bytes in the end, or 6 and the rest later."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults.conftest import NUM_UNITS, ROWS, job_line
from tests.faults.s3_proxy import Fault, FaultProxy
from tests.s3_place import S3Place, used

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    result: dict
    text: str


class Jobs:
    """Commands that stylize one source on the S3 server, each to a place of its own."""

    def __init__(self, s3: S3Place, source: str, model: str, folder: Path, store: str):
        self.s3, self.source, self._folder = s3, source, folder
        self._line = job_line(Path("SOURCE"), model, ())
        self._environment = {**os.environ, **s3.environment, "MLFLOW_TRACKING_URI": store}

    def run(self, dest: str, endpoint: str, timeout: float = 600) -> Ended:
        line = [text.replace("source=SOURCE", f"source={self.source}") for text in self._line]
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.stylize", *line, f"dest={dest}"], cwd=self._folder, capture_output=True,
            text=True, timeout=timeout, env={**self._environment, "AWS_ENDPOINT_URL": endpoint},
        )  # fmt: skip
        last = done.stdout.strip().splitlines()[-1:]
        return Ended(done.returncode, json.loads(last[0]) if last else {}, done.stderr)

    def contents(self, dest: str) -> dict[str, bytes]:
        """Bytes of all data files by name, read past the bad network."""
        bucket = dest.removeprefix("s3://").partition("/")[0]
        client = self.s3.client()
        return {
            key.rpartition("/")[2]: client.get_object(Bucket=bucket, Key=key)["Body"].read()
            for key in self.s3.keys(f"{dest}/data/")
        }


@pytest.fixture(scope="module")
def jobs(
    s3: S3Place, shards: Path, slow_model: str, tracking_store: str, tmp_path_factory: pytest.TempPathFactory
) -> Jobs:
    source = f"{s3.fresh()}/in.parquet"
    bucket, _, key = source.removeprefix("s3://").partition("/")
    s3.client().put_object(Bucket=bucket, Key=key, Body=shards.read_bytes())
    return Jobs(s3, source, slow_model, tmp_path_factory.mktemp("s3-jobs"), tracking_store)


@pytest.fixture(scope="module")
def alone(jobs: Jobs) -> dict[str, bytes]:
    """What the job writes when nothing happens to it."""
    dest = jobs.s3.fresh()
    ended = jobs.run(dest, jobs.s3.server.url)
    assert ended.exit_code == 0, ended.text
    return jobs.contents(dest)


@pytest.fixture
def proxy(s3: S3Place) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3.server.url)
    yield proxy
    proxy.close()


def assert_whole(jobs: Jobs, dest: str, alone: dict[str, bytes]) -> None:
    """The same bytes, every row once, a proof, and no lease."""
    found = jobs.contents(dest)
    assert found == alone and len(found) == NUM_UNITS
    with used(jobs.s3.environment):
        from stylejobs.storage import locations

        rows = [
            key
            for name in found
            for key in pq.read_table(locations.split(f"{dest}/data/{name}")[1], columns=["key"],
                                     filesystem=locations.split(dest)[0])["key"].to_pylist()
        ]  # fmt: skip
        assert sorted(rows) == [f"row-{number:02d}" for number in range(ROWS)]
        assert locations.exists(f"{dest}/_SUCCESS") and not locations.exists(f"{dest}/_stylejobs/lease.json")


NIGHTS = {
    "throttled and failing": [
        Fault(status=503, code="SlowDown", share=0.15),
        Fault(status=500, share=0.1),
        Fault(method="PUT", status=500, after_write=True, share=0.2),
    ],
    "cut": [
        Fault(reset="request", share=0.05),
        Fault(reset="head", share=0.05),
        Fault(method="GET", reset_at=500, share=0.05),
        Fault(method="GET", truncate_at=700, share=0.05),
        Fault(method="PUT", reset_upload_at=400, share=0.1),
    ],
    "slow": [Fault(delay_seconds=1.5, share=0.1), Fault(method="GET", bytes_per_second=100_000, share=0.3)],
    "corrupting": [Fault(method="GET", path="in.parquet", corrupt_at=3000, share=0.1)],
}


@pytest.mark.parametrize("name", NIGHTS)
def test_a_bad_night_changes_nothing(name: str, jobs: Jobs, alone: dict[str, bytes], proxy: FaultProxy) -> None:
    proxy.faults = [replace(fault) for fault in NIGHTS[name]]
    dest = jobs.s3.fresh()
    ended = jobs.run(dest, proxy.url)
    assert all(fault.happened for fault in proxy.faults), proxy.faults
    assert ended.exit_code == 0, ended.text
    assert ended.result["rows"]["bad"] == 0
    assert_whole(jobs, dest, alone)


ENDS = {
    "expired token": Fault(status=403, code="ExpiredToken"),
    "the bucket vanishes": Fault(status=404, code="NoSuchBucket"),
    "throttled for good": Fault(status=503, code="SlowDown"),
    "the server is gone": Fault(reset="request"),
    "the server hangs": Fault(delay_seconds=3600),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_storage_that_is_away_ends_the_job_which_then_goes_on(
    name: str, jobs: Jobs, alone: dict[str, bytes], proxy: FaultProxy
) -> None:
    # After a third of the units' files; the source stays, so that their writes meet it first.
    gate = Fault(method="PUT", path="/data/", skip=NUM_UNITS // 3, times=0)
    proxy.faults = [gate]
    away = replace(ENDS[name], path="")

    class Away(Fault):
        def strikes(self, head, rng) -> bool:
            return gate.matched > gate.skip and super().strikes(head, rng)

    proxy.faults.append(Away(**vars(away)))
    dest = jobs.s3.fresh()
    ended = jobs.run(dest, proxy.url, timeout=1000)
    print(f"{name}: {ended.result['seconds']} s, {len(proxy.seen)} requests")
    assert ended.exit_code == 6, ended.text
    assert ended.result["resume_command"] and "Traceback" not in ended.text
    assert 0 < len(jobs.contents(dest)) < NUM_UNITS

    # A lease that could not be given back is taken over: its process has ended.
    resumed = jobs.run(dest, jobs.s3.server.url)
    assert resumed.exit_code == 0, resumed.text
    assert resumed.result["units"]["skipped"] > 0
    assert_whole(jobs, dest, alone)
