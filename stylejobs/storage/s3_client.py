"""How S3 is asked: how long, how often, and what is told when it must be asked again."""

from typing import Any

import fsspec

from stylejobs.storage import trouble

# A request is sent up to six times, in about fifteen seconds, more slowly where the server throttles. s3fs sends again
# what botocore does not, a body that broke off; and what botocore has given up, since it cannot tell: 18 times in all.
OPTIONS = {
    "config_kwargs": {
        "retries": {"mode": "adaptive", "total_max_attempts": 6},
        "connect_timeout": 10,
        "read_timeout": 15,
        "max_pool_connections": 32,
    },
    "use_listings_cache": False,
}
_ROUNDS = 3


def open_s3() -> fsspec.AbstractFileSystem:
    """The file system of `s3://`, as the environment leads to it."""
    # Taken here: it takes a second, which local paths need not wait for.
    from aiobotocore.session import AioSession
    from botocore.exceptions import FlexibleChecksumError
    from s3fs.core import add_retryable_error

    session = AioSession()
    session.register("needs-retry.s3", _tell_retry)
    add_retryable_error(FlexibleChecksumError)  # a body that was changed on its way
    filesystem = fsspec.filesystem("s3", session=session, **OPTIONS)
    filesystem.retries = _ROUNDS
    return filesystem


def _tell_retry(attempts: int, operation: Any, **rest: object) -> None:
    if attempts > 1:
        trouble.tell("retry", operation.name)
