"""Storage on a real S3 server: what is written is whole, who may not write is told so, one of many comes first."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylejobs.errors import StorageError
from stylejobs.storage import lease, locations
from stylejobs.storage.put import create
from tests.s3_place import BUCKET, S3Place, used

pytestmark = pytest.mark.slow

MULTIPART_BYTES = 110 * 2**20


@pytest.fixture
def place(s3: S3Place) -> Iterator[str]:
    with used(s3.environment):
        yield s3.fresh()


def test_files_are_written_read_listed_and_deleted(place: str, s3: S3Place) -> None:
    data = {"a.bin": b"\0one", "sub/b.bin": b"", "sub/deep/ü c+d=e.bin": b"three"}
    for name, value in data.items():
        locations.write_atomic(f"{place}/{name}", value)
    assert {name.removeprefix(f"{place}/") for name in locations.list_files(place)} == set(data)
    assert {name: locations.read_bytes(f"{place}/{name}") for name in data} == data
    assert len(s3.keys(place)) == 3
    assert locations.is_folder(f"{place}/sub") and not locations.is_folder(f"{place}/su")
    assert locations.list_folders(place) == [f"{place}/sub"]
    before = locations.stat(f"{place}/a.bin")
    locations.write_atomic(f"{place}/a.bin", b"\0two")
    assert before["size"] == 4 and locations.stat(f"{place}/a.bin")["tag"] != before["tag"]
    locations.delete(f"{place}/a.bin")
    locations.delete(f"{place}/a.bin")
    assert not locations.exists(f"{place}/a.bin")
    with pytest.raises(FileNotFoundError, match=r"a\.bin"):
        locations.read_bytes(f"{place}/a.bin")
    locations.check_writable(place)
    assert len(s3.keys(place)) == 2
    locations.write_atomic(f"{place}/subject", b"")
    for _ in range(2):
        locations.delete_folder(f"{place}/sub")
        assert [key.rpartition("/")[2] for key in s3.keys(place)] == ["subject"]


def test_a_file_is_read_in_parts(place: str) -> None:
    data = bytes(range(256)) * 5000
    locations.write_atomic(f"{place}/x", data)
    with locations.open_file(f"{place}/x", cache_type="none") as file:
        file.seek(-1000, 2)
        assert file.read(10) == data[-1000:-990]
        file.seek(70_000)
        assert file.read(100_000) == data[70_000:170_000]


def test_what_needs_many_parts_is_whole(place: str) -> None:
    data = bytes(range(256)) * (MULTIPART_BYTES // 256)
    locations.write_atomic(f"{place}/large", data)
    assert locations.read_bytes(f"{place}/large") == data


def test_one_of_many_who_create_a_file_at_once_is_chosen(place: str) -> None:
    barrier = threading.Barrier(16)

    def attempt(number: int) -> bool:
        barrier.wait()
        return create(f"{place}/marker", str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert won.count(True) == 1
    assert locations.read_bytes(f"{place}/marker") == str(won.index(True)).encode()


def test_a_lease_is_held_by_one(place: str) -> None:
    from stylejobs.errors import InfrastructureError

    with (
        lease.hold(place, "stylize"),
        pytest.raises(InfrastructureError, match="being written by another job"),
        lease.hold(place, "ingest"),
    ):
        pass
    with lease.hold(place, "ingest"):
        assert lease._read(f"{place}/_stylejobs/lease.json")["verb"] == "ingest"


def test_who_may_only_read_is_told_so(place: str, s3: S3Place) -> None:
    locations.write_atomic(f"{place}/x", b"here")
    with used(s3.reader):
        assert locations.read_bytes(f"{place}/x") == b"here"
        with pytest.raises(StorageError, match=r"cannot write .*(Access ?Denied|Forbidden).*you may use it"):
            locations.check_writable(place)
    with (
        used({**s3.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}),
        pytest.raises(StorageError, match=f"cannot read {place}/x"),
    ):
        locations.read_bytes(f"{place}/x")


def test_a_bucket_that_is_not_there(s3: S3Place) -> None:
    with used(s3.reader), pytest.raises(StorageError, match="cannot write s3://nobodys/x"):
        locations.write_atomic("s3://nobodys/x", b"")
    assert BUCKET in {one["Name"] for one in s3.client().list_buckets()["Buckets"]}
