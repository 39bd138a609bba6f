"""URIs inside data are text: nobody is called, and no file is opened that a row names."""

import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stylejobs.errors import SourceError
from stylejobs.storage.sources import plan_source
from tests.engine.small_dataset import look, make, picture
from tests.storage.test_reading_tars import pack

_WATCHES: list["Watch"] = []


class Watch:
    """What this process connects to and opens. Python's audit hooks stay for good, so one hook asks who is watching."""

    def __init__(self) -> None:
        self.connected: list[object] = []
        self.opened: list[str] = []


def _hook(event: str, arguments: tuple) -> None:
    for watch in _WATCHES:
        if event in ("socket.connect", "socket.getaddrinfo"):
            watch.connected.append(arguments[-1] if event == "socket.connect" else arguments[0])
        elif event == "open":
            watch.opened.append(str(arguments[0]))


sys.addaudithook(_hook)


@pytest.fixture
def watch() -> Iterator[Watch]:
    found = Watch()
    _WATCHES.append(found)
    yield found
    _WATCHES.remove(found)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list]]:
    """Its address, and who has called; also where s3:// would be looked for."""
    callers: list = []
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, caller = listening.accept()
            except OSError:
                return
            callers.append(caller)
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    yield address, callers
    listening.close()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A picture that no source names as its own: all of one colour, so that it would be known again."""
    path = tmp_path / "private.png"
    Image.fromarray(np.full((24, 32, 3), (250, 10, 200), np.uint8)).save(path)
    return path


def hostile(address: str, private: Path) -> list[str]:
    return [
        f"http://{address}/a.jpg", f"https://{address}/a", f"ftp://{address}/a.jpg", f"file://{private}", str(private),
        "http://169.254.169.254/latest/meta-data/iam", f"//{address}/a.jpg", "s3://account-of-others/a.jpg",
        "s3://arn:aws:s3:::account-of-others/a.jpg", f"zip://a.jpg::http://{address}/a.zip", f"../{private.name}",
    ]  # fmt: skip


def test_no_uri_of_a_row_is_opened(tmp_path: Path, server: tuple[str, list], private: Path, watch: Watch) -> None:
    """The path of an image with and without bytes, keys, and columns of text."""
    uris = hostile(server[0], private)
    folder = tmp_path / "in"
    folder.mkdir()
    images = [{"bytes": picture(number), "path": uri} for number, uri in enumerate(uris)]
    images += [{"bytes": None, "path": uri} for uri in uris]
    names = [*uris, *(f"{uri}?" for uri in uris)]
    columns = {name: uris * 2 for name in ("url", "uri", "file_name", "source_uri", "__url__")}
    image = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": image, "key": names, **columns}), folder / "a.parquet")
    dest = make(folder, tmp_path / "out", max_bad=1, unit_mb=1)

    problems, rows = look(dest)
    assert not problems and (rows["ok"], rows["bad"]) == (len(uris), len(uris))
    table = pq.read_table(dest / "data")
    assert table["url"].to_pylist() == [uri for uri in uris for _ in range(2)]
    assert set(pq.read_table(dest / "dead_letter")["reason"].to_pylist()) == {"not_an_image"}
    assert not watch.connected and not server[1], "somebody was called"
    assert str(private) not in watch.opened and str(folder / "a.parquet") in watch.opened
    assert private.read_bytes() not in [value["bytes"] for value in table["image"].to_pylist()]


def test_no_uri_of_a_tar_is_opened(tmp_path: Path, server: tuple[str, list], private: Path, watch: Watch) -> None:
    members = []
    for number, uri in enumerate(hostile(server[0], private)):
        sidecar = json.dumps({"url": uri, "image": uri}).encode()
        members += [(f"{number}.png", picture(number)), (f"{number}.json", sidecar), (f"{number}.url", uri.encode())]
        members += [(f"{number}-alone.txt", uri.encode()), (f"{number}-alone.url", uri.encode())]
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "t.tar", members)
    make(tmp_path / "in", tmp_path / "out", max_bad=1)
    assert not watch.connected and not server[1] and str(private) not in watch.opened


@pytest.mark.parametrize(
    "uri",
    [
        "http://{}/a.jpg", "https://{}/a.jpg", "ftp://{}/a.jpg", "http://169.254.169.254/latest/meta-data/iam",
        "HTTP://{}/a.jpg", "gs://b/a.jpg", "data://x", "github://o:r@/x", "zip://a.jpg::http://{}/a.zip", "hf://d/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_a_list_names_files_and_s3_and_nothing_else(
    tmp_path: Path, server: tuple[str, list], watch: Watch, uri: str, ending: str
) -> None:
    """A list is of the user: what it names is read, unlike what data names; but only from places that we read."""
    line = uri.format(server[0])
    text = {"txt": line, "csv": f"uri\n{line}", "jsonl": json.dumps({"uri": line})}[ending]
    (tmp_path / f"a.{ending}").write_text(text)
    with pytest.raises(SourceError, match=r"line [12]: "):
        plan_source(str(tmp_path / f"a.{ending}"), 1e9)
    assert not watch.connected and not server[1]


def test_the_watch_sees_what_it_is_for(server: tuple[str, list], private: Path, watch: Watch) -> None:
    with socket.create_connection(tuple(server[0].split(":"))):
        private.read_bytes()
    assert watch.connected and str(private) in watch.opened


def test_a_picture_that_names_another_is_itself(tmp_path: Path, server: tuple[str, list], watch: Watch) -> None:
    """XMP and EXIF of a picture may hold URIs, as may its comment."""
    sink = io.BytesIO()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a href="http://{server[0]}/x"/></x:xmpmeta>'.encode()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(sink, "JPEG", xmp=xmp, comment=f"http://{server[0]}/x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(sink.getvalue())
    dest = make(tmp_path / "in", tmp_path / "out")
    (value, _) = pq.read_table(dest / "data")["image"].to_pylist()
    assert server[0].encode() not in value["bytes"], "what is written holds no metadata of the source"
    assert not watch.connected and not server[1]
