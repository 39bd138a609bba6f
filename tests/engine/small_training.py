"""Trainings of every tiny recipe that need no Ray: pictures out of a formula, checkpoints in a folder.

Run as a module it is a process to be killed: `python -m tests.engine.small_training FOLDER slowly`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylejobs.core.views import ViewOptions
from stylejobs.engine.checkpointing import CheckpointSettings, Keeper, restore_newest
from stylejobs.engine.datasets import CropSettings, iterate_in_memory
from stylejobs.engine.group import Group
from stylejobs.engine.image_order import EncodedImage
from stylejobs.engine.train_settings import TrainSettings
from stylejobs.engine.train_state import cursors_of
from stylejobs.engine.training import Training, Watch
from stylejobs.records.codec import Limits, encode_image
from tests.core.recipes import RECIPES, Recipe, build

BATCH, EVERY, STEPS = 2, 10, 20
BUSY_REPAIRS = {
    "warmup_images": 0, "window_images": 4, "cool_down_images": 8, "accuracy_trip": 0.5, "accuracy_release": 0.5,
    "diversity_trip": 2.0, "diversity_release": 2.0,
}  # fmt: skip
"""A repairer that always has something to do, so that its state is one that matters."""


def picture(seed: int, height: int = 48, width: int = 56) -> bytes:
    """Waves in colour, no two seeds alike."""
    rows, columns = np.mgrid[0:height, 0:width] / 9.0
    waves = [np.sin(rows * (1 + k) + seed) * np.cos(columns * (1 + seed % 3) + k) for k in range(3)]
    return encode_image(np.uint8(np.stack(waves, axis=2) * 120 + 128), "png", 90)


def picture_sets(recipe: Recipe) -> dict[str, list[EncodedImage]]:
    """Seven contents, and three pictures of each style domain; one of them is no picture."""
    content = [EncodedImage(f"photo{n}", 0, picture(n) if n != 4 else b"no picture") for n in range(7)]
    domains = range(1, recipe.domains)
    style = [EncodedImage(f"{d}-{n}", d, picture(50 * d + n)) for d in domains for n in range(3)]
    return {"content": content, "style": style}


def crop_settings(recipe: Recipe, **changes: Any) -> CropSettings:
    view = ViewOptions(recipe.size_px, rotation_degrees=10.0, brightness=0.2)
    return CropSettings(**{"view": view, "batch": BATCH, "seed": 3, "limits": Limits(), **changes})


def start(name: str, folder: Path, steps: int = STEPS, token: str = "ab12", **changes: Any):
    """(training, its batches), from the newest checkpoint in the folder if there is one."""
    recipe, group = RECIPES[name], Group()
    run = str(folder / name.replace(" ", "-"))
    method = build(recipe)
    settings = TrainSettings(
        method=recipe.method, options={}, generator={}, critic={}, backbone=None, style_images={}, style_size_px=32,
        content_images=(), domains=("content", "style"), num_images=steps * BATCH, crops=crop_settings(recipe),
        seed=3, package_uri=f"{run}/package", training={}, ema_decay=0.9, sample_every=10**9, log_every=10**9,
        checkpoints=CheckpointSettings(run, every=EVERY),
        repair=BUSY_REPAIRS if any(player.is_critic for player in method.players.values()) else None,
    )  # fmt: skip
    restored = restore_newest(run, group, print)
    keeper = Keeper(settings.checkpoints, group, token)
    training = Training(settings, method, method.networks, torch.device("cpu"), Watch(), keeper)
    cursors = None
    if restored is not None:
        training.restore(restored)
        (cursors,) = cursors_of(restored.own)
    crops = crop_settings(recipe, **changes)
    sets = {role: images for role, images in picture_sets(recipe).items() if role in method.reads}
    return training, iterate_in_memory(sets, crops, cursors=cursors)


def main(folder: Path, slowly: bool) -> None:
    """Trains all recipes in turns, from where they are; slowly: past the first checkpoint it waits to be killed."""
    torch.set_num_threads(1)
    running = {name: start(name, folder) for name in RECIPES}
    while any(training.step < STEPS for training, _ in running.values()):
        for training, batches in running.values():
            training.take_step(next(batches))
        furthest = max(training.step for training, _ in running.values())
        if furthest == EVERY + 1:
            print("past the first checkpoint", flush=True)
        if slowly and furthest > EVERY:
            time.sleep(1.0)
    for training, batches in running.values():
        training.run(batches)  # waits for the last checkpoint
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "slowly")
