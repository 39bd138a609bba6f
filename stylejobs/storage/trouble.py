"""What goes wrong at the storage, told to whoever counts it.

This floor knows no metrics: the engine says who listens. Listeners are called at once, from any thread, and must not
raise.
"""

from collections.abc import Callable

Listener = Callable[[str, str], None]
"""Takes "error" or "retry", and what was being done: an action of ours, or for a retry the operation of S3."""

_listeners: set[Listener] = set()


def listen(listener: Listener) -> None:
    """Tells it all from now on, in this process; a second time changes nothing."""
    _listeners.add(listener)


def tell(kind: str, action: str) -> None:
    """Something went wrong."""
    for listener in tuple(_listeners):
        listener(kind, action)
