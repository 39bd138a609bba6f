"""Jobs of a Ray cluster, through the HTTP interface of its dashboard: submit, look, stop, read along."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stylejobs.errors import ClusterError

_RECONNECT_SECONDS = 2.0


class JobState(NamedTuple):
    """What a cluster says of a job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: why it ended.
        exit_code: of the command; None where it did not end by itself.
    """

    status: str
    message: str
    exit_code: int | None

    @property
    def has_ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class ClusterJobs:
    """The jobs of one cluster.

    Args:
        address: of the dashboard. The token, where the cluster wants one, is read by Ray from its own environment
            variables or file, and kept out of everything that we write.

    Raises:
        ClusterError: nothing answers there, or it refuses us.
    """

    def __init__(self, address: str):
        from ray.job_submission import JobSubmissionClient

        # They tell of packages, uploads and connections that close.
        for module in (
            "dashboard.modules.dashboard_sdk",
            "dashboard.modules.job.sdk",
            "_private.runtime_env.packaging",
        ):
            logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)
        self.address = address.rstrip("/")
        with self._reaching():
            self._client = JobSubmissionClient(self.address)

    def look(self, job_id: str) -> JobState | None:
        """How a job is; None where the cluster knows none of that name, as after a restart of its head."""
        with self._reaching():
            try:
                info = self._client.get_job_info(job_id)
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise
        return JobState(str(info.status.value), info.message or "", info.driver_exit_code)

    def submit(self, job_id: str, runtime_env: dict, entrypoint: str, cpus: float, patience_seconds: float) -> bool:
        """Starts a job; False where one of that name is there already.

        Args:
            patience_seconds: how long a cluster may say that it is not ready for jobs yet, as after its start.
        """
        deadline = time.monotonic() + patience_seconds
        with self._reaching():
            while True:
                try:
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=job_id,
                        runtime_env=runtime_env,
                        entrypoint_num_cpus=cpus or None,
                    )
                    return True
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return False
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise
                time.sleep(_RECONNECT_SECONDS)

    def stop(self, job_id: str) -> None:
        """SIGTERM to the job's command; returns at once."""
        with self._reaching():
            self._client.stop_job(job_id)

    @contextlib.contextmanager
    def following(self, job_id: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Tells what the job prints, in another thread, each character once, through connections that break."""
        reader = _Reader(self._client, job_id, tell)
        reader.start()
        try:
            yield
        finally:
            reader.finish()

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            first = str(error).strip().splitlines()[0]
            raise ClusterError(
                f"address={self.address} refuses us: {first}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's token"
            ) from error
        except (ConnectionError, requests.RequestException) as error:
            raise ClusterError(
                f"address={self.address}: nothing answers there; wanted the dashboard of a Ray cluster"
            ) from error
        except RuntimeError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ClusterError(f"address={self.address}: {first[:500]}") from error


class _Reader(threading.Thread):
    """Reads a job's log until `finish`; a new connection begins at the first character again."""

    def __init__(self, client, job_id: str, tell: Callable[[str], None]):
        super().__init__(name=f"log of {job_id}", daemon=True)
        self._client, self._job_id, self._tell = client, job_id, tell
        self._num_told = 0
        self._finishing = threading.Event()

    def run(self) -> None:
        asyncio.run(self._read())

    def finish(self) -> None:
        """Reads what is left; a connection that hangs is left alone."""
        self._finishing.set()
        self.join(timeout=5 * _RECONNECT_SECONDS)

    async def _read(self) -> None:
        while True:
            last = self._finishing.is_set()  # what was printed before is in the log now
            position = 0
            # Whatever breaks here breaks only the reading along: how the job ended is asked elsewhere.
            with contextlib.suppress(Exception):
                async for text in self._client.tail_job_logs(self._job_id):
                    fresh = text[max(0, self._num_told - position) :]
                    position += len(text)
                    self._num_told = max(self._num_told, position)
                    if fresh:
                        self._tell(fresh)
            if last:
                return
            await asyncio.sleep(0 if self._finishing.is_set() else _RECONNECT_SECONDS)
