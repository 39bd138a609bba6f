"""The training loop by itself: no Ray, a CycleGAN of a few channels, pictures out of a formula."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylejobs.core.ema import Ema
from stylejobs.core.views import ViewOptions
from stylejobs.engine.checkpointing import CheckpointSettings, Keeper, Restored, restore_newest
from stylejobs.engine.datasets import CropSettings, TrainingBatch
from stylejobs.engine.group import Group
from stylejobs.engine.train_settings import EvaluationSettings, TrainSettings, build, read_backbone
from stylejobs.engine.training import Training, Watch
from stylejobs.errors import TrainingError
from stylejobs.records.codec import Limits, encode_image
from stylejobs.storage.checkpoints import list_checkpoints
from stylejobs.storage.packages import load_package

SIZE_PX, BATCH = 32, 2


def picture(seed: int) -> bytes:
    rows, columns = np.mgrid[0:48, 0:56] / 9.0
    waves = [np.sin(rows * (1 + k) + seed) * np.cos(columns * (1 + seed % 3) + k) for k in range(3)]
    return encode_image(np.uint8(np.stack(waves, axis=2) * 120 + 128), "png", 90)


def settings(place: Path, **changes) -> TrainSettings:
    made = TrainSettings(
        method="cyclegan",
        options={"pool": 3, "learning_rate": 1e-2},
        generator={"width": 4, "blocks": 1},
        critic={"width": 4, "layers": 2},
        backbone=None,
        style_images={"one": picture(7), "two": picture(9)},
        style_size_px=SIZE_PX,
        content_images=tuple(picture(seed) for seed in range(5)),
        domains=("photos", "paintings"),
        num_images=8 * BATCH,
        crops=CropSettings(ViewOptions(SIZE_PX), BATCH, 0, Limits()),
        seed=0,
        package_uri=str(place / "package"),
        training={"method": "cyclegan"},
        ema_decay=0.5,
        sample_every=3,
        log_every=1,
    )
    return replace(made, **changes)


def batches(poisoned: tuple[int, ...] = ()) -> Iterator[TrainingBatch]:
    """Endless batches of noise; the steps in `poisoned` hold a picture that is not a number."""
    rng = torch.Generator().manual_seed(0)
    for step in itertools.count(1):
        shape = (BATCH, 3, SIZE_PX, SIZE_PX)
        content, style = (torch.rand(shape, generator=rng) * 2 - 1 for _ in range(2))
        if step in poisoned:
            content[1] = float("nan")
        tensors = {"content": content, "style": style, "style_domain": torch.ones(BATCH, dtype=torch.int64)}
        yield TrainingBatch(tensors, {"content": (f"photo-{step}a", f"photo-{step}b"), "style": ("one", "two")})


class Notebook(Watch):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.logs: list[dict[str, float]] = []
        self.events: list[tuple[int, str, dict[str, float]]] = []
        self.grids: list[list] = []
        self.again: dict[str, float] = {}

    def log(self, step, metrics, images_seen, phase):
        self.logs.append({"step": step, "images_seen": images_seen, **metrics})

    def event(self, step, text, metrics):
        self.events.append((step, text, dict(metrics)))

    def sample(self, step, make_rows):
        self.grids.append(make_rows())

    def undelivered(self):
        return [[name, value, 0, log["step"]] for log in self.logs[-1:] for name, value in log.items()]

    def tell_again(self, numbers):
        self.again = {name: value for name, value, _, _ in numbers}


def prepare(told: TrainSettings) -> tuple[Training, Notebook]:
    method, watch = build(told, read_backbone(told)), Notebook()
    keeper = Keeper(told.checkpoints, Group(), "ab12cd") if told.checkpoints else None
    return Training(told, method, method.networks, torch.device("cpu"), watch, keeper), watch


def test_a_training_ends_with_its_images_and_leaves_whole_packages(tmp_path):
    training, watch = prepare(settings(tmp_path))
    training.run(batches())
    training.save()
    assert training.images_seen == 16
    assert [log["step"] for log in watch.logs] == list(range(1, 9))
    assert {"loss/cycle", "loss/critic", "signal/accuracy/x", "gradient_norm/generator"} <= set(watch.logs[-1])
    packages = [load_package(str(tmp_path / place)) for place in ("package", "package/raw")]
    assert all(list(loaded.styles) == ["paintings"] for loaded in packages)
    averaged, raw = (loaded.generator.state_dict() for loaded in packages)
    assert any(not torch.equal(averaged[name], raw[name]) for name in averaged)
    assert packages[0].match is not None
    assert packages[0].package.training["images_seen"] == 16


def test_the_sample_grid_shows_source_result_and_style(tmp_path):
    training, watch = prepare(settings(tmp_path))
    training.run(batches())
    assert len(watch.grids) == 3  # steps 3 and 6, and the last
    assert [[cell.shape[2] for cell in row] for row in watch.grids[-1]] == [[3, 3, 3]] * 4
    source, result, _ = watch.grids[-1][0]
    assert source.shape == result.shape
    assert not np.array_equal(source, result)


def test_rates_follow_images_seen(tmp_path):
    _, watch = run(prepare(settings(tmp_path)), batches())
    rates = [log["lr/generator"] for log in watch.logs]
    assert rates == pytest.approx([0.01] * 5 + [0.0075, 0.005, 0.0025])  # constant for half, then linearly to 0


def run(prepared, data):
    prepared[0].run(data)
    return prepared


def test_a_gradient_that_is_not_a_number_stops_with_step_keys_and_the_last_good_checkpoint(tmp_path):
    training, _ = prepare(settings(tmp_path, checkpoints=CheckpointSettings(str(tmp_path / "run"), every=3)))
    with pytest.raises(TrainingError) as caught:
        training.run(batches(poisoned=(5,)))
    message = str(caught.value)
    for words in (
        "step 5",
        "generator is not finite",
        "photo-5a",
        "photo-5b",
        "checkpoints/step-00000003-ab12cd",
        "optim.lr",
    ):
        assert words in message
    assert [checkpoint.images_seen for checkpoint in list_checkpoints(str(tmp_path / "run"))] == [3 * BATCH]


def test_before_the_first_checkpoint_there_is_none_to_name(tmp_path):
    training, _ = prepare(settings(tmp_path))
    with pytest.raises(TrainingError, match="last good checkpoint: none yet"):
        training.run(batches(poisoned=(1,)))


def test_the_repairer_answers_one_such_gradient_and_the_training_goes_on(tmp_path):
    training, watch = run(prepare(settings(tmp_path, repair={})), batches(poisoned=(5,)))
    assert training.images_seen == 16
    ((step, text, numbers),) = watch.events
    assert (step, numbers["repair/pull"]) == (5, 1.0)
    assert "non_finite" in text
    rates = [(log["lr/generator"], log["lr/critic"]) for log in watch.logs[5:]]
    assert all(critic < generator for generator, critic in rates)  # critics are slowed, generators are not


def test_the_repairer_does_not_go_on_for_ever(tmp_path):
    training, _ = prepare(settings(tmp_path, repair={}))
    with pytest.raises(TrainingError, match="step 6"):
        training.run(batches(poisoned=(3, 4, 5, 6, 7, 8)))


def test_averaged_weights_are_lent_and_given_back(tmp_path):
    training, _ = prepare(settings(tmp_path))
    training.run(batches())
    method = training._method
    before = {name: value.clone() for name, value in method.generator.state_dict().items()}
    with training._package.averaged() as generator:
        assert not generator.training
        assert any(not torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert method.generator.training
    assert all(torch.equal(value, before[name]) for name, value in method.generator.state_dict().items())


def test_the_average_follows_the_whole_generator(tmp_path):
    method = build(settings(tmp_path), None)
    assert set(Ema(method.generator, 0.9).state_dict()) == set(method.generator.state_dict())


def test_the_same_seed_trains_the_same_weights(tmp_path):
    weights = []
    for place in ("a", "b"):
        training, _ = run(prepare(settings(tmp_path / place)), batches())
        weights.append(training._method.generator.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bf16_trains_too(tmp_path):
    training, watch = run(prepare(settings(tmp_path, precision="bf16", num_images=4)), batches())
    assert training.images_seen == 4
    assert all(np.isfinite(value) for log in watch.logs for value in log.values())


def test_clipped_gradients_are_reported_unclipped(tmp_path):
    _, free = run(prepare(settings(tmp_path / "a", num_images=2)), batches())
    _, clipped = run(prepare(settings(tmp_path / "b", num_images=2, clip_norm=1e-3)), batches())
    assert clipped.logs[0]["gradient_norm/generator"] == free.logs[0]["gradient_norm/generator"] > 1e-3


def evaluated(place: Path, **changes) -> TrainSettings:
    frozen = tuple(picture(seed) for seed in range(8))
    told = {"every_images": 4, "measure": "content", "content_images": frozen, "style_images": frozen[:1], **changes}
    checkpoints = CheckpointSettings(str(place / "run"), every=1000)
    return settings(place, evaluation=EvaluationSettings(**told), checkpoints=checkpoints, style_size_px=96)


def test_the_best_measured_checkpoint_becomes_the_package(tmp_path):
    training, watch = run(prepare(evaluated(tmp_path)), batches())
    training.save()
    measured = {log["step"]: log["evaluation/content"] for log in watch.logs if "evaluation/content" in log}
    assert list(measured) == [2, 4, 6, 8]
    best = max(measured, key=measured.__getitem__)
    kept = {checkpoint.step: checkpoint for checkpoint in list_checkpoints(str(tmp_path / "run"))}
    assert kept[best].score == pytest.approx(measured[best])
    package = load_package(str(tmp_path / "package"))
    assert package.package.training["best"]["step"] == best
    shared = kept[best].read_part("shared").tensors
    for name, value in package.generator.state_dict().items():
        assert torch.equal(value, shared[f"average/weights/{name}"]), name


def test_it_stops_when_the_measure_does_not_improve(tmp_path):
    training, watch = run(prepare(evaluated(tmp_path, patience=1, min_gain=10.0)), batches())
    assert training.images_seen == 8 and training.summary()["stopped_early"]
    assert watch.events[-1][1] == "stopped: content has not improved for 1 evaluations"


def test_pools_of_two_workers_become_those_of_one(tmp_path):
    told = settings(tmp_path, checkpoints=CheckpointSettings(str(tmp_path / "run"), every=8))
    training, _ = run(prepare(told), batches())
    restored = restore_newest(str(tmp_path / "run"), Group(), print)
    other = copy.deepcopy(restored.own[0])
    other["memory"]["x_pool"]["images_NCHW"] += 1.0
    both = Restored(replace(restored.checkpoint, num_workers=2), restored.shared, [restored.own[0], other])
    again, watch = prepare(told)
    again.restore(both)
    pool = again._method.memory["x_pool"].state_dict()["images_NCHW"]
    assert len(pool) == 3  # as many as one worker had, its size
    assert torch.equal(pool, restored.own[0]["memory"]["x_pool"]["images_NCHW"])
    assert again.images_seen == training.images_seen and "2 workers became 1" in watch.events[0][1]


def test_numbers_that_had_not_arrived_at_a_checkpoint_are_told_again(tmp_path):
    told = settings(tmp_path, checkpoints=CheckpointSettings(str(tmp_path / "run"), every=8))
    _, before = run(prepare(told), batches())
    again, watch = prepare(told)
    again.restore(restore_newest(str(tmp_path / "run"), Group(), print))
    assert watch.again == before.logs[-1] and watch.events == []
