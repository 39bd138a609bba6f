"""The buffer law: nothing is missing at the end of an outage, and nobody waits for it."""

import logging
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylejobs.tracking.outbox import Lane, Outbox
from stylejobs.tracking.tracker import Backlog

pytestmark = pytest.mark.usefixtures("quick")


class Server:
    """Takes batches, failing as its schedule says; a schedule that is over means it works."""

    def __init__(self, failures=(), refuses=()):
        self.failures = iter(failures)
        self.refuses = set(refuses)
        self.got = []

    def send(self, batch):
        if next(self.failures, False):
            raise ConnectionError("connection refused")
        if self.refuses & set(batch):
            raise ValueError("bad item")
        self.got.extend(batch)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.integers(0, 7), max_size=12),
    failures=st.lists(st.booleans(), max_size=20),
    refuses=st.sets(st.integers(0, 40), max_size=5),
    batch=st.integers(2, 10),
)
def test_every_item_arrives_once_and_in_order_except_the_refused(groups, failures, refuses, batch):
    server = Server(failures, refuses)
    outbox = Outbox({"metrics": Lane(server.send, batch, bound=1000)}, "server")
    items = iter(range(sum(groups)))
    for size in groups:
        outbox.put("metrics", [next(items) for _ in range(size)])
    delivery = outbox.close(timeout_seconds=20)
    wanted = [item for item in range(sum(groups)) if item not in refuses]
    assert server.got == wanted
    assert delivery.num_delivered == len(wanted)
    assert delivery.num_lost == sum(groups) - len(wanted)
    assert delivery.complete == (delivery.num_lost == 0)


def test_put_does_not_wait_for_a_server_that_hangs():
    release = threading.Event()
    outbox = Outbox({"metrics": Lane(lambda batch: release.wait(30), batch=10, bound=100)}, "server")
    started = time.monotonic()
    for step in range(2000):
        outbox.put("metrics", [step])
    put_seconds = time.monotonic() - started
    delivery = outbox.close(timeout_seconds=0.1)
    total_seconds = time.monotonic() - started
    release.set()
    assert put_seconds < 1.0 and total_seconds < 2.0
    assert delivery.num_lost == 2000 and not delivery.complete


def test_what_is_left_includes_the_call_in_flight():
    called, release = threading.Event(), threading.Event()

    def send(batch):
        called.set()
        release.wait(30)

    outbox = Outbox({"metrics": Lane(send, batch=3, bound=100)}, "server")
    outbox.put("metrics", range(5))
    assert called.wait(10)
    outbox.put("metrics", [5])
    assert outbox.left("metrics") == [0, 1, 2, 3, 4, 5]
    release.set()
    assert outbox.close(timeout_seconds=10).complete and outbox.left("metrics") == []


def test_what_is_left_at_the_end_is_named_with_its_reason():
    def dead(batch):
        raise ConnectionError("connection refused")

    outbox = Outbox({"metrics": Lane(dead, 10, 100), "params": Lane(dead, 10, 100)}, "http://host")
    outbox.put("metrics", range(30))
    outbox.put("params", range(2))
    error = outbox.close(timeout_seconds=0.1).first_error
    assert error == (
        "http://host did not take 30 metrics, 2 params within 0.1 s of the end: ConnectionError: connection refused"
    )


def test_a_full_lane_drops_the_oldest_and_says_so(caplog):
    open_ = threading.Event()
    got = []

    def send(batch):
        if not open_.is_set():
            raise ConnectionError("down")
        got.extend(batch)

    with caplog.at_level(logging.WARNING, "stylejobs.tracking"):
        outbox = Outbox({"metrics": Lane(send, batch=5, bound=10)}, "server")
        for step in range(50):
            outbox.put("metrics", [step])
        open_.set()
        delivery = outbox.close(timeout_seconds=10)
    assert delivery.num_delivered == len(got) and delivery.num_delivered + delivery.num_lost == 50
    assert len(got) <= 15 and got[-5:] == [45, 46, 47, 48, 49]
    assert "more than 10 metrics were waiting" in delivery.first_error
    assert sum("lost" in record.message for record in caplog.records) == 1


def test_a_dead_lane_does_not_hold_back_the_others():
    server = Server()

    def dead(batch):
        raise ConnectionError("no artifact store")

    outbox = Outbox({"artifacts": Lane(dead, 1, 10), "metrics": Lane(server.send, 10, 100)}, "server")
    outbox.put("artifacts", ["image"])
    outbox.put("metrics", range(30))
    delivery = outbox.close(timeout_seconds=0.5)
    assert server.got == list(range(30))
    assert (delivery.num_delivered, delivery.num_lost) == (30, 1)
    assert outbox.is_failing("artifacts") and not outbox.is_failing("metrics")


def test_one_item_that_never_goes_does_not_stand_before_others():
    got = []

    def send(batch):
        if batch == ["stuck"]:
            raise PermissionError("no")
        got.extend(batch)

    outbox = Outbox({"artifacts": Lane(send, 1, 10)}, "server")
    outbox.put("artifacts", ["stuck", "a", "b"])
    delivery = outbox.close(timeout_seconds=0.5)
    assert got == ["a", "b"] and delivery.num_lost == 1


def test_an_outage_is_reported_once_and_its_end_once(caplog):
    server = Server(failures=[True] * 6)
    with caplog.at_level(logging.WARNING, "stylejobs.tracking"):
        outbox = Outbox({"metrics": Lane(server.send, 10, 100)}, "server")
        outbox.put("metrics", range(5))
        assert outbox.close(timeout_seconds=10).complete
    texts = [record.message for record in caplog.records]
    assert len(texts) == 2 and "connection refused" in texts[0] and "again" in texts[1]


def test_items_after_the_end_are_not_kept(caplog):
    outbox = Outbox({"metrics": Lane(Server().send, 10, 100)}, "server")
    assert outbox.close(timeout_seconds=1).complete
    with caplog.at_level(logging.WARNING, "stylejobs.tracking"):
        outbox.put("metrics", [1])
    assert "after the run was finished" in caplog.text


def test_the_backlog_grows_while_the_server_is_away_and_is_gone_when_it_is_back():
    is_away = threading.Event()
    is_away.set()
    took = []

    def send(batch):
        if is_away.is_set():
            raise ConnectionError("connection refused")
        took.extend(batch)

    outbox = Outbox({"metrics": Lane(send, 2, 100), "params": Lane(send, 10, 100)}, "server")
    assert outbox.backlog() == Backlog()
    outbox.put("metrics", [1, 2, 3])
    outbox.put("params", [4])
    time.sleep(0.2)
    behind = outbox.backlog()
    assert behind.num_waiting == 4 and behind.seconds >= 0.2
    outbox.put("metrics", [5])
    assert outbox.backlog().seconds >= behind.seconds, "since everything was delivered, not since the last item came"
    is_away.clear()
    deadline = time.monotonic() + 10
    while outbox.backlog() != Backlog() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outbox.backlog() == Backlog() and sorted(took) == [1, 2, 3, 4, 5]
    outbox.close(1.0)
