"""Memory that runs out, as torch, its CPU allocator, numpy and CUDA's libraries say it.

On Linux a process may also be killed without a word when the machine itself has no memory left: against that helps only
to need little, which is why batches and decoded images are bounded beforehand.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

_WORDS = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
_Result = TypeVar("_Result")


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
    # Not inside of `except`: the error's traceback holds the tensors that are to be freed.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None
