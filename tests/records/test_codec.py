"""Round trips, orientation, limits, reasons, frames and encoding."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from stylejobs.errors import DecodeError, EncodeError
from stylejobs.records.codec import Limits, decode_image, encode_image, is_plain_rgb8, read_header

LIMITS = Limits()


def smooth(height=40, width=56):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)], 2).astype(np.uint8)


def saved(pixels, format="PNG", **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def reason_of(data, limits=LIMITS, call=read_header):
    with pytest.raises(DecodeError) as caught:
        call(data, limits)
    return caught.value.reason


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(format):
    pixels = smooth()
    decoded = decode_image(saved(pixels, format), LIMITS)
    assert decoded.dtype == np.uint8 and decoded.flags.writeable and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, pixels)


def test_webp_lossless_and_gif_come_back_exactly():
    pixels = smooth(16, 16)
    np.testing.assert_array_equal(decode_image(saved(pixels, "WEBP", lossless=True), LIMITS), pixels)
    np.testing.assert_array_equal(decode_image(saved(pixels, "GIF"), LIMITS), pixels)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_higher_quality_is_nearer_and_larger(format):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    low, high = (encode_image(pixels, format, quality) for quality in (30, 95))
    errors = [np.abs(decode_image(data, LIMITS).astype(int) - pixels).mean() for data in (low, high)]
    assert errors[1] < errors[0] and len(low) < len(high)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_encoding_is_deterministic_and_carries_no_metadata(format):
    pixels = smooth()
    assert encode_image(pixels, format, 90) == encode_image(pixels[:, :, ::-1].copy()[:, :, ::-1], format, 90)
    data = encode_image(pixels, format, 90)
    info = Image.open(io.BytesIO(data)).info
    assert not {"exif", "icc_profile", "xmp", "comment", "Software"} & set(info)
    header = read_header(data, LIMITS)
    assert (header.format, header.height, header.width) == (format, 40, 56) and is_plain_rgb8(header)


def test_png_is_lossless_and_webp_100_is_still_lossy():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(encode_image(pixels, "png", 1), LIMITS), pixels)
    assert (decode_image(encode_image(pixels, "webp", 100), LIMITS) != pixels).any()


@pytest.mark.parametrize(("subsampling", "factors"), [("4:2:0", (2, 2)), ("4:2:2", (2, 1)), ("4:4:4", (1, 1))])
def test_jpeg_subsampling_is_what_was_asked(subsampling, factors):
    image = Image.open(io.BytesIO(encode_image(smooth(), "jpeg", 90, subsampling)))
    assert image.layer[0][1:3] == factors
    assert encode_image(smooth(), "jpeg", 90) == encode_image(smooth(), "jpeg", 90, "4:2:0")


@pytest.mark.parametrize(
    "arguments", [("gif", 90), ("jpeg", 0), ("jpeg", 101), ("jpeg", 90.0), ("jpeg", True), ("jpeg", 90, "4:1:1")]
)
def test_wrong_arguments_are_value_errors(arguments):
    with pytest.raises(ValueError, match="must be"):
        encode_image(smooth(), *arguments)


@pytest.mark.parametrize(
    ("pixels", "format"),
    [
        (np.zeros((8, 8), np.uint8), "png"),
        (np.zeros((8, 8, 4), np.uint8), "png"),
        (np.zeros((0, 8, 3), np.uint8), "png"),
        (np.zeros((8, 8, 3), np.float32), "png"),
        (np.zeros((1, 17000, 3), np.uint8), "webp"),
        (np.zeros((1, 70000, 3), np.uint8), "jpeg"),
    ],
)
def test_pixels_that_no_file_can_hold_are_encode_errors(pixels, format):
    with pytest.raises(EncodeError) as caught:
        encode_image(pixels, format, 90)
    assert caught.value.reason == "encode"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_exif_transpose(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth(24, 40), format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    header, decoded = read_header(data, LIMITS), decode_image(data, LIMITS)
    np.testing.assert_array_equal(decoded, expected)
    assert (header.height, header.width) == decoded.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    assert header.orientation == orientation and is_plain_rgb8(header) is (orientation == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_the_definition_in_the_exif_standard(orientation):
    pixels = smooth(8, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What the stored first row and first column are in the upright picture (Exif 2.32, tag 0x0112).
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(decode_image(saved(pixels, "PNG", exif=exif), LIMITS), upright)


@pytest.mark.parametrize("damage", [0, 1])
def test_png_exif_after_the_pixels_counts_unless_it_is_damaged(damage):
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = saved(smooth(24, 40))
    chunk = bytearray(png_chunk(b"eXIf", exif.tobytes()[6:]))
    chunk[-1] ^= damage
    data = plain[:-12] + bytes(chunk) + plain[-12:]
    header, decoded = read_header(data, LIMITS), decode_image(data, LIMITS)
    assert (header.height, header.width) == decoded.shape[:2]
    if not damage:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        np.testing.assert_array_equal(decoded, expected)
        assert header.orientation == 6


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_malformed_exif_costs_nothing(format):
    pixels = smooth()
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"):
        data = saved(pixels, format, exif=exif)
        assert read_header(data, LIMITS).orientation == 1
        np.testing.assert_array_equal(decode_image(data, LIMITS), decode_image(saved(pixels, format), LIMITS))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_ignored(value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert read_header(saved(smooth(), "JPEG", exif=exif), LIMITS).orientation == 1


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several(format):
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (10, 120, 240)]
    data = saved(
        frames[0], format, save_all=True, append_images=frames[1:], **{"WEBP": {"lossless": True}}.get(format, {})
    )
    header = read_header(data, LIMITS)
    assert header.num_frames == (3 if format in ("PNG", "WEBP") else 2) and not is_plain_rgb8(header)
    np.testing.assert_array_equal(decode_image(data, LIMITS), np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_an_image"),
        (b"<html>404</html>", "not_an_image"),
        (b"BMW builds cars, and this line is prose", "not_an_image"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", "not_an_image"),
        (b"%PDF-1.7\n", "not_an_image"),
        (b"8BPS\x00\x01" + bytes(40), "unsupported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "unsupported"),
        (b"\x00\x00\x00\x1cftypavif" + bytes(20), "unsupported"),
        (b"P6\n8 8\n255\n" + bytes(192), "unsupported"),
        (b"\x89PNG", "truncated"),
        (b"RIFF\x00\x00\x00\x00WE", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
    ],
)
def test_reasons_for_what_is_no_image_of_ours(data, reason):
    assert reason_of(data) == reason_of(data, call=decode_image) == reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_half_a_file_is_truncated(format):
    data = saved(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8), format)
    assert reason_of(data[: len(data) // 2], call=decode_image) == "truncated"


def test_limits_refuse_from_the_header_and_say_the_number():
    data = saved(smooth(40, 56))
    assert reason_of(data, Limits(max_bytes=len(data) - 1)) == "bomb"
    assert reason_of(data, Limits(max_megapixels=40 * 56 / 1e6 - 1e-6)) == "bomb"
    assert reason_of(data, Limits(min_side_px=41)) == "too_small"
    assert reason_of(data, Limits(max_aspect=1.39)) == "too_small"
    assert read_header(data, Limits(len(data), 40 * 56 / 1e6, 1.4, 40)).width == 56
    with pytest.raises(DecodeError, match=r"56x40.*41"):
        decode_image(data, Limits(min_side_px=41))


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_without_decoding(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    assert reason_of(data) == reason_of(data, call=decode_image) == "bomb"
    canvas = (side // 4 - 1).to_bytes(3, "little")
    webp = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas * 2
    assert reason_of(webp, Limits(max_megapixels=1)) == "bomb"


def test_a_text_chunk_that_inflates_without_bound_is_a_bomb():
    data = saved(smooth())
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))
    assert reason_of(data[:33] + text + data[33:]) == "bomb"


def test_no_memory_is_its_own_reason(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fails)
    assert reason_of(saved(smooth()[..., 0]), call=decode_image) == "oom"


def test_threads_get_the_same_pixels():
    files = [
        encode_image(np.roll(smooth(128, 128), shift, 1), format, 90)
        for shift in range(8)
        for format in ("jpeg", "webp")
    ]
    expected = [decode_image(data, LIMITS).tobytes() for data in files]
    wrong = []

    def work():
        wrong.extend(i for i, data in enumerate(files) if decode_image(data, LIMITS).tobytes() != expected[i])

    threads = [threading.Thread(target=work) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong
