"""Secrets that the environment holds are nowhere in what runs leave: verbs as commands, on a Ray that wants a token.

The Ray node outlives the commands, so that its session folder, with the logs of all workers and what it keeps of
runtime environments, can be searched as well as storage, work folders, and the MLflow server's database and files. The
same runs show that nothing is readable for others under umask 077.
"""

import base64
import bz2
import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.stack.processes import Server, free_port
from infra.stack.servers import mlflow_server
from tests.cluster.ray_nodes import Cluster, ray_cluster_of
from tests.conftest import Outcome
from tests.security.test_permissions import wide

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1800)]

# With letters that URLs and JSON spell otherwise, as real ones have.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY7Q2M4X",
    "AWS_SECRET_ACCESS_KEY": "canary/s3cret+Kx9Zq2",
    "AWS_SESSION_TOKEN": "canary/session+tok3n==Vb7",
    "MLFLOW_TRACKING_USERNAME": "canary-user-8f1c",
    "MLFLOW_TRACKING_PASSWORD": "canary:pass/w0rd+Jt5",
}
IN_URI = "canary-uri-passw0rd-Rm3"


@pytest.fixture(scope="module")
def private() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def head(private: None) -> Iterator[Cluster]:
    """Its nodes hold the secrets in their own environment, as those of a cluster do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, secret in SECRETS.items():
            patch.setenv(name, secret)
        with ray_cluster_of() as head:
            yield head


@pytest.fixture(scope="module")
def mlflow(private: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = mlflow_server(tmp_path_factory.mktemp("mlflow"))
    server.wait()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def place(private: None, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, np.ndarray]) -> Path:
    """Pictures to work on, and where everything is left: `work` and the temporary folder of the commands."""
    root = tmp_path_factory.mktemp("canary")
    for name in ("work/photos", "tmp"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        crop = photos["coffee"][8 * number : 8 * number + 64, :64]
        Image.fromarray(crop).save(root / "work" / "photos" / f"{number}.png")
    Image.fromarray(photos["flower"][:64, :64]).save(root / "work" / "style.png")
    return root


@pytest.fixture(scope="module")
def run(head: Cluster, mlflow: Server, place: Path) -> Callable[..., Outcome]:
    """run("stylize", ...): a verb as a command, with every secret in its environment and one in MLflow's URI."""
    uri = mlflow.url.replace("://", f"://{SECRETS['MLFLOW_TRACKING_USERNAME']}:{IN_URI}@")

    def call(verb: str, *arguments: str, **changes: str) -> Outcome:
        environment = {
            **os.environ, **SECRETS, **head.environment, "RAY_ADDRESS": head.address,
            "MLFLOW_TRACKING_URI": uri, "TMPDIR": str(place / "tmp"), "STYLEJOBS_DEBUG": "1", **changes,
        }  # fmt: skip
        line = [sys.executable, "-m", f"pipelines.{verb}", *arguments]
        done = subprocess.run(
            line, cwd=place / "work", capture_output=True, text=True, timeout=600, env=environment, check=False
        )
        (place / f"{verb}-{len(list(place.glob('*.out')))}.out").write_text(done.stdout + done.stderr)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="module")
def ran(
    run: Callable[..., Outcome], head: Cluster, mlflow: Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """The path of a model and of images; then runs that fail while they hold the secrets."""
    own = tmp_path_factory.mktemp("own")
    dead = f"http://127.0.0.1:{free_port()}"
    tiny = ("steps=2", "size_px=32", "style_size_px=48", "batch=2", "generator.width=4", "generator.blocks=1")
    small = ("cluster.actors=1", "canary=0", "gallery=1")
    done = {"ingest": run("ingest", "source=photos", "dest=shards", "cluster.actors=1")}
    done["train"] = run("train", "method=fast", "name=m", "content=shards", "style=style.png", "workers=1", *tiny)
    done["plan"] = run("stylize", "source=shards", "dest=planned", "model=models:/m@candidate", "plan=true", "rate=9")
    done["stylize"] = run("stylize", "source=shards", "dest=out", "model=models:/m@candidate", *small)
    done["submit"] = run(
        "submit", "stylize", f"address={head.url}", "source=shards", "dest=sent", "model=builtin:moments",
        "styles=style.png", *small, MLFLOW_TRACKING_URI=mlflow.url,
    )  # fmt: skip
    done["s3 away"] = run(
        "stylize", "source=s3://absent/in", "dest=lost", "model=builtin:moments", "styles=style.png",
        AWS_ENDPOINT_URL=dead,
    )  # fmt: skip
    done["mlflow away"] = run(
        "stylize", "source=shards", "dest=untracked", "model=models:/m@candidate", *small,
        MLFLOW_TRACKING_URI=f"{dead.replace('://', f'://u:{IN_URI}@')}",
    )  # fmt: skip
    stolen = f"s3://{SECRETS['AWS_ACCESS_KEY_ID']}:{SECRETS['AWS_SECRET_ACCESS_KEY']}@bucket/in"
    done["secret in a key"] = run("ingest", f"source={stolen}", "dest=stolen")
    (own / "stolen.yaml").write_text(f"source: {stolen}\n")
    done["secret in a file"] = run("ingest", str(own / "stolen.yaml"), "dest=stolen")
    done["secret in submit"] = run(
        "submit", "stylize", f"address={head.url}", "source=a", "dest=b", "model=builtin:fda"
    )
    return done


def test_the_runs_are_what_they_should_be(ran: dict[str, Outcome]) -> None:
    codes = {name: outcome.exit_code for name, outcome in ran.items()}
    failed = {"s3 away": 6, "mlflow away": 6, "secret in a key": 2, "secret in a file": 2, "secret in submit": 2}
    assert codes == {name: failed.get(name, 0) for name in ran}, "\n".join(outcome.stderr for outcome in ran.values())


def test_no_secret_is_left_anywhere(ran: dict[str, Outcome], head: Cluster, mlflow: Server, place: Path) -> None:
    needles = spellings({**SECRETS, "MLFLOW_TRACKING_URI": IN_URI, "RAY_AUTH_TOKEN": head.token})
    places = {"work": place, "Ray": head.folder, "MLflow": mlflow.folder}
    searched: dict[str, int] = {}
    leaks = []
    for name, root in places.items():
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                for inside, data in unpack(str(path.relative_to(root)), path.read_bytes()):
                    searched[name] = searched.get(name, 0) + 1
                    leaks += [f"{name}: {inside} holds {what}" for what in find(data, needles)]
    assert not leaks, "\n".join(leaks)
    assert min(searched.values()) > 10, searched
    shown = {name: outcome.stdout + outcome.stderr for name, outcome in ran.items()}
    assert not [(name, what) for name, text in shown.items() for what in find(text.encode(), needles)]


def test_nothing_of_it_is_open_to_others(ran: dict[str, Outcome], mlflow: Server, place: Path) -> None:
    assert wide(place) == {} and wide(mlflow.folder) == {}


def test_the_search_finds_secrets_wherever_they_are(tmp_path: Path) -> None:
    needles = spellings(SECRETS)
    for name, secret in SECRETS.items():
        data = f"before {secret} after".encode()
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", data)
        tarred = io.BytesIO()
        with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
            member = tarfile.TarInfo("a.txt")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        shard, database = tmp_path / "a.parquet", tmp_path / "a.db"
        Path(shard).unlink(missing_ok=True)
        Path(database).unlink(missing_ok=True)
        pq.write_table(pa.table({"a": [data.decode()]}), shard, compression="zstd")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("create table t (a text)")
            connection.execute("insert into t values (?)", (data.decode(),))
        wrapped = {
            "plain": data, "url": quote(data.decode(), safe="").encode(), "json": json.dumps(data.decode()).encode(),
            "gzip": gzip.compress(data), "bz2": bz2.compress(data), "zip": zipped.getvalue(), "tar": tarred.getvalue(),
            "parquet": shard.read_bytes(), "sqlite": database.read_bytes(),
            **{f"base64 at {at}": base64.b64encode(b"x" * at + data) for at in range(3)},
            "nested": gzip.compress(zipped.getvalue()),
        }  # fmt: skip
        for how, wrap in wrapped.items():
            assert any(name in find(found, needles) for _, found in unpack("x", wrap)), how


def spellings(secrets: dict[str, str]) -> dict[str, list[bytes]]:
    """How each secret may be written: plain, in URLs, in JSON, and in base64 wherever in the text it begins."""
    found = {}
    for name, secret in secrets.items():
        plain = secret.encode()
        coded = [base64.b64encode(b"x" * at + plain)[4 if at else 0 : -4] for at in range(3)]
        urls = [quote(secret, safe="").encode(), quote(secret).encode()]
        found[name] = [plain, *urls, json.dumps(secret)[1:-1].encode(), *coded]
    return found


def find(data: bytes, needles: dict[str, list[bytes]]) -> list[str]:
    return [name for name, spelt in needles.items() if any(needle in data for needle in spelt)]


def unpack(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes as they are, and as what they contain: archives, compressed files, Parquet, SQLite."""
    yield name, data
    if data[:2] == b"\x1f\x8b" or data[:3] == b"BZh":
        inner = zlib.decompress(data, 31) if data[:1] == b"\x1f" else bz2.decompress(data)
        yield from unpack(f"{name}!", inner)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from unpack(f"{name}!{member}", archive.read(member))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile():
                    yield from unpack(f"{name}!{member.name}", archive.extractfile(member).read())
    elif data[:4] == b"PAR1":
        yield f"{name}!rows", repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
    elif data[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(data)
            yield f"{name}!rows", "\n".join(connection.iterdump()).encode()
