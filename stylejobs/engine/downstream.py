"""The downstream receipt: whether training on stylized copies is worth it, measured on a small classifier.

    tasks, one a share of the images      squares, stylized copies            (downstream_worker.py)
    tasks, one an arm and seed            a training, then the test images, clean and corrupted
    driver                                gains with intervals, a table, its reading   (core/receipt.py)

Here squares do travel through Ray's object store, unlike those of a dataset: they are small and few, and every one of
the trainings needs them all.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stylejobs.core.bootstrap import Interval
from stylejobs.core.corruptions import CORRUPTIONS
from stylejobs.core.receipt import ArmReceipt, Hits, Receipt, compare_arms, gain_interval, read_receipt
from stylejobs.engine.downstream_worker import (
    DownstreamSettings,
    Examples,
    Share,
    Stylist,
    join,
    prepare,
    train_and_ask,
)
from stylejobs.engine.progress import JobProgress
from stylejobs.engine.training_sets import TrainingSet, plan_content
from stylejobs.errors import SourceError, StylejobsError

_FEWEST_TEST_IMAGES = 2


def make_receipt(
    train_uri: str,
    test_uri: str | None,
    stylist: Stylist,
    settings: DownstreamSettings,
    image_column: str | None = None,
    baseline: Stylist | None = None,
) -> tuple[Receipt, Interval | None]:
    """Trains the arms on the Ray that is open, and compares what they can do; intervals are of 95 %.

    Equal in both arms: steps, batch, network, the views of images, and for each seed the first weights. The arm with
    copies sees an original less often, in the share of its images that originals are.

    Args:
        train_uri: images with labels: the folder of image files, or the column `label` of Parquet.
        test_uri: likewise, of the same labels; None holds out a fifth of `train_uri`.
        baseline: another model, whose copies are learned from in a third arm.

    Returns:
        The receipt, and how much more corrupted accuracy the model's copies give than the baseline's; None without one.

    Raises:
        SourceError: a set has no labels, or a test label that nobody trains on; or too few images.
        ModelError: the model is not the one that was planned with.
    """
    train_set, test_set = _plan_sets(train_uri, test_uri, image_column)
    folds = ("train", "test") if test_uri is None else (None, None)
    classes = tuple(train_set.names.values())
    train = _prepare(train_set, folds[0], settings, stylist)
    test = _prepare(test_set, folds[1], settings, None)
    _check_counts(train, test, settings)
    print(
        f"downstream: {len(train):,} images of {len(classes)} classes, {settings.copies} stylized copies of each, "
        f"{len(test):,} test images; {train.num_bad + test.num_bad:,} could not be used",
        file=sys.stderr,
    )
    arms = {"originals": (train, False), "mixed": (train, True)}
    if baseline is not None:
        arms["baseline"] = _prepare(train_set, folds[0], settings, baseline), True
    hits = _train(arms, test, classes, settings)
    receipt = compare_arms(hits["originals"], hits["mixed"], tuple(CORRUPTIONS), seed=settings.seed)
    if baseline is None:
        return receipt, None
    before_SN, after_SN = (hits[arm].corrupted_SCVN.double().mean(dim=(1, 2)) for arm in ("baseline", "mixed"))
    return receipt, gain_interval(before_SN, after_SN, seed=settings.seed)


def _plan_sets(train_uri: str, test_uri: str | None, image_column: str | None) -> tuple[TrainingSet, TrainingSet]:
    """Both sets, their labels numbered as those of the first."""
    train = plan_content(train_uri, image_column, labelled=True)
    if test_uri is None:
        return train, train
    test = plan_content(test_uri, image_column, labelled=True)
    if new := sorted(test.numbers.keys() - train.numbers.keys()):
        raise SourceError(
            f"receipt.test={test_uri}: has labels that {train_uri} has not: {', '.join(new)}; wanted the same classes"
        )
    return train, TrainingSet(test.role, test.uri, test.source, train.numbers, train.names, {}, {})


def _check_counts(train: Examples, test: Examples, settings: DownstreamSettings) -> None:
    if len(train) < settings.batch or len(test) < _FEWEST_TEST_IMAGES:
        raise SourceError(
            f"receipt: {len(train)} images to train on and {len(test)} test images can be used; wanted at least one "
            f"batch of {settings.batch}, and {_FEWEST_TEST_IMAGES}: give more images, or lower receipt.batch"
        )


def _prepare(planned: TrainingSet, fold: str | None, settings: DownstreamSettings, stylist: Stylist | None) -> Examples:
    import ray

    units = planned.source.units
    # As many shares of a unit as it takes to keep all CPUs busy; each reads the unit, which is small.
    each = max(1, round(ray.cluster_resources().get("CPU", 1.0)) // len(units))
    shares = [
        Share(number, unit, planned.labelling, index, each, fold)
        for number, unit in enumerate(units)
        for index in range(each)
    ]
    task = ray.remote(num_cpus=1)(prepare)
    return join(_results([task.remote(share, settings, stylist) for share in shares]))


def _train(
    arms: Mapping[str, tuple[Examples, bool]], test: Examples, classes: tuple[str, ...], settings: DownstreamSettings
) -> dict[str, Hits]:
    """What each arm got right; an arm is what it learns from, and whether also from the copies."""
    import ray

    held = {id(examples): ray.put(examples) for examples in (test, *(examples for examples, _ in arms.values()))}
    task = ray.remote(num_cpus=1)(train_and_ask)
    runs = [(arm, settings.seed + seed) for seed in range(settings.seeds) for arm in arms]
    with JobProgress("downstream", len(runs), "trainings") as progress:
        asked = []
        for arm, seed in runs:
            examples, with_copies = arms[arm]
            held_both = held[id(examples)], held[id(test)]
            asked.append(task.remote(*held_both, classes, settings, (with_copies, seed)))
        found = _results(asked, lambda: progress.advance(1))
    by_arm: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {arm: [] for arm in arms}
    for (arm, _), (clean_N, corrupted_CVN) in zip(runs, found, strict=True):
        # Arrays of Ray cannot be written to, which tensors do not know.
        by_arm[arm].append((torch.from_numpy(clean_N.copy()), torch.from_numpy(corrupted_CVN.copy())))
    return {arm: Hits(*map(torch.stack, zip(*hits, strict=True))) for arm, hits in by_arm.items()}


def _results(tasks: Sequence[Any], on_each: Callable[[], None] = lambda: None) -> list:
    """What the tasks returned, in their order; an error of ours comes back as what it was."""
    import ray

    waiting = list(tasks)
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            ray.get(done)
            on_each()
        return ray.get(list(tasks))
    except ray.exceptions.RayTaskError as error:
        for task in waiting:
            ray.cancel(task, force=True)
        raise (error.cause if isinstance(error.cause, StylejobsError) else error) from error


def receipt_table(receipt: Receipt) -> Table:
    """The receipt as people read it, accuracies in percent."""
    table = Table(title="downstream receipt: accuracy of a small classifier, %", title_justify="left")
    for name, side in (("", "left"), ("originals", "right"), ("with stylized copies", "right"), ("gain", "right")):
        table.add_column(name, justify=side)
    before, after = receipt.originals, receipt.mixed
    table.add_row("clean", _percent(before.clean), _percent(after.clean), _points(receipt.clean_gain))
    corrupted = _percent(before.corrupted), _percent(after.corrupted), _points(receipt.corrupted_gain)
    table.add_row("corrupted, mean of 15 x 5", *corrupted)
    table.add_row("  of each seed", _seeds(before), _seeds(after), "", end_section=True)
    for name, then in before.by_corruption.items():
        now = after.by_corruption[name]
        table.add_row(name.replace("_", " "), f"{100 * then:.1f}", f"{100 * now:.1f}", f"{100 * (now - then):+.1f}")
    table.add_section()
    table.add_row("error relative to originals", "1", f"{receipt.error_ratio:.3f}", "")
    return table


def tell_receipt(receipt: Receipt) -> None:
    """Prints the table and its reading on stderr."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120, highlight=False)
    console.print(receipt_table(receipt))
    for sentence in read_receipt(receipt):
        console.print(sentence, soft_wrap=True)


def plain_receipt(receipt: Receipt) -> dict[str, Any]:
    """The receipt as JSON holds it; intervals are [value, low, high]."""
    return asdict(receipt) | {"reading": read_receipt(receipt)}


def _percent(interval: Interval) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * number for number in interval))


def _points(interval: Interval) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * number for number in interval))


def _seeds(arm: ArmReceipt) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in arm.corrupted_by_seed)
