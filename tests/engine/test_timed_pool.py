"""Threads with a time limit: results, errors, tasks that hang for real, and nothing left behind."""

import gc
import threading
import time
import weakref

import pytest

from stylejobs.engine.timed_pool import TimedPool, TooSlowError


class Gate:
    """A task that hangs until it is let go."""

    def __init__(self) -> None:
        self._open, self.left = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self._open.wait(30)
        self.left.set()
        return "late"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gates():
    made = [Gate() for _ in range(4)]
    yield made
    for gate in made:
        gate.open()


def test_results_and_errors_come_back() -> None:
    pool = TimedPool(2)
    tasks = [pool.submit(divmod, 7, divisor) for divisor in (2, 0, 3)]
    assert pool.result(tasks[0]) == (3, 1) and pool.result(tasks[2]) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        pool.result(tasks[1])
    assert pool.result(tasks[0]) == (3, 1), "asked again"


def test_a_task_that_hangs_is_given_up_and_its_thread_replaced(gates: list[Gate]) -> None:
    pool = TimedPool(1, seconds=0.1)
    hanging, behind = pool.submit(gates[0]), pool.submit(sum, (1, 2))
    with pytest.raises(TooSlowError, match=r"0\.1 s"):
        pool.result(hanging)
    assert pool.result(behind) == 3 and pool.num_lost == 1


def test_a_task_behind_hanging_ones_is_done_though_nobody_waits_for_those(gates: list[Gate]) -> None:
    pool = TimedPool(2, seconds=0.1)
    for gate in gates:
        pool.submit(gate)
    assert pool.result(pool.submit(sum, (1, 2))) == 3
    assert pool.num_lost >= 3


def test_waiting_for_a_thread_does_not_count() -> None:
    pool = TimedPool(1, seconds=0.4)
    tasks = [pool.submit(time.sleep, 0.15) for _ in range(5)]
    assert [pool.result(task) for task in tasks] == [None] * 5 and pool.num_lost == 0


def test_a_lost_thread_that_ends_after_all_is_lost_no_more_and_its_result_is_thrown_away(gates: list[Gate]) -> None:
    pool = TimedPool(1, seconds=0.05)
    task = pool.submit(gates[0])
    with pytest.raises(TooSlowError):
        pool.result(task)
    gates[0].open()
    assert gates[0].left.wait(10)
    for _ in range(500):
        if not pool.num_lost:
            break
        time.sleep(0.01)
    assert pool.num_lost == 0
    with pytest.raises(TooSlowError):
        pool.result(task)


def test_without_a_limit_it_waits(gates: list[Gate]) -> None:
    pool = TimedPool(1)
    task = pool.submit(gates[0])
    threading.Timer(0.1, gates[0].open).start()
    assert pool.result(task) == "late"


def test_a_done_task_holds_its_arguments_no_longer() -> None:
    class Pixels:
        pass

    pool, pixels = TimedPool(1), Pixels()
    watched = weakref.ref(pixels)
    task = pool.submit(id, pixels)
    pool.result(task)
    del pixels
    pool.result(pool.submit(sum, ()))  # the thread is past the first
    gc.collect()
    assert watched() is None and task.future.done()


def test_threads_end_with_the_pool() -> None:
    pool = TimedPool(3, name="to be forgotten")
    pool.result(pool.submit(sum, ()))
    del pool
    gc.collect()
    for _ in range(500):
        if not any(thread.name == "to be forgotten" for thread in threading.enumerate()):
            break
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "to be forgotten"]
