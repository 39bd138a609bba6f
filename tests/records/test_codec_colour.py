"""Every row of the table in `stylejobs.records.colour`, against numpy or a closed form."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from stylejobs.errors import DecodeError
from stylejobs.records.codec import Limits, decode_image, is_plain_rgb8, read_header

LIMITS = Limits()
RNG = np.random.default_rng(7)


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(image, format="PNG", **options):
    return decode_image(saved(image, format, **options), LIMITS)


def grey(values):
    return np.repeat(values[..., None], 3, 2)


def over_white(rgb, alpha):
    fraction = alpha.astype(np.float64)[..., None] / 255
    return np.rint(fraction * rgb + (1 - fraction) * 255).astype(np.uint8)


def nearest_8bit(values, white):
    return np.rint(values.astype(np.float64) * 255 / white).astype(np.uint8)


def png(depth, colour_type, samples_HWC, extra=b""):
    """A PNG written by hand, for depths that Pillow cannot write: samples are uint8 or uint16."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = samples_HWC.shape[:2]
    if depth < 8:
        bits = (samples_HWC[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        rows = samples_HWC.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    keyed = chunk(b"tRNS", extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + keyed
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def tiff(samples, bits, photometric, sample_format=1, planar=1):
    """An uncompressed little-endian TIFF written by hand; `samples` is [H, W] or [H, W, C]."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    planes = list(samples.transpose(2, 0, 1)) if planar == 2 else [samples]
    blobs = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    # One field: tag, type (3 short, 4 long), values.
    num_fields, extra = 11, b""
    start = 8 + 2 + 12 * num_fields + 4
    offsets = [start + 64 + sum(map(len, blobs[:i])) for i in range(len(blobs))]
    fields = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * channels),
        (259, 3, [1]),
        (262, 3, [photometric]),
    ]
    fields += [(273, 4, offsets), (277, 3, [channels]), (278, 3, [height]), (279, 4, [len(blob) for blob in blobs])]
    fields += [(284, 3, [planar]), (339, 3, [sample_format] * channels)]
    directory = struct.pack("<H", num_fields)
    for tag, kind, values in fields:
        body = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(body) > 4:
            extra, body = extra + body, struct.pack("<I", start + len(extra))
        directory += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + extra.ljust(64, b"\0") + b"".join(blobs)


VALUES = RNG.integers(0, 256, (16, 24), np.uint8)
COLOURS = RNG.integers(0, 256, (16, 24, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (16, 24), np.uint8)
DEEP = np.concatenate([RNG.integers(0, 65536, (15, 24)), [np.arange(24) * 257 // 2]]).astype(np.uint16)


def test_grey_and_bilevel():
    np.testing.assert_array_equal(decoded(Image.fromarray(VALUES)), grey(VALUES))
    bits = VALUES > 127
    np.testing.assert_array_equal(decoded(Image.fromarray(bits)), grey(bits * np.uint8(255)))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_grey_is_stretched(depth):
    samples = VALUES >> (8 - depth)
    expected = nearest_8bit(samples, 2**depth - 1)
    np.testing.assert_array_equal(decode_image(png(depth, 0, samples), LIMITS), grey(expected))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_turns_white_at_every_depth(depth):
    samples = DEEP if depth == 16 else VALUES >> (8 - depth)
    key = int(samples[0, 0])
    expected = np.where(samples == key, 255, nearest_8bit(samples, 2**depth - 1)).astype(np.uint8)
    data = png(depth, 0, samples, struct.pack(">H", key))
    np.testing.assert_array_equal(decode_image(data, LIMITS), grey(expected))
    assert read_header(data, LIMITS).mode.endswith("+key")


@pytest.mark.parametrize("deep", [False, True])
def test_a_transparent_colour_turns_white_and_is_not_plain(deep):
    samples = COLOURS.astype(np.uint16) << 8 | 37 if deep else COLOURS
    data = png(16 if deep else 8, 2, samples, struct.pack(">HHH", *map(int, samples[0, 0])))
    keyed = (COLOURS[0, 0] == COLOURS).all(2, keepdims=True)
    np.testing.assert_array_equal(decode_image(data, LIMITS), np.where(keyed, 255, COLOURS))
    assert not is_plain_rgb8(read_header(data, LIMITS))


def test_alpha_is_composited_over_white_as_in_float64():
    rgba, la = np.dstack([COLOURS, ALPHA]), np.dstack([VALUES, ALPHA])
    expected = over_white(COLOURS, ALPHA)
    for format, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        np.testing.assert_array_equal(decoded(Image.fromarray(rgba), format, **options), expected)
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decoded(Image.fromarray(la), format), over_white(grey(VALUES), ALPHA))


@pytest.mark.parametrize("partial", [False, True])
def test_palettes_with_transparency(partial):
    palette = RNG.integers(0, 256, (256, 3), np.uint8)
    alphas = RNG.integers(0, 256, 256).astype(np.uint8) if partial else np.where(np.arange(256) == 5, 0, 255)
    image = Image.fromarray(VALUES).convert("P")
    image.putdata(VALUES.ravel().tolist())
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decoded(image), palette[VALUES])
    transparency = alphas.tobytes() if partial else 5
    expected = over_white(palette[VALUES], alphas[VALUES].astype(np.uint8))
    np.testing.assert_array_equal(decoded(image, transparency=transparency), expected)
    if not partial:
        np.testing.assert_array_equal(decoded(image, "GIF", transparency=5), expected)


def test_grey_of_16_bits_is_rounded_exactly():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = grey(np.rint(every / 257.0).astype(np.uint8))
    np.testing.assert_array_equal(decode_image(png(16, 0, every), LIMITS), expected)
    np.testing.assert_array_equal(decode_image(tiff(every, 16, 1), LIMITS), expected)
    np.testing.assert_array_equal(decode_image(tiff(every, 16, 0), LIMITS), 255 - expected)
    compressed = saved(Image.fromarray(every), "TIFF", compression="tiff_adobe_deflate")
    np.testing.assert_array_equal(decode_image(compressed, LIMITS), expected)


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_colour_of_16_bits_keeps_the_high_byte(colour_type):
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    samples = RNG.integers(0, 65536, (16, 24, channels), np.uint16)
    if channels != 3:
        samples[..., -1] = 65535
    data = png(16, colour_type, samples)
    result = decode_image(data, LIMITS).astype(int)
    colours = samples[..., :3] if channels >= 3 else samples[..., :1].repeat(3, 2)
    np.testing.assert_array_equal(result, colours >> 8)
    assert np.abs(result - np.rint(colours / 257.0)).max() <= 1
    header = read_header(data, LIMITS)
    assert header.mode.endswith(";16") and not is_plain_rgb8(header)


def test_colour_tiffs_of_16_bits():
    samples = RNG.integers(0, 65536, (16, 24, 3), np.uint16)
    np.testing.assert_array_equal(decode_image(tiff(samples, 16, 2), LIMITS), samples >> 8)
    with pytest.raises(DecodeError, match="unsupported"):
        decode_image(tiff(samples, 16, 2, planar=2), LIMITS)
    np.testing.assert_array_equal(decode_image(tiff(COLOURS, 8, 2, planar=2), LIMITS), COLOURS)


def test_grey_of_12_bits():
    samples = (DEEP >> 4).astype(np.uint16)
    pairs = samples.reshape(-1, 2).astype(np.uint32)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    file = tiff(packed.astype(np.uint8).reshape(16, 36), 12, 1)
    file = file.replace(struct.pack("<HHIHH", 256, 3, 1, 36, 0), struct.pack("<HHIHH", 256, 3, 1, 24, 0))
    np.testing.assert_array_equal(decode_image(file, LIMITS), grey(nearest_8bit(samples, 4095)))


@pytest.mark.parametrize(("low", "high", "accepted"), [(0, 65535, True), (-1, 65535, False), (0, 65536, False)])
def test_integers_are_16_bit_values_or_refused(low, high, accepted):
    samples = DEEP.astype(np.int32).clip(100, 60000)
    samples[0, 0], samples[0, 1] = low, high
    data = tiff(samples, 32, 1, sample_format=2)
    if accepted:
        np.testing.assert_array_equal(decode_image(data, LIMITS), grey(nearest_8bit(samples, 65535)))
    else:
        with pytest.raises(DecodeError, match="unsupported"):
            decode_image(data, LIMITS)


@pytest.mark.parametrize("odd", [None, np.nan, np.inf, 1.01, -0.01])
def test_floats_are_fractions_or_refused(odd):
    samples = RNG.random((16, 24)).astype(np.float32)
    if odd is None:
        expected = np.rint(samples.astype(np.float64) * 255).astype(np.uint8)
        np.testing.assert_array_equal(decode_image(tiff(samples, 32, 1, sample_format=3), LIMITS), grey(expected))
        np.testing.assert_array_equal(decode_image(tiff(samples, 32, 0, sample_format=3), LIMITS), grey(255 - expected))
        return
    samples[3, 3] = odd
    with pytest.raises(DecodeError, match="unsupported"):
        decode_image(tiff(samples, 32, 1, sample_format=3), LIMITS)


def test_cmyk_is_the_product_of_what_is_not_absorbed():
    inks = RNG.integers(0, 256, (16, 24, 4), np.uint8)
    left = 255.0 - inks
    expected = left[..., :3] * left[..., 3:] / 255
    assert np.abs(decoded(Image.fromarray(inks, "CMYK"), "TIFF") - expected).max() <= 1
    flat = np.broadcast_to(np.array([200, 30, 90, 40], np.uint8), (16, 24, 4)).copy()
    # Pillow writes Adobe's inverted CMYK JPEGs; a reader that forgets to invert is far off.
    error = decoded(Image.fromarray(flat, "CMYK"), "JPEG", quality=100) - (255.0 - flat[..., :3]) * (255 - 40) / 255
    assert np.abs(error).max() <= 3


def test_ycbcr_tiff_and_lab_tiff():
    ycbcr = Image.fromarray(COLOURS).convert("YCbCr")
    y, cb, cr = np.asarray(ycbcr).astype(np.float64).transpose(2, 0, 1)
    jfif = np.stack(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], 2
    )
    raw = tiff(np.asarray(ycbcr), 8, 6)
    assert np.abs(decode_image(raw, LIMITS) - jfif.clip(0, 255)).max() <= 1.5
    lightness = np.zeros((16, 24, 3), np.uint8)
    lightness[..., 0] = np.linspace(0, 255, 24).astype(np.uint8)
    # CIE 1976: neutral colours depend on L alone; then the sRGB transfer function.
    star = lightness[..., 0].astype(np.float64) * 100 / 255
    linear = np.where(star > 8, ((star + 16) / 116) ** 3, star / 903.3)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(decode_image(tiff(lightness, 8, 8), LIMITS) - srgb[..., None]).max() <= 2


def test_embedded_profiles_are_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = Image.fromarray(COLOURS)
    for odd in (profile, b"not a profile at all"):
        np.testing.assert_array_equal(decoded(image, icc_profile=odd), COLOURS)
    assert is_plain_rgb8(read_header(saved(image, icc_profile=profile), LIMITS))
