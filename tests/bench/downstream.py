"""The downstream receipt of a model on labelled images: is training on stylized copies worth it?

    python -m tests.bench.downstream                                    # FDA, in the styles of the demo's paintings
    python -m tests.bench.downstream --model PACKAGE --data DIR         # another model, other images

DIR holds train/CLASS and test/CLASS. Two CPU cores take a quarter of an hour. The table and its reading go to stderr,
the receipt as JSON to stdout. `--steps`, `--seeds` and `--size` make it shorter or longer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stylejobs.engine.downstream import make_receipt, plain_receipt, tell_receipt
from stylejobs.engine.downstream_worker import DownstreamSettings, Stylist
from stylejobs.engine.models import BUILTIN, pin_model
from stylejobs.engine.session import ray_session
from stylejobs.errors import StylejobsError

ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data/labelled"
_NUM_PAINTINGS = 16


def main() -> int:
    """Makes the receipt."""
    usual = DownstreamSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", default="builtin:fda")
    parser.add_argument("--styles", help="style images or names, a,b; without it those of the model, or paintings")
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--seeds", type=int, default=usual.seeds)
    parser.add_argument("--size", type=int, default=usual.size_px)
    told = parser.parse_args()
    train, test = told.data / "train", told.data / "test"
    if not train.is_dir() or not test.is_dir():
        parser.error(f"--data {told.data}: wanted a folder with train/CLASS and test/CLASS; give one")
    settings = DownstreamSettings(size_px=told.size, steps=told.steps, seeds=told.seeds)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stylejobs-receipt-") as scratch:
        try:
            model = pin_model(told.model, _styles(told, Path(scratch)), f"{scratch}/none", f"{scratch}/model")
            stylist = Stylist(model.package_uri, model.package_sha256, tuple(model.styles))
            with ray_session():
                receipt, _ = make_receipt(str(train), str(test), stylist, settings)
        except StylejobsError as error:
            print(f"downstream: {error}", file=sys.stderr)
            return error.exit_code
    tell_receipt(receipt)
    print(f"downstream: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(json.dumps(plain_receipt(receipt)))
    return 0


def _styles(told: argparse.Namespace, scratch: Path) -> list[str] | None:
    """What `styles=` of stylize would be."""
    if told.styles or not told.model.startswith(BUILTIN):
        return told.styles.split(",") if told.styles else None
    paint = [sys.executable, ROOT / "infra/demo/paintings.py", scratch / "paintings", "--num", str(_NUM_PAINTINGS)]
    subprocess.run(paint, check=True, stdout=sys.stderr)
    return sorted(str(path) for path in (scratch / "paintings").rglob("*.*"))


if __name__ == "__main__":
    sys.exit(main())
