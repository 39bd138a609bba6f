"""Memory that runs out, as torch, its CPU allocator, numpy and CUDA's libraries say it; and memory that is kept.

On Linux a process may also be killed without a word when the machine itself has no memory left: against that helps only
to need little, which is why batches and decoded images are bounded beforehand.
"""

import ctypes
import gc
import platform
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

from stylejobs.engine.metrics import record

_WORDS = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
_Result = TypeVar("_Result")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 256 * 2**20
_LARGEST_KEPT_BYTES = 32 * 2**20


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the host.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("wanted 3 channels"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def attempt(work: Callable[[], _Result]) -> _Result | None:
    """What `work` gives; None when memory ran out, which then is as free as it was before.

    Raises:
        Exception: whatever else went wrong in it.
    """
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    record("oom_steps")
    # Not inside of `except`: the error's traceback holds the tensors that are to be freed.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def keep_freed_memory() -> None:
    """Lets this process keep up to 256 MB that it has freed, for the next image, in blocks of up to 32 MB.

    Pixels come and go in blocks of megabytes, and glibc gives such blocks back to the system at once: on 128 px images
    a sixth of a worker's time went into getting the same pages again. All threads share one heap, because pixels are
    made in one thread and freed in another. Elsewhere than with glibc nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def memory_metrics(device: torch.device) -> dict[str, float]:
    """{"rss_mb"}: of this process, now; on a GPU also {"gpu_mb", "gpu_peak_mb"}: what torch holds of it."""
    measured = {"rss_mb": psutil.Process().memory_info().rss / 2**20}
    if device.type == "cuda":
        measured["gpu_mb"] = torch.cuda.memory_allocated(device) / 2**20
        measured["gpu_peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return measured
