"""Training by one process and by two, each with one thread: real gloo, DDP around every network, no Ray.

All runs see as many images. Two workers with a batch of one each are beside one worker with a batch of one, as when
somebody adds a worker, and beside one with a batch of two, which makes the very same steps.
"""

import os
import socket
import statistics
import time
from functools import partial

import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from tests.bench.table import Line, at_least
from tests.bench.train_runs import Networks, Size, start_training, take_steps, tensor_batches

_WARM_UP = 3
# run -> workers, batch of each
_RUNS = {"two": (2, 1), "one": (1, 1), "one, batch 2": (1, 2)}


def compare(num_images: int, rounds: int) -> list[Line]:
    """Images/s of two workers and of one, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in _RUNS}
    for number in range(rounds):
        for name in list(_RUNS)[:: -1 if number % 2 else 1]:
            workers, batch = _RUNS[name]
            seconds = seconds_of(workers, Size(batch=batch), num_images // (workers * batch))
            rates[name].append(num_images / seconds)
    ratios = {
        name: statistics.median(two / one for two, one in zip(rates["two"], rates[name], strict=True))
        for name in ("one", "one, batch 2")
    }
    return [
        Line("one worker, batch 1", f"{statistics.median(rates['one']):.2f} images/s"),
        at_least("two workers / one, batch 1 each", ratios["one"], 1.7),
        at_least("two workers / one, batch 2 together", ratios["one, batch 2"], 1.7),
    ]


def seconds_of(workers: int, size: Size, num_steps: int) -> float:
    """Seconds of `num_steps` steps, without start-up and the first few; of the slowest worker.

    Args:
        size: its batch is that of each worker.
    """
    told = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_work, (workers, port, size, num_steps, told), nprocs=workers)
    return max(told.get() for _ in range(workers))


def _work(rank: int, workers: int, port: int, size: Size, num_steps: int, told) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if workers > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    training = start_training(size, wrap_in_ddp if workers > 1 else dict)
    batches = tensor_batches(size)
    take_steps(training, batches, _WARM_UP)
    started = time.perf_counter()
    take_steps(training, batches, num_steps)
    told.put(time.perf_counter() - started)
    if workers > 1:
        torch.distributed.destroy_process_group()


def wrap_in_ddp(networks: Networks) -> Networks:
    """As Ray Train's `prepare_model` does for our workers."""
    ddp = partial(DistributedDataParallel, forward_sync_buffers=False)
    return {name: ddp(network) for name, network in networks.items()}
