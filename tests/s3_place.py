"""A real S3 server for tests: SeaweedFS on loopback, which checks signatures and keeps `If-None-Match`."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import pytest
from s3fs import S3FileSystem

from infra.stack.processes import Server
from infra.stack.servers import S3Keys, s3_environment, s3_server
from stylejobs.storage import locations

BUCKET = "tests"
_prefixes = (f"place-{number}" for number in itertools.count())


@dataclass(frozen=True)
class S3Place:
    """The server, and who may do what there.

    Attributes:
        environment: of one who may write.
        reader: of one who may only read.
    """

    server: Server
    environment: dict[str, str]
    reader: dict[str, str]

    def fresh(self) -> str:
        """A prefix that nobody has used: deleted ones stay visible for a while."""
        return f"s3://{BUCKET}/{next(_prefixes)}"

    def client(self):
        """boto's own view of the server, beside ours."""
        return botocore.session.get_session().create_client(
            "s3", endpoint_url=self.server.url, region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip

    def keys(self, uri: str) -> dict[str, int]:
        """Objects under a place, and their sizes."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = [one for page in pages for one in page.get("Contents", ())]
        return {one["Key"]: one["Size"] for one in found if not one["Key"].endswith("/")}


def start(folder: Path) -> S3Place:
    keys = S3Keys()
    server = s3_server(folder, keys, (BUCKET,))
    server.wait()
    who = ((keys.key, keys.secret), (keys.reader_key, keys.reader_secret))
    return S3Place(server, *(s3_environment(server.url, *pair) for pair in who))


@contextmanager
def used(environment: dict[str, str]) -> Iterator[None]:
    """This process reaches S3 so; afterwards nothing remembers it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        _forget()
        yield
    _forget()


def _forget() -> None:
    S3FileSystem.clear_instance_cache()
    locations._filesystem.cache_clear()
