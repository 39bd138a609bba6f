"""The demo's style set: same bytes again, two hands, and paintings for the measures too, without their colours."""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from stylejobs.core.metrics import edge_cosine
from stylejobs.core.mmd import RbfKernel, build_networks, colour_free, describe, mmd2

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).parents[2] / "infra" / "demo"
NUM = 28


@pytest.fixture(scope="module")
def scripts():
    """paintings.py and photos.py, which stand side by side and are no package."""
    import importlib

    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("paintings"), importlib.import_module("photos")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def demo(scripts, tmp_path_factory):
    paintings, photos = scripts
    dest = tmp_path_factory.mktemp("demo")
    started = time.process_time()
    paintings.main([str(dest / "paintings"), "--num", str(NUM)])
    assert time.process_time() - started < 1.0 * NUM, "about a second a painting at most"
    photos.write_photos(dest / "photos", NUM, 0)
    return dest


def load(folder: Path) -> torch.Tensor:
    """The middle squares of all images under the folder, at 96 px."""
    squares = []
    for path in sorted(path for path in folder.rglob("*.*") if path.is_file()):
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        squares.append(np.asarray(ImageOps.fit(upright, (96, 96), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 127.5 - 1


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_file_depends_on_seed_and_number_only(scripts, demo, tmp_path):
    paintings, _ = scripts
    for name, num, seed in (("a", 3, 0), ("b", 2, 1)):
        paintings.write_paintings(tmp_path / name, num, seed)
    whole, few, other = (digests(folder) for folder in (demo / "paintings", tmp_path / "a", tmp_path / "b"))
    assert set(few) == {"oil/oil_0000.png", "night/night_0001.png", "oil/oil_0002.png"}
    assert all(whole[name] == digest for name, digest in few.items())
    assert all(whole[name] != digest for name, digest in other.items())
    assert len(set(whole.values())) == NUM


def test_two_folders_are_two_hands(demo):
    hands = {}
    for name in ("oil", "night"):
        files = sorted((demo / "paintings" / name).iterdir())
        assert len(files) == NUM // 2
        with Image.open(files[0]) as image:
            assert (image.size, image.mode) == ((256, 256), "RGB")
        hands[name] = load(demo / "paintings" / name)
        assert hands[name].flatten(2).std(dim=2).mean() > 0.3, "contrast"
    shares = {name: (hand[:, 2] > hand[:, 0]).double().mean().item() for name, hand in hands.items()}
    assert shares["night"] > 0.4 > 0.3 > shares["oil"], "night is blue, oil is of earth"
    warmth = {name: (hand[:, 0] - hand[:, 2]).std().item() for name, hand in hands.items()}
    assert warmth["night"] > 0.4, "lamplight beside the blues"


def test_paintings_differ_from_photographs_without_colour_too(demo):
    """Each hand is much farther from the photographs than its own halves are from each other."""
    networks = build_networks()
    content = load(demo / "photos")
    for prepare in (lambda image: image, colour_free):
        content_SND = describe(networks, prepare(content))
        for name in ("oil", "night"):
            style_SMD = describe(networks, prepare(load(demo / "paintings" / name)))
            kernel = RbfKernel.fit(content_SND, style_SMD)
            halves = mmd2(kernel.between(style_SMD[:, ::2], style_SMD[:, 1::2])).item()
            assert mmd2(kernel.between(content_SND, style_SMD)).item() > max(0.01, 2 * halves), name


def test_a_painting_shows_strokes_not_pixels_or_blur(scripts):
    """Along a stroke the paint hardly changes, across it does: the hands are oriented, and finer than the view."""
    paintings, _ = scripts
    ramp = np.repeat(np.linspace(40, 215, paintings.SIDE_PX)[:, None], paintings.SIDE_PX, axis=1)
    view = np.repeat(ramp[..., None], 3, axis=-1)
    hand = paintings.HANDS["oil"]._replace(flow=0.0)
    grey = np.asarray(paintings.paint(view, hand, np.random.default_rng(0)).convert("L"), float)
    along, across = np.abs(np.diff(grey, axis=1)).mean(), np.abs(np.diff(grey, axis=0)).mean()
    assert across > 1.3 * along, "the view's gradient is vertical, so strokes are horizontal"
    assert across > 3 * np.abs(np.diff(ramp, axis=0)).mean(), "texture that the view has not"
    rows = grey.reshape(16, 16, -1).mean(axis=(1, 2))
    assert np.corrcoef(rows, ramp.reshape(16, 16, -1).mean(axis=(1, 2)))[0, 1] > 0.95, "and still the view's light"


def test_no_painting_shows_what_a_content_photograph_shows(scripts, demo):
    """Unpaired: a painting shares far more edges with its own view than with the nearest of all contents."""
    paintings, _ = scripts
    content, style = load(demo / "photos"), load(demo / "paintings")
    names = sorted((demo / "paintings").rglob("*.png"))
    nearest = torch.stack([edge_cosine(content.roll(shift, dims=0), style) for shift in range(NUM)]).amax(dim=0)
    views = []
    for index in (int(path.stem[-4:]) for path in names):
        view = paintings.view(index // 2, np.random.default_rng([0, index, 23]))
        views.append(Image.fromarray(view.astype(np.uint8)).resize((96, 96), Image.Resampling.LANCZOS))
    own = edge_cosine(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2) / 127.5 - 1, style)
    assert own.min() > 0.5 > 0.35 > nearest.max()
