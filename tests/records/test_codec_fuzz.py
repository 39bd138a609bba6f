"""Whatever the bytes are: pixels of the header's size, or a DecodeError with a reason of the vocabulary."""

import collections
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylejobs.errors import DecodeError
from stylejobs.records.codec import Limits, decode_image, read_header

LIMITS = Limits(max_megapixels=4, min_side_px=1)
REASONS = {"truncated", "not_an_image", "bomb", "too_small", "unsupported", "decode"}
SIGNATURES = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"RIFF\0\0\0\0WEBP",
]


def seeds():
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    saves = [
        (noise, "JPEG", {"exif": exif}),
        (noise.convert("CMYK"), "JPEG", {"progressive": True}),
        (noise, "PNG", {"exif": exif}),
        (noise.quantize(16), "PNG", {"transparency": 3}),
        (noise, "PNG", {"save_all": True, "append_images": [noise.rotate(180)]}),
        (noise.convert("RGBA"), "WEBP", {"exif": exif}),
        (noise, "WEBP", {"save_all": True, "append_images": [noise.rotate(180)], "lossless": True}),
        (noise, "BMP", {}),
        (noise.quantize(16), "BMP", {}),
        (noise, "TIFF", {"exif": exif}),
        (noise, "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        (noise.convert("1"), "TIFF", {"compression": "group4"}),
        (noise, "GIF", {"save_all": True, "append_images": [noise.rotate(180)]}),
    ]
    files = []
    for image, format, options in saves:
        file = io.BytesIO()
        image.save(file, format, **options)
        files.append(file.getvalue())
    return files


SEEDS = seeds()


def outcome(data):
    """`ok` or the reason; every other exception, and a size that the header did not announce, fails the test."""
    try:
        header = read_header(data, LIMITS)
    except DecodeError as error:
        with pytest.raises(DecodeError):
            decode_image(data, LIMITS)
        assert error.reason in REASONS
        return error.reason
    try:
        pixels = decode_image(data, LIMITS)
    except DecodeError as error:
        assert error.reason in REASONS
        return error.reason
    assert pixels.dtype == np.uint8 and pixels.shape == (header.height, header.width, 3)
    return "ok"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", *SIGNATURES]), st.binary(max_size=200))
def test_random_bytes(signature, rest):
    outcome(signature + rest)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans()), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_mutated_images(seed, flips, keep):
    data = bytearray(seed)
    for place, change, near_start in flips:
        # Headers are short: half of the flips go there.
        data[int(place * (min(len(data), 120) if near_start else len(data)))] ^= change
    outcome(bytes(data[: int(keep * len(data))] if keep > 0.5 else data))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("index", range(len(SEEDS)))
def test_a_cut_file_never_gives_other_pixels(index):
    data = SEEDS[index]
    whole = decode_image(data, LIMITS)
    reasons = collections.Counter()
    for length in range(0, len(data), max(1, len(data) // 150)):
        try:
            pixels = decode_image(data[:length], LIMITS)
        except DecodeError as error:
            reasons[error.reason] += 1
        else:
            np.testing.assert_array_equal(pixels, whole, err_msg=f"cut at {length} of {len(data)}")
    # A GIF may be cut right after a byte that looks like its end mark.
    assert reasons.pop("decode", 0) <= (2 if data.startswith(b"GIF") else 0)
    assert set(reasons) <= {"truncated", "not_an_image"}, reasons


def nasty_files():
    given_folder = os.environ.get("STYLEJOBS_DATA")
    data = Path(given_folder) if given_folder else Path(__file__).resolve().parents[3] / "shared" / "data"
    return sorted(path for path in (data / "nasty").glob("*/*") if path.is_file())


EXPECTED_REASONS = {
    "fail_open": {"unsupported", "not_an_image", "truncated", "bomb", "too_small", "decode"},
    "fail_load": {"unsupported", "not_an_image", "truncated", "decode"},
    "bomb": {"bomb", "unsupported"},
    "modes": {"ok", "unsupported", "not_an_image"},
    "animated_multi": {"ok", "unsupported"},
    "orientation": {"ok", "unsupported"},
    # "decode" is one file: an animated PNG without its first frame control chunk, which Pillow refuses.
    "ok_but_odd": {"ok", "unsupported", "not_an_image", "decode"},
}
EXPECTED_FILES = {
    "truncated_image.png": "truncated",
    "png_decompression_dos.png": "bomb",
    "bmp__b__badwidth.bmp": "bomb",
    "svg_as_jpg_met_437102.jpg": "unsupported",
    "avif__hopper.heif": "unsupported",
    "tga__common__readme.txt": "not_an_image",
    "duplicate_xref_entry.pdf": "not_an_image",
    "10ct_32bit_128.tiff": "unsupported",
    "apng__chunk_no_fctl.png": "decode",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not nasty_files(), reason="no development data (STYLEJOBS_DATA or ../shared/data)")
def test_files_that_break_readers():
    limits = Limits(max_megapixels=100, min_side_px=1)
    table = {}
    for path in nasty_files():
        data = path.read_bytes()
        try:
            header = read_header(data, limits)
            pixels = decode_image(data, limits)
        except DecodeError as error:
            table[path] = error.reason
        else:
            table[path] = "ok"
            assert pixels.shape == (header.height, header.width, 3), path.name
    odd = {path.name: reason for path, reason in table.items() if reason not in EXPECTED_REASONS[path.parent.name]}
    assert not odd
    seen = {path.name: reason for path, reason in table.items() if path.name in EXPECTED_FILES}
    assert seen == EXPECTED_FILES
    assert sum(reason == "decode" for reason in table.values()) == 1
