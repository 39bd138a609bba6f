"""`make methods`: trains every method's tiny recipe from three seeds, measures it on held-out photographs, and prints
the table; with `--write` into stylejobs/core/methods/README.md.

    python -m tests.bench.methods_table                               # pictures that the project makes, see `make_sets`
    python -m tests.bench.methods_table --content DIR --held-out DIR --style DIR
    python -m tests.bench.methods_table --methods fast,cut --seeds 1
    python -m tests.bench.methods_table --methods adain --seeds 1 --set steps=8000 --runs out/methods/long

Each training is the loop of `pipelines.train` in one process with one thread; the batches of the recipe's workers are
one batch. Two trainings run side by side. What a run made is kept (`--runs`) and not made again. `--curve` adds rows
for a quarter, a half and three quarters of each training.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stylejobs.config.load import load_config
from stylejobs.core.bootstrap import mean_interval
from stylejobs.core.diversity import diversity
from stylejobs.core.metrics import edge_cosine, ms_ssim
from stylejobs.core.pixels import to_uint8
from stylejobs.engine.datasets import EncodedImage, iterate_in_memory
from stylejobs.engine.train_settings import build, read_backbone
from stylejobs.engine.trainer import plan_training
from stylejobs.engine.training import Training, Watch
from stylejobs.engine.training_sets import rows_of_unit
from tests.bench.style_panel import NUM_HELD_OUT, PANEL_PX, Panel, read_panel, read_styles, stylize

ROOT = Path(__file__).parents[2]
README = ROOT / "stylejobs/core/methods/README.md"
PLACE = ROOT / "out/methods"
METHODS = ("cyclegan", "cut", "stargan", "fast", "fst", "content_gan", "exemplar", "adain")
TRAINING_FREE = ("moments", "fda", "histogram")
MEASURED_HAND = "night"
HELD_OUT = ("astronaut", "coffee", "motorcycle")
MARK = "<!-- table: made by `make methods`, not by hand -->"


def make_sets(place: Path) -> tuple[Path, Path, Path]:
    """Photographs to train on, others to be judged on (of other scenes), and paintings that the project paints."""
    content, held_out, style = place / "content", place / "held_out", place / "style"
    if not (place / ".whole").exists():
        photos = [sys.executable, "infra/demo/photos.py", str(place / "photos"), "--num", "400", "--bad", "0"]
        subprocess.run(photos, check=True, cwd=ROOT)
        paintings = [sys.executable, "infra/demo/paintings.py", str(style), "--num", str(2 * NUM_HELD_OUT)]
        subprocess.run(paintings, check=True, cwd=ROOT)
        for folder in sorted((place / "photos").iterdir()):
            shutil.move(folder, (held_out if folder.name in HELD_OUT else content) / folder.name)
        (place / ".whole").touch()
    return content, held_out, style


def style_of(method: str, style: Path) -> Path:
    """What a method learns from: of the project's own two hands, all methods but the one of many domains learn one."""
    hand = style / MEASURED_HAND
    return hand if hand.is_dir() and method != "stargan" else style


def train_one(method: str, seed: int, sets: tuple[Path, Path, Path], place: Path, changes: list[str]) -> None:
    """One training; leaves stylized-25.npy to stylized-100.npy (uint8 N H W 3 of the held-out panel at each quarter),
    run.json and a package."""
    torch.set_num_threads(1)
    content, held_out, style = sets
    recipe = [f"conf/train/{method}-tiny.yaml", f"content={content}", f"style={style_of(method, style)}"]
    recipe += [f"name={method}", *changes]
    tiny = load_config("train", recipe).config
    alone = ["workers=1", f"batch={tiny.workers * tiny.batch}", f"seed={seed}", f"storage={place}"]
    plan = plan_training(load_config("train", [*recipe, *alone, "sample_every=1000000", "log_every=1"]).config)
    limits = plan.settings.crops.limits
    rows = {
        role: [
            EncodedImage(row["key"], row["domain"], row["image"])
            for unit in planned.source.units
            for row in rows_of_unit(0, unit, planned.labelling, limits.max_bytes).to_pylist()
        ]
        for role, planned in plan.sets.items()
    }
    panel_BCHW = read_panel(held_out, NUM_HELD_OUT, PANEL_PX)
    styles_BCHW, _ = read_styles(style_of(method, style))
    logs: list[dict] = []

    class Logs(Watch):
        """Numbers of every step, and what the panel looks like at each quarter."""

        def log(self, step, metrics, images_seen, phase):
            logs.append({"phase": phase, **metrics})
            quarter = 4 * images_seen // plan.settings.num_images
            if quarter < 4 and not snapshot(25 * quarter).exists() and quarter > 0:
                keep(25 * quarter)

    def snapshot(percent: int) -> Path:
        return place / f"stylized-{percent}.npy"

    def keep(percent: int) -> None:
        with training.averaged() as generator:
            codes = trained.styles()
            if MEASURED_HAND in codes:
                wanted = [codes[MEASURED_HAND]]
            elif hasattr(generator, "draw_style"):
                wanted = [generator.draw_style(seed) for seed in range(len(styles_BCHW))]
            elif hasattr(generator, "encode_style"):
                wanted = [generator.encode_style(style_1CHW)[0] for style_1CHW in styles_BCHW.split(1)]
            else:
                wanted = list(codes.values())
            stylized = stylize(generator, panel_BCHW, wanted)
        np.save(snapshot(percent), to_uint8(stylized).numpy())

    trained = build(plan.settings, read_backbone(plan.settings))
    for module in (*trained.frozen.values(), *trained.networks.values()):
        module.to(memory_format=torch.channels_last)
    training = Training(plan.settings, trained, trained.networks, torch.device("cpu"), Logs())
    started = time.process_time()
    training.run(iterate_in_memory(rows, plan.settings.crops))
    seconds = time.process_time() - started
    training.save()
    keep(100)
    report = {"cpu_seconds": seconds, "images_seen": training.images_seen, "steps": tiny.steps, "logs": logs}
    (place / "run.json").write_text(json.dumps(report))


def rows_of(panel: Panel, made: dict[str, list[Tensor]], runs: dict[str, list[dict]]) -> list[str]:
    """The table: a row for each method, numbers with 95 % intervals."""
    base, of_content = panel.kernels(made["moments"][0]), diversity(panel.content_BCHW)
    lines = [
        "| method | CPU s | its objective | style, raw | style, colour-free | colour-free beyond `moments` "
        "| edge-cosine | MS-SSIM | diversity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in made.items():
        kernels = [panel.kernels(stylized) for stylized in seeds]
        identities, bases = [panel.identity] * len(seeds), [base] * len(seeds)
        scores = [
            panel.score(kernels, identities, "raw"),
            panel.score(kernels, identities, "colour-free"),
            panel.score(kernels, bases, "colour-free"),
            mean_interval(torch.stack([edge_cosine(stylized, panel.content_BCHW) for stylized in seeds])),
            mean_interval(torch.stack([ms_ssim(stylized, panel.content_BCHW) for stylized in seeds])),
        ]
        cells = [f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})" for score in scores]
        cells.append(f"{torch.stack([diversity(stylized) / of_content for stylized in seeds]).mean():.2f}")
        reports = runs.get(name, [])
        seconds = f"{np.median([run['cpu_seconds'] for run in reports]):.0f}" if reports else "0"
        lines.append(
            f"| `{name}` | {seconds} | {'; '.join(map(_objective, reports)) or 'none'} | {' | '.join(cells)} |"
        )
    return lines


def _objective(run: dict) -> str:
    """The loss of the last phase's generator, means over the first and the last tenth of that phase's logs."""
    phase = run["logs"][-1]["phase"]
    logs = [log for log in run["logs"] if log["phase"] == phase]
    names = [name for name in logs[-1] if name.startswith("loss/total/") and name != "loss/total/critic"]
    values = [log[names[0]] for log in logs if names[0] in log]
    tenth = max(1, len(values) // 10)
    return f"{np.mean(values[:tenth]):.3g} → {np.mean(values[-tenth:]):.3g}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("content", "held-out", "style"):
        parser.add_argument(f"--{name}", type=Path, help="folder of pictures; all three or none")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="what differs from the tiny recipes")
    parser.add_argument("--runs", type=Path, default=PLACE / "runs", help="where the trainings are kept")
    parser.add_argument("--curve", action="store_true", help="also rows for each quarter of the trainings")
    parser.add_argument("--write", action="store_true", help="put the table into stylejobs/core/methods/README.md")
    parser.add_argument("--gatys", action="store_true", help="also the optimisation, which takes minutes")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help="only train this one; used by this script")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    given = (options.content, options.held_out, options.style)
    if any(given) and not all(given):
        parser.error("wanted --content, --held-out and --style together")
    sets = given if all(given) else make_sets(PLACE / "sets")
    if options.one:
        method, seed = options.one
        return train_one(method, int(seed), sets, options.runs / f"{method}-{seed}", options.set)
    methods = options.methods.split(",")
    runs = {method: [options.runs / f"{method}-{seed}" for seed in range(options.seeds)] for method in methods}
    _train_all(runs, sets, ["--set", *options.set, "--runs", str(options.runs)])
    panel = Panel(sets[1], style_of("", sets[2]))
    made = {"identity": [panel.content_BCHW], **{name: [panel.training_free(name)] for name in TRAINING_FREE}}
    if options.gatys:
        made["gatys"] = [panel.gatys()]
    for method, places in runs.items():
        for percent in (25, 50, 75) if options.curve else ():
            made[f"{method}, {percent} %"] = [_read(place / f"stylized-{percent}.npy") for place in places]
        made[method] = [_read(place / "stylized-100.npy") for place in places]
        panel.montage(made[method][0], options.runs / f"{method}.png")
    reports = {
        name: [json.loads((place / "run.json").read_text()) for place in places] for name, places in runs.items()
    }
    table = "\n".join(rows_of(panel, made, reports))
    print(table)
    if options.write:
        before, _, after = README.read_text().partition(MARK)
        README.write_text(f"{before}{MARK}\n\n{table}\n\n{MARK}{after.partition(MARK)[2]}")


def _read(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _train_all(runs: dict[str, list[Path]], sets: tuple[Path, Path, Path], options: list[str]) -> None:
    """Those that are not there yet, two at a time, each in a process of its own."""

    def run(method: str, seed: int, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.bench.methods_table", "--one", method, str(seed), *options]
        for name, folder in zip(("content", "held-out", "style"), sets, strict=True):
            command += [f"--{name}", str(folder)]
        with (place / "log.txt").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        print(f"trained {method}, seed {seed}", file=sys.stderr, flush=True)

    waiting = [
        (method, seed, place)
        for method, places in runs.items()
        for seed, place in enumerate(places)
        if not (place / "run.json").exists()
    ]
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, *job) for job in waiting]:
            future.result()


if __name__ == "__main__":
    main(sys.argv[1:])
