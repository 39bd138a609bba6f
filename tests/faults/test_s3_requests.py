"""Requests to a real S3 server that are throttled, refused, lied to, cut, corrupted and left hanging on their way."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylejobs.errors import StorageError
from stylejobs.storage import lease, locations
from stylejobs.storage.put import create
from tests.faults.s3_proxy import Fault, FaultProxy
from tests.s3_place import S3Place, used

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DATA = bytes(range(256)) * 4000
LARGE_BYTES = 110 * 2**20


@pytest.fixture
def proxy(s3: S3Place) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3.server.url)
    with used({**s3.environment, "AWS_ENDPOINT_URL": proxy.url}):
        yield proxy
    proxy.close()


@pytest.fixture
def place(s3: S3Place, proxy: FaultProxy) -> str:
    place = s3.fresh()
    locations.write_atomic(f"{place}/x", DATA)
    return place


PASSING = {
    "throttled": Fault(status=503, code="SlowDown", times=2),
    "failing": Fault(status=500, times=2),
    "reset before an answer": Fault(reset="request", times=2),
    "late": Fault(delay_seconds=2, times=1),
}
PASSING_READ = {
    "reset after the head": Fault(method="GET", reset="head", times=2),
    "reset in the body": Fault(method="GET", reset_at=100_000, times=2),
    "cut in the body": Fault(method="GET", truncate_at=100_000, times=2),
    "slow": Fault(method="GET", bytes_per_second=500_000, times=1),
}
PASSING_WRITE = {
    "reset in the upload": Fault(method="PUT", reset_upload_at=100_000, times=2),
    "failing after it was written": Fault(method="PUT", status=500, after_write=True, times=2),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", PASSING | PASSING_READ)
def test_a_read_survives_what_passes(name: str, place: str, proxy: FaultProxy) -> None:
    fault = (PASSING | PASSING_READ)[name]
    fault.happened = fault.matched = 0
    proxy.faults = [fault]
    assert locations.read_bytes(f"{place}/x") == DATA
    assert fault.happened == fault.times


@pytest.mark.faults
@pytest.mark.parametrize("name", PASSING_READ)
def test_a_read_in_parts_survives_what_passes(name: str, place: str, proxy: FaultProxy) -> None:
    fault = PASSING_READ[name]
    fault.happened = fault.matched = 0
    proxy.faults = [fault]
    with locations.open_file(f"{place}/x", cache_type="none") as file:
        assert file.read(len(DATA)) == DATA
    assert fault.happened == fault.times


@pytest.mark.faults
@pytest.mark.parametrize("name", PASSING | PASSING_WRITE)
def test_a_write_survives_what_passes(name: str, place: str, proxy: FaultProxy, s3: S3Place) -> None:
    fault = (PASSING | PASSING_WRITE)[name]
    fault.happened = fault.matched = 0
    proxy.faults = [fault]
    locations.write_atomic(f"{place}/y", DATA)
    assert fault.happened == fault.times
    bucket, _, key = f"{place}/y".removeprefix("s3://").partition("/")
    assert s3.client().get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


def test_who_created_a_file_knows_it_though_the_server_said_that_it_failed(place: str, proxy: FaultProxy) -> None:
    """The repeated request finds the file that the first one wrote."""
    proxy.faults = [Fault(method="PUT", status=500, after_write=True, times=1)]
    assert create(f"{place}/mine", b"by me")
    assert not create(f"{place}/mine", b"by another")
    proxy.faults = [Fault(method="PUT", status=500, after_write=True, times=1)]
    with lease.hold(place, "stylize"):
        assert proxy.faults[0].happened == 1


@pytest.mark.faults
def test_a_large_read_that_is_cut_is_read_again(place: str, proxy: FaultProxy) -> None:
    data = bytes(range(256)) * (LARGE_BYTES // 256)
    locations.write_atomic(f"{place}/large", data)
    proxy.faults = [Fault(method="GET", path="large", truncate_at=10**6, times=1)]
    assert locations.read_bytes(f"{place}/large") == data
    assert proxy.faults[0].happened == 1


@pytest.mark.faults
def test_an_upload_that_fails_in_a_part_leaves_nothing(place: str, proxy: FaultProxy, s3: S3Place) -> None:
    proxy.faults = [Fault(method="PUT", query="partNumber=2", status=403, code="AccessDenied")]
    with pytest.raises(StorageError, match=f"cannot write {place}/large"):
        locations.write_atomic(f"{place}/large", bytes(LARGE_BYTES))
    bucket = place.removeprefix("s3://").partition("/")[0]
    assert not any(key.endswith("/large") for key in s3.keys(place))
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_body_that_was_changed_on_its_way_is_not_believed(place: str, proxy: FaultProxy) -> None:
    proxy.faults = [Fault(method="GET", corrupt_at=5000, times=1)]
    assert locations.read_bytes(f"{place}/x") == DATA
    assert proxy.faults[0].happened == 1


@pytest.mark.faults
def test_a_folder_of_thousands_is_listed_once(s3: S3Place, proxy: FaultProxy) -> None:
    place = s3.fresh()
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    client = s3.client()
    with ThreadPoolExecutor(16) as pool:
        list(
            pool.map(
                lambda number: client.put_object(Bucket=bucket, Key=f"{prefix}/{number:05d}.png", Body=b""), range(2500)
            )
        )
    proxy.seen.clear()
    assert [uri[-9:-4] for uri in locations.list_files(place)] == [f"{number:05d}" for number in range(2500)]
    assert proxy.count(lambda seen: "list-type=2" in seen.query) == 3 and len(proxy.seen) == 3


LASTING: dict[str, tuple[Fault, float]] = {
    "throttled": (Fault(status=503, code="SlowDown"), 240),
    "failing": (Fault(status=500), 240),
    "reset": (Fault(reset="request"), 240),
    "expired": (Fault(status=403, code="ExpiredToken"), 20),
    "no such bucket": (Fault(status=404, code="NoSuchBucket"), 20),
    "never answered": (Fault(delay_seconds=3600), 400),
}


@pytest.mark.faults
@pytest.mark.parametrize("act", ["read", "write"])
@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_ends_in_bounded_time(name: str, act: str, place: str, proxy: FaultProxy) -> None:
    acts: dict[str, Callable[[], object]] = {
        "read": lambda: locations.read_bytes(f"{place}/x"),
        "write": lambda: locations.write_atomic(f"{place}/x", DATA),
    }
    fault, most_seconds = LASTING[name]
    proxy.faults = [fault]
    expected = FileNotFoundError if (name, act) == ("no such bucket", "read") else StorageError
    proxy.seen.clear()
    began = time.monotonic()
    said = f"cannot {act} {place}/x" if expected is StorageError else f"{place}/x"
    with pytest.raises(expected, match=said):
        acts[act]()
    took = time.monotonic() - began
    print(f"{name}, {act}: {len(proxy.seen)} requests in {took:.1f} s")
    assert took < most_seconds


@pytest.mark.faults
def test_the_end_of_a_job_does_not_wait_for_a_storage_that_is_away(place: str, proxy: FaultProxy) -> None:
    with lease.hold(place, "stylize", beat_seconds=0.1):
        proxy.faults = [away := Fault(status=503, code="SlowDown")]
        while away.happened < 2:
            time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 45
    proxy.faults = []
    with lease.hold(place, "stylize") as taken:  # what was left there holds nobody up
        assert taken.lost is None
