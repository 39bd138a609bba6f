"""Jobs on several Ray nodes and a real S3 server: a node is lost, one is added, the head forgets everything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stylejobs.storage import locations
from stylejobs.storage.checkpoints import list_checkpoints
from tests.cluster.conftest import Sent
from tests.cluster.ray_nodes import ray_cluster_of
from tests.faults.conftest import NUM_UNITS, ROWS, save_slow_model, write_source
from tests.faults.training_job import NUM_IMAGES, TINY, write_pictures
from tests.s3_place import S3Place, used

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]

_VARIANTS = 4


@pytest.fixture
def place(s3: S3Place) -> str:
    return s3.fresh()


@pytest.fixture
def upload(s3: S3Place, place: str) -> Callable[[Path], str]:
    """upload(file or folder): the same on the S3 server."""

    def call(path: Path) -> str:
        files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        for file in files:
            key = f"{prefix}/{file.relative_to(path.parent)}"
            s3.client().put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
        return f"{place}/{path.name}"

    return call


@pytest.fixture
def stylize(upload: Callable[[Path], str], place: str, tmp_path: Path, photos: dict[str, np.ndarray]) -> list[str]:
    """The arguments of a job of many units; five actors need three nodes of two CPUs."""
    save_slow_model(tmp_path / "slow", seed=0)
    write_source(tmp_path / "in.parquet", photos["coffee"])
    return [
        f"source={upload(tmp_path / 'in.parquet')}", f"model={upload(tmp_path / 'slow')}", f"dest={place}/out",
        "unit_mb=0.001", f"variants={_VARIANTS}", "cluster.actors=5", "gallery=0", "canary=0", "patience_seconds=5",
    ]  # fmt: skip


def num_done(s3: S3Place, place: str) -> int:
    """Units."""
    return len(s3.keys(f"{place}/out/_stylejobs/units/"))


def assert_whole(s3: S3Place, place: str) -> None:
    """Every row once, in as many files as there are units."""
    with used(s3.environment):
        filesystem, path = locations.split(f"{place}/out/data")
        table = pq.read_table(path, columns=["key", "variant"], filesystem=filesystem).to_pydict()
        assert locations.exists(f"{place}/out/_SUCCESS")
    found = sorted(zip(table["key"], table["variant"], strict=True))
    assert found == sorted((f"row-{row:02d}", variant) for row in range(ROWS) for variant in range(_VARIANTS))
    assert len(s3.keys(f"{place}/out/data/")) == NUM_UNITS


def test_stylize_on_three_nodes_of_which_one_is_lost_and_one_is_added(
    send: Callable[..., Sent], stylize: list[str], s3: S3Place, place: str
) -> None:
    with ray_cluster_of(3, s3.environment, num_cpus=2) as cluster:
        job = send(cluster, "stylize", *stylize, **s3.environment)
        job.wait_until(lambda: num_done(s3, place) >= 3)
        cluster.nodes[-1].kill()
        cluster.add_node(num_cpus=2)
        done = job.ended()
    assert done.exit_code == 0, done.stderr
    assert done.result["rows"] == {"in": ROWS, "ok": ROWS, "bad": 0, "by_reason": {}, "written": ROWS * _VARIANTS}
    assert_whole(s3, place)


def test_a_benchmark_of_three_nodes_needs_a_place_that_all_of_them_reach(
    send: Callable[..., Sent], s3: S3Place, place: str
) -> None:
    line = ["side_px=64", "patience_seconds=5", f"results={place}/results"]
    with ray_cluster_of(3, s3.environment, num_cpus=2) as cluster:
        refused = send(cluster, "benchmark", *line, **s3.environment).ended()
        done = send(cluster, "benchmark", *line, f"dest={place}/bench", **s3.environment).ended()
    assert refused.exit_code == 2 and "3 nodes share no temporary folder" in refused.stderr, refused.stderr
    assert done.exit_code == 0, done.stderr
    receipt = done.result["details"]["receipt"]
    num_workers = receipt["cluster"]["workers"]
    assert receipt["cluster"]["nodes"] == 3 and num_workers == receipt["cluster"]["cpus"] >= 6
    assert receipt["pictures"]["units"] == 4 * num_workers
    assert [key.rpartition("/bench/")[2] for key in s3.keys(f"{place}/bench")] == ["_stylejobs/result.json"]


def test_a_cluster_that_is_lost_whole_costs_what_was_in_hand(
    send: Callable[..., Sent], stylize: list[str], s3: S3Place, place: str
) -> None:
    """As when KubeRay tries a job again: the next cluster's Ray is empty, and the place is on storage."""
    with ray_cluster_of(3, s3.environment, num_cpus=2) as cluster:
        job = send(cluster, "stylize", *stylize, **s3.environment)
        job.wait_until(lambda: num_done(s3, place) >= 3)
        cluster.end()
        lost = job.ended()
        assert lost.exit_code == 6 and "Traceback" not in lost.stderr, lost.stderr
    with ray_cluster_of(3, s3.environment, num_cpus=2) as cluster:
        again = send(cluster, "stylize", *stylize, **s3.environment).ended()
    assert again.exit_code == 0, again.stderr
    assert again.result["units"]["skipped"] >= 3
    assert_whole(s3, place)


def test_train_on_two_nodes_of_which_one_is_lost(
    send: Callable[..., Sent],
    upload: Callable[[Path], str],
    tmp_path: Path,
    photos: dict[str, np.ndarray],
    s3: S3Place,
    place: str,
) -> None:
    write_pictures(tmp_path, photos)
    content, style = upload(tmp_path / "photos"), upload(tmp_path / "paintings")
    line = [
        *TINY,
        "worker_cpus=2",
        "min_workers=1",
        "patience_seconds=5",
        f"content={content}",
        f"style={style}",
        "name=nodes",
    ]
    with ray_cluster_of(2, s3.environment, num_cpus=3) as cluster:
        job = send(cluster, "train", *line, f"storage={place}/runs", **s3.environment)
        with used(s3.environment):
            job.wait_until(lambda: any(map(list_checkpoints, locations.list_folders(f"{place}/runs"))))
        cluster.nodes[0].kill()
        done = job.ended()
    assert done.exit_code == 0, done.stderr
    assert "2 workers became 1" in done.stderr
    assert done.result["details"]["images_seen"] == NUM_IMAGES and done.result["model"]["version"] == "1"
