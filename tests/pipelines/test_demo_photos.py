import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

SCRIPT = Path(__file__).parents[2] / "infra" / "demo" / "photos.py"


@pytest.fixture(scope="module")
def photos():
    spec = importlib.util.spec_from_file_location("demo_photos", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(photos, tmp_path_factory):
    dest = tmp_path_factory.mktemp("demo") / "photos"
    photos.main([str(dest)])
    return dest


def _files(dest: Path) -> list[Path]:
    return sorted(path for path in dest.rglob("*") if path.is_file())


def _digest(dest: Path) -> str:
    digest = hashlib.sha256()
    for path in _files(dest):
        digest.update(path.relative_to(dest).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _good(photos, dest: Path) -> list[Path]:
    return [path for path in _files(dest) if path.relative_to(dest).as_posix() not in photos.BAD_FILES]


def test_there_are_enough_files_and_few_enough_are_bad(photos, demo):
    good, everything = _good(photos, demo), _files(demo)
    assert len(good) >= 200
    assert 0 < len(everything) - len(good) <= 0.02 * len(everything)
    assert {path.parent.name for path in everything} == set(photos.PHOTOS)


def test_sizes_shapes_and_formats_vary(photos, demo):
    sizes, formats, modes, orientations = [], [], set(), set()
    for path in _good(photos, demo):
        with Image.open(path) as image:
            image.load()
            sizes.append(ImageOps.exif_transpose(image).size)
            formats.append(image.format)
            modes.add(image.mode)
            orientations.add(image.getexif().get(photos.EXIF_ORIENTATION, 1))
    sides = np.array(sizes)
    assert sides.min() >= 96 and sides.max() <= 640 and sides.min() < 120 and sides.max() > 560
    assert len(set(sizes)) > 100 and (sides % 2 == 1).any()
    landscape = float((sides[:, 0] > sides[:, 1]).mean())
    assert 0.3 < landscape < 0.7
    assert formats.count("JPEG") > len(formats) / 2 and {"PNG", "WEBP"} < set(formats)
    assert modes == {"RGB", "L"} and orientations == {1, 3, 6, 8}


def test_a_turned_file_is_upright_again_after_its_exif_tag(photos):
    upright = Image.fromarray(np.tile(np.arange(0, 240, 2, np.uint8)[:, None, None], (1, 160, 3)))
    for orientation, stored_as in photos.STORED_AS.items():
        stored = upright.transpose(stored_as)
        stored.getexif()[photos.EXIF_ORIENTATION] = orientation
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(stored)), np.asarray(upright))


def test_all_bad_files_are_really_bad(photos, tmp_path):
    photos.write_bad_files(tmp_path, 3)
    assert len(_files(tmp_path)) == 3
    for path in _files(tmp_path):
        with pytest.raises((OSError, SyntaxError)), Image.open(path) as image:
            image.load()


def test_the_same_arguments_write_the_same_bytes(photos, tmp_path):
    for name, num, seed in (("a", 24, 0), ("b", 24, 0), ("c", 24, 1)):
        photos.write_photos(tmp_path / name, num, seed)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def test_the_style_image_is_a_rich_colour_picture(photos, demo):
    with Image.open(demo.parent / "style.png") as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    assert pixels.shape == (640, 640, 3)
    assert pixels.reshape(-1, 3).std(axis=0).min() > 35, "strong palette"
    grey = pixels.mean(axis=-1)
    for block_px in (1, 4, 16):
        size = 640 // block_px
        coarse = grey.reshape(size, block_px, size, block_px).mean(axis=(1, 3))
        assert np.abs(np.diff(coarse, axis=1)).mean() > 4, f"texture at {block_px} px"
