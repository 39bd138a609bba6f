"""Training by one process and by two, each with one thread: real gloo, DDP around every network, no Ray.

Both make the same steps of the same global batch, so the work is the same; two workers have half of each batch.
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


def seconds_of(workers: int, size: Size, num_steps: int) -> float:
    """Seconds of `num_steps` steps, without start-up and the first few; of the slowest worker.

    Args:
        size: its batch is that of all workers together.
    """
    context = torch.multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    own = Size(**{**vars(size), "batch": size.batch // workers})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_work, (workers, port, own, num_steps, told), nprocs=workers)
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


def compare(size: Size, num_steps: int, rounds: int) -> list[Line]:
    """One and two workers in turns."""
    ratios, rates = [], []
    for number in range(rounds):
        seconds = {workers: seconds_of(workers, size, num_steps) for workers in ((1, 2), (2, 1))[number % 2]}
        ratios.append(seconds[1] / seconds[2])
        rates.append(size.batch * num_steps / seconds[1])
    one = Line("one worker, one thread", f"{statistics.median(rates):.2f} images/s")
    return [one, at_least("two workers / one, images/s", statistics.median(ratios), 1.7)]
