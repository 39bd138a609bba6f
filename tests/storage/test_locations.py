"""URIs to bytes and back, on a local folder and on an S3 server (moto, unit level)."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from stylejobs.errors import SourceError, StorageError
from stylejobs.storage import locations


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(settings)
    boto3.client("s3").create_bucket(Bucket="photos")
    locations._filesystem.cache_clear()
    yield "s3://photos"
    locations._filesystem.cache_clear()
    for name in settings:
        del os.environ[name]
    server.stop()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}" if request.param == "s3" else str(tmp_path)


def test_what_is_written_is_read(root: str) -> None:
    place = locations.join(root, "a", "b.bin")
    assert not locations.exists(place)
    locations.write_atomic(place, b"one")
    locations.write_atomic(place, b"two")
    assert locations.read_bytes(place) == b"two"
    assert locations.exists(place)
    assert locations.is_folder(locations.join(root, "a"))
    assert locations.stat(place)["size"] == 3


def test_the_tag_changes_with_the_bytes(root: str) -> None:
    place = locations.join(root, "x")
    locations.write_atomic(place, b"one")
    before = locations.stat(place)
    locations.write_atomic(place, b"two!")
    assert locations.stat(place) != before


def test_listing_is_recursive_sorted_absolute_and_without_hidden_names(root: str) -> None:
    for name in ("b/2.jpg", "a.jpg", "b/.hidden", ".cache/x"):
        locations.write_atomic(locations.join(root, *name.split("/")), name.encode())
    found = locations.list_files(root)
    assert list(found) == [locations.join(locations.absolute(root), *name.split("/")) for name in ("a.jpg", "b/2.jpg")]
    assert [info["size"] for info in found.values()] == [5, 7]
    assert locations.list_files(locations.join(root, "absent")) == {}


def test_reading_what_is_not_there_is_the_callers_error(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        locations.read_bytes(locations.join(root, "absent"))
    locations.delete(locations.join(root, "absent"))


def test_a_folder_is_deleted_whole_and_its_neighbours_are_not(root: str) -> None:
    for name in ("a/1", "a/b/2", "ab/3"):
        locations.write_atomic(locations.join(root, *name.split("/")), b"x")
    for _ in range(2):
        locations.delete_folder(locations.join(root, "a"))
        assert list(locations.list_files(root)) == [locations.join(locations.absolute(root), "ab", "3")]


def test_an_unwritable_place_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*file/x"):
        locations.check_writable(str(tmp_path / "file" / "x"))


def test_a_bucket_that_is_not_there_is_a_storage_error(s3: str) -> None:
    with pytest.raises(StorageError, match="s3://no-such-bucket/x"):
        locations.write_atomic("s3://no-such-bucket/x", b"1")


def test_an_interrupted_local_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    locations.write_atomic(str(tmp_path / "x"), b"before")
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(StorageError, match="No space left"):
        locations.write_atomic(str(tmp_path / "x"), b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"before"


@pytest.mark.parametrize("uri", ["http://host/x", "gs://bucket/x", "ftp://x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(SourceError, match="local path, file:// or s3://"):
        locations.split(uri)


def test_one_place_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locations.absolute("x") == locations.absolute("./x/") == locations.absolute(f"file://{tmp_path}/x")
    assert locations.absolute("s3://bucket/a/") == "s3://bucket/a"
