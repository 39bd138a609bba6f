"""`make bench-train`: how fast training is beside a hand-written loop, on two workers, and with checkpoints.

    python -m tests.bench.train_ratio [--quick] [--only step workers checkpoints] [--public FOLDER]

step         one core: the engine's `Training` beside the same step in plain PyTorch (train_peers.py), over tensors in
             memory, and over encoded photographs, which are decoded and cropped on the same core
workers      two workers with one thread each beside one
checkpoints  what they add to the steps between them
public       one core: beside the authors' own code; only with `--public`, a checkout of
             github.com/junyanz/pytorch-CycleGAN-and-pix2pix

Ratios are medians over pairs of runs that take turns, so that a busy machine moves both.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stylejobs.engine.checkpointing import CheckpointSettings, Keeper
from stylejobs.engine.group import Group
from tests.bench import train_workers
from tests.bench.stylize_ratio import paired
from tests.bench.table import Line, at_least, at_most, print_heading, print_lines
from tests.bench.train_peers import PlainCyclegan, public_step
from tests.bench.train_runs import Size, photo_batches, photo_sets, start_training, take_steps, tensor_batches

SIZE = Size()
# size of the public code's networks and images -> steps in a run
PUBLIC_SIZES = {
    Size(128, 32, 9, upsample="transposed"): 3,
    Size(256, 32, 9, upsample="transposed"): 1,
    Size(128, 64, 9, upsample="transposed"): 1,
}


def bench_step(quick: bool) -> None:
    """Part `step`, pinned to one core: a second one would decode for nothing."""
    num_steps, rounds = (1, 1) if quick else (8, 9)
    plain, sets = PlainCyclegan(SIZE), photo_sets()
    trainings = {name: start_training(SIZE) for name in ("tensors", "photos")}
    batches = tensor_batches(SIZE)

    def over_photos() -> None:
        # Anew in every run: threads that work ahead must not do so in the others' time.
        photos = photo_batches(sets, SIZE)
        take_steps(trainings["photos"], photos, num_steps)
        photos.close()

    with one_core():
        seconds = paired(
            {
                "plain": lambda: run_plain(plain.step, num_steps),
                "tensors": lambda: take_steps(trainings["tensors"], batches, num_steps),
                "photos": over_photos,
            },
            rounds,
        )
    title = f"cyclegan, {describe(SIZE)}, one core, medians of {rounds} rounds of {num_steps} steps"
    print_lines(
        title,
        [
            Line("plain PyTorch, tensors in memory", f"{statistics.median(seconds['plain']) / num_steps:.3f} s a step"),
            at_most("step: ours / plain, tensors in memory", ratio(seconds, "tensors", "plain"), 1.05, "x"),
            at_most("step: ours over JPEGs / plain over tensors", ratio(seconds, "photos", "plain"), 1.15, "x"),
        ],
    )


def bench_workers(quick: bool) -> None:
    """Part `workers`."""
    num_images, rounds = (2, 1) if quick else (40, 5)
    lines = train_workers.compare(num_images, rounds)
    print_lines(f"cyclegan, {describe(SIZE)}, {num_images} images, medians of {rounds} rounds", lines)


def bench_checkpoints(quick: bool) -> None:
    """Part `checkpoints`: what one adds to the steps around it, over as many steps as a training has for each."""
    num_steps, rounds = (1, 1) if quick else (10, 7)
    batches = tensor_batches(SIZE)
    with tempfile.TemporaryDirectory(prefix="stylejobs-bench-") as folder, one_core():
        keeper = Keeper(CheckpointSettings(folder, every=num_steps), Group(), "ab12")
        silent, writing = start_training(SIZE), start_training(SIZE, keeper=keeper)

        def keep() -> None:
            take_steps(writing, batches, num_steps)
            keeper.finish()

        seconds = paired({"silent": lambda: take_steps(silent, batches, num_steps), "writing": keep}, rounds)
    step, every = statistics.median(seconds["silent"]) / num_steps, CheckpointSettings("").every
    one = statistics.median(w - s for w, s in zip(seconds["writing"], seconds["silent"], strict=True))
    print_lines(
        f"cyclegan, {describe(SIZE)}, one core, a checkpoint every {every} steps, medians of {rounds} rounds",
        [
            Line("one checkpoint, copied and written", f"{one:.3f} s"),
            at_most("checkpoints / steps", 100 * one / (every * step), 2, "%"),
        ],
    )


def bench_public(folder: Path, quick: bool) -> None:
    """Part `public`: the same networks, images and threads."""
    rounds = 1 if quick else 5
    for size, num_steps in PUBLIC_SIZES.items():
        seconds = time_public(folder, size, num_steps, rounds)
        faster = ratio(seconds, "public", "ours")
        rate = f"({size.batch * num_steps / statistics.median(seconds['ours']):.2f} images/s)"
        title = f"cyclegan, {describe(size)}, one core, medians of {rounds} rounds of {num_steps} steps"
        print_lines(title, [at_least("images/s: ours / the authors' code", faster, 1.2, rate)])


def time_public(folder: Path, size: Size, num_steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of runs of the authors' code and of ours."""
    theirs, ours, batches = public_step(folder, size), start_training(size), tensor_batches(size)
    with one_core():
        return paired(
            {
                "public": lambda: run_plain(theirs, num_steps, size),
                "ours": lambda: take_steps(ours, batches, num_steps),
            },
            rounds,
        )


def run_plain(step: Callable[..., None], num_steps: int, size: Size = SIZE) -> None:
    """So many steps over tensors in memory."""
    batches = tensor_batches(size)
    for _ in range(num_steps):
        tensors = next(batches).tensors
        step(tensors["content"], tensors["style"])


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Of seconds, round by round."""
    return statistics.median(one / other for one, other in zip(seconds[over], seconds[under], strict=True))


def describe(size: Size) -> str:
    return f"{size.size_px} px, width {size.width}, {size.blocks} blocks, batch {size.batch}"


@contextmanager
def one_core() -> Iterator[None]:
    """One thread on one core, inside the block."""
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def main() -> None:
    parts = {"step": bench_step, "workers": bench_workers, "checkpoints": bench_checkpoints}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs; the ratios mean nothing")
    parser.add_argument("--only", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--public", type=Path, help="a checkout of the authors' code, to be timed too")
    options = parser.parse_args()
    print_heading()
    for part in options.only:
        parts[part](options.quick)
    if options.public is not None:
        bench_public(options.public, options.quick)


if __name__ == "__main__":
    main()
