"""Threads whose tasks may take only so long.

A thread of Python cannot be killed. What can be done: nobody waits for it any longer, and another takes its place. The
lost thread goes on in the background, with its memory and, if it computes, its share of a core; when it ends after all,
its result is thrown away. So a few lost threads are borne, and too many mean that the process should be replaced.
Threads are daemons: a lost one does not keep the process from ending.
"""

import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any


class TooSlowError(Exception):
    """A task was given up after its time; it may still be running."""


@dataclass(eq=False)
class Task:
    """Something to be done, or done; made by `TimedPool.submit`, its result is had from `TimedPool.result`."""

    work: Callable[[], Any] | None
    future: Future = field(default_factory=Future)
    started: float = 0.0


class _Desk:
    """What the threads share; they do not know the pool, so that it can be forgotten."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.running: set[Task] = set()
        self.lost: set[Task] = set()


class TimedPool:
    """Does tasks in the order in which they are submitted. Its threads end when nobody holds the pool any more.

    Args:
        num_threads: tasks done at the same time.
        seconds: longest that a task may run, not counted while it waits for a thread; None for no limit.
    """

    def __init__(self, num_threads: int, seconds: float | None = None, name: str = "pool"):
        self._seconds, self._name = seconds, name
        self._desk = _Desk()
        for _ in range(num_threads):
            self._start_thread()
        weakref.finalize(self, _dismiss, self._desk, num_threads)

    @property
    def num_lost(self) -> int:
        """Threads that run on with a task that nobody waits for any more."""
        with self._desk.lock:
            return len(self._desk.lost)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Task:
        """Puts a task at the end of the queue."""
        task = Task(functools.partial(function, *arguments))
        self._desk.waiting.put(task)
        return task

    def wait(self, task: Task) -> None:
        """Until a task is done, has failed or is given up. Sees to all running tasks meanwhile."""
        while not task.future.done() and not wait([task.future], self._patience()).done:
            self._give_up_late_tasks()

    def result(self, task: Task) -> Any:
        """Waits for a task and gives what it returned.

        Raises:
            TooSlowError: it ran for longer than it may.
            Exception: whatever the task raised.
        """
        self.wait(task)
        return task.future.result()

    def _patience(self) -> float | None:
        """Seconds until a running task is late, be it only one that keeps the awaited task from starting."""
        if self._seconds is None:
            return None
        with self._desk.lock:
            started = min((task.started for task in self._desk.running), default=time.monotonic())
        return max(0.0, started + self._seconds - time.monotonic()) + 0.001

    def _give_up_late_tasks(self) -> None:
        latest = time.monotonic() - self._seconds
        with self._desk.lock:
            late = [task for task in self._desk.running if task.started < latest]
            self._desk.running.difference_update(late)
            self._desk.lost.update(late)
        for task in late:
            task.future.set_exception(TooSlowError(f"not done after {self._seconds:g} s"))
            self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(target=_serve, args=(self._desk,), name=self._name, daemon=True).start()


def _dismiss(desk: _Desk, num_threads: int) -> None:
    for _ in range(num_threads):
        desk.waiting.put(None)


def _serve(desk: _Desk) -> None:
    """A thread's life: until it is dismissed, or finds that it was given up."""
    while (task := desk.waiting.get()) is not None and _serve_one(desk, task):
        del task  # its result is an image; the next task may be long in coming


def _serve_one(desk: _Desk, task: Task) -> bool:
    with desk.lock:
        task.started = time.monotonic()
        desk.running.add(task)
    value, error = _outcome(task.work)
    task.work = None  # its arguments are images, too
    with desk.lock:
        if task in desk.lost:
            desk.lost.remove(task)
            return False
        desk.running.remove(task)
    if error is None:
        task.future.set_result(value)
    else:
        task.future.set_exception(error)
    return True


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:
        return None, error
