"""What waits to be delivered: bounded queues and the one thread that empties them.

`put` never blocks and never raises. What the server did not take is kept in order and sent again, slower and slower,
until `close`. What the server refuses for good is dropped alone, not with its neighbours. Knows no MLflow.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stylejobs.tracking.client import is_permanent, redact
from stylejobs.tracking.tracker import Backlog, Delivery

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.2
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
FLUSH_WAIT_SECONDS = 0.5


@dataclass
class Lane:
    """One kind of thing to deliver.

    Attributes:
        send: delivers a list of at most `batch` items, or raises.
        bound: most items that wait; when full the oldest is dropped and counted.
        failing: the server did not take the last delivery, and something still waits.
        reason: why it did not take the last one that it did not take.
        sending: items of the call in flight, which are no longer in `waiting`.
    """

    send: Callable[[list], object]
    batch: int
    bound: int
    waiting: deque = field(default_factory=deque)
    failing: bool = False
    reason: str = ""
    sending: list = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Items that the server is not known to have."""
        return len(self.sending) + len(self.waiting)


class Outbox:
    """Delivers items of several lanes from a background thread.

    Delivery is at least once: an item whose answer got lost is sent again.
    """

    def __init__(self, lanes: Mapping[str, Lane], server: str) -> None:
        self._lanes = dict(lanes)
        self._server = server
        self._changed = threading.Condition()
        self._num_delivered = 0
        self._num_lost = 0
        self._first_error: str | None = None
        self._hurry = False
        self._closed = False
        self._behind_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="stylejobs-tracking", daemon=True)
        self._thread.start()

    def put(self, lane: str, items: Iterable[Any]) -> None:
        """Adds items; never blocks."""
        items = list(items)
        with self._changed:
            if self._closed:
                self._lose(len(items), f"{lane} logged after the run was finished")
                return
            queue = self._lanes[lane]
            if items and self._behind_since is None:
                self._behind_since = time.monotonic()
            queue.waiting.extend(items)
            num_over = max(0, len(queue.waiting) - queue.bound)
            for _ in range(num_over):
                queue.waiting.popleft()
            if num_over:
                self._lose(num_over, f"more than {queue.bound} {lane} were waiting for {self._server}")
            self._changed.notify_all()

    def backlog(self) -> Backlog:
        """How much waits, and how long ago everything was delivered."""
        with self._changed:
            if self._behind_since is None:
                return Backlog()
            return Backlog(self._num_waiting(), time.monotonic() - self._behind_since)

    def left(self, lane: str) -> list[Any]:
        """Items of a lane that the server is not known to have, in order."""
        with self._changed:
            return [*self._lanes[lane].sending, *self._lanes[lane].waiting]

    def is_failing(self, lane: str) -> bool:
        """True while the server does not take what is in this lane."""
        return self._lanes[lane].failing

    def count(self, num_items: int) -> None:
        """Counts items that were delivered past the queues."""
        with self._changed:
            self._num_delivered += num_items

    def lose(self, num_items: int, reason: str) -> None:
        """Counts items that can never be delivered; the first is reported."""
        with self._changed:
            self._lose(num_items, reason)

    def close(self, timeout_seconds: float) -> Delivery:
        """Delivers what waits, for at most `timeout_seconds` (plus the call in flight is left behind), and stops."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            while self._num_waiting() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._closed = True
            if num_left := self._num_waiting():
                self._lose(num_left, self._left_at_the_end(timeout_seconds))
            self._changed.notify_all()
            return Delivery(self._num_delivered, self._num_lost, self._first_error)

    def _num_waiting(self) -> int:
        return sum(lane.num_left for lane in self._lanes.values())

    def _left_at_the_end(self, timeout_seconds: float) -> str:
        left = {name: lane for name, lane in self._lanes.items() if lane.num_left}
        what = ", ".join(f"{lane.num_left} {name}" for name, lane in left.items())
        why = next((lane.reason for lane in left.values() if lane.reason), "no answer")
        return f"{self._server} did not take {what} within {timeout_seconds:g} s of the end: {why}"

    def _lose(self, num_items: int, reason: str) -> None:
        self._num_lost += num_items
        if self._first_error is None:
            self._first_error = reason
            log.warning("tracking: %d item(s) lost: %s (further losses are counted, not reported)", num_items, reason)

    def _run(self) -> None:
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            with self._changed:
                while not self._closed and not self._num_waiting():
                    self._changed.wait()
                if self._closed:
                    return
                if not self._hurry:
                    self._changed.wait_for(lambda: self._hurry, LINGER_SECONDS)
            # Every lane gets its turn, so that a dead artifact store does not hold the metrics back.
            failed = [name for name in self._lanes if not self._empty(name)]
            wait_seconds = self._rest(wait_seconds) if failed else FIRST_WAIT_SECONDS

    def _rest(self, seconds: float) -> float:
        with self._changed:
            was_hurry = self._hurry
            limit_seconds = min(seconds, FLUSH_WAIT_SECONDS) if was_hurry else seconds
            self._changed.wait_for(lambda: self._closed or self._hurry != was_hurry, limit_seconds)
        return min(2 * seconds, LONGEST_WAIT_SECONDS)

    def _empty(self, name: str) -> bool:
        """Sends all of a lane; False when the server did not take something."""
        lane = self._lanes[name]
        while True:
            with self._changed:
                if self._closed or not lane.waiting:
                    return True
                batch = [lane.waiting.popleft() for _ in range(min(lane.batch, len(lane.waiting)))]
                lane.sending = batch
            left = self._send(name, batch)
            with self._changed:
                lane.sending = []
                if lane.batch == 1:
                    # One file that cannot be sent must not stand before all others.
                    lane.waiting.extend(left)
                else:
                    lane.waiting.extendleft(reversed(left))
                if lane.failing and not lane.waiting:
                    lane.failing = False
                    log.warning("tracking: %s takes %s again", self._server, name)
                if not self._num_waiting():
                    self._behind_since = None
                self._changed.notify_all()
            if left:
                return False

    def _send(self, name: str, batch: list) -> list:
        """Sends a batch and returns what must be sent again. Halves a refused batch until the culprit is alone."""
        lane = self._lanes[name]
        try:
            lane.send(batch)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(redact(str(error)).split())}"
            if not is_permanent(error):
                lane.reason = reason
                if not lane.failing and not self._closed:
                    lane.failing = True
                    log.warning("tracking: %s does not take %s, will try again: %s", self._server, name, reason)
                return batch
            if len(batch) == 1:
                self.lose(1, f"{name}: {reason}")
                return []
        else:
            self.count(len(batch))
            return []
        middle = len(batch) // 2
        left = self._send(name, batch[:middle])
        return left + (batch[middle:] if left else self._send(name, batch[middle:]))
