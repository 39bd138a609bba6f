"""What an image file says about itself before any pixel is decoded: signature, declared size, where it should end.

Pure functions of bytes, without Pillow. What the pixels mean is `colour.py`; opening and decoding is `codec.py`.
"""

import struct
import zlib

# HEIF brands only: the same box also opens MP4 videos, which are no images.
_HEIF_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"}

_REFUSED_SIGNATURES = (
    (0, b"8BPS", "psd"),
    (0, b"\x00\x00\x00\x0cjP  ", "jpeg2000"),
    (0, b"\xff\x4f\xff\x51", "jpeg2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "jpeg-xl"),
    (0, b"\xff\x0a", "jpeg-xl"),
    (0, b"\x00\x00\x01\x00", "ico"),
    (0, b"\x00\x00\x02\x00", "cur"),
    (0, b"icns", "icns"),
    (0, b"DDS ", "dds"),
    (0, b"BLP1", "blp"),
    (0, b"BLP2", "blp"),
    (0, b"FTEX", "ftex"),
    (0, b"qoif", "qoi"),
    (0, b"SIMPLE  =", "fits"),
    (0, b"\x01\xda\x00\x01", "sgi"),
    (0, b"\x01\xda\x01\x01", "sgi"),
    (0, b"\x01\xda\x01\x02", "sgi"),
    (0, b"v/1\x01", "openexr"),
    (0, b"#?RADIANCE", "hdr"),
    (0, b"%!PS", "eps"),
    (0, b"\xc5\xd0\xd3\xc6", "eps"),
    (0, b"\xd7\xcd\xc6\x9a", "wmf"),
    (0, b"/* XPM */", "xpm"),
    (0, b"DanM", "msp"),
    (0, b"LinS", "msp"),
    (0, b"\x59\xa6\x6a\x95", "sun raster"),
    (0, b"\n\x05\x01", "pcx"),
    (4, b"\x11\xaf", "fli"),
    (4, b"\x12\xaf", "fli"),
    *((0, b"P%d" % digit + space, "pnm") for digit in range(1, 8) for space in (b"\n", b" ")),
)

_TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PNG_EXIF_OR_XMP = (b"Raw profile type exif\x00", b"XML:com.adobe.xmp\x00")
# Bytes of a value, by field type (TIFF 6.0, section 2).
_TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def accepted_format(data: bytes) -> str | None:
    """The format that the first bytes announce, if it is one that we decode.

    Args:
        data: a whole file, or at least its first 18 bytes.

    Returns:
        "jpeg", "png", "webp", "bmp", "tiff", "gif" or None.

    >>> accepted_format(b"GIF89a"), accepted_format(b"BMW is a car, not a bitmap")
    ('gif', None)
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(_TIFF_SIGNATURES):
        return "tiff"
    # Two letters also begin prose: no BMP has an information header of 256 bytes or more.
    if data.startswith(b"BM") and data[15:18] in (b"\x00\x00\x00", b""):
        return "bmp"
    return None


def refused_format(data: bytes) -> str | None:
    """The name of an image format that we know and do not decode (PSD, AVIF, SVG, EPS, ...), or None."""
    for offset, signature, name in _REFUSED_SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "avif or heif"
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    return "svg" if head.startswith(b"<") and b"<svg" in head else None


def starts_a_signature(data: bytes) -> bool:
    """True when `data` is shorter than the signature of a format that we decode, and agrees with it so far."""
    whole = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", *_TIFF_SIGNATURES)
    in_riff = len(data) < 12 and data.startswith(b"RIFF") and b"WEBP".startswith(data[8:12])
    return in_riff or (len(data) > 1 and any(signature.startswith(data) for signature in whole))


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a WebP file from its first chunk, or None when that is malformed.

    Pillow's decoder allocates the whole canvas when it opens a file, so the size has to be known before.
    Source: RFC 9649, sections 2.7 and 3.4; RFC 6386, section 9.1.
    """
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def png_metadata_first(data: bytes) -> bytes:
    """The same PNG with EXIF and XMP chunks that follow the pixels copied in front of them.

    Readers meet such chunks (an orientation written by exiftool, say) only after decoding; a header that knows the
    upright size needs them before. Bytes that need no change, or whose chunks are damaged, come back as they are.
    """
    first_pixels, trailing, offset = 0, [], 8
    while offset + 12 <= len(data):
        kind = data[offset + 4 : offset + 8]
        end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
        if kind == b"IDAT" and not first_pixels:
            first_pixels = offset
        elif first_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt") and _is_sound_metadata(data[offset:end]):
            trailing.append(data[offset:end])
        offset = end
    return b"".join((data[:first_pixels], *trailing, data[first_pixels:])) if trailing else data


def _is_sound_metadata(chunk: bytes) -> bool:
    """Whether a PNG chunk holds EXIF or XMP and is undamaged: moved forward, a damaged one would cost the picture."""
    is_wanted = chunk[4:8] == b"eXIf" or chunk[8:].startswith(_PNG_EXIF_OR_XMP)
    return is_wanted and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]


def is_cut_short(data: bytes, format: str) -> bool:
    """Whether a file that failed to decode ends before its container says that it should.

    Says nothing about files that decode: trailing or missing end marks are common in healthy ones.

    Args:
        data: the whole file.
        format: what `accepted_format` said.
    """
    if format == "png":
        return data.rfind(b"IEND") < 0
    if format == "jpeg":
        return b"\xff\xd9" not in data[-64:]
    if format == "webp":
        return len(data) < 12 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    if format == "gif":
        return not data.rstrip(b"\x00").endswith(b";")
    if format == "bmp":
        return len(data) < 18 or 14 + int.from_bytes(data[14:18], "little") > len(data)
    return _is_tiff_cut_short(data)


def _is_tiff_cut_short(data: bytes) -> bool:
    """Whether the first directory of a classic TIFF, or values, strips or tiles that it names, lie beyond the end."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] not in (b"*\x00", b"\x00*"):
        return False
    numbers: dict[int, tuple[int, ...]] = {}
    try:
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (num_fields,) = struct.unpack_from(order + "H", data, directory)
        for field in range(directory + 2, directory + 2 + 12 * num_fields, 12):
            tag, kind, count, start = struct.unpack_from(order + "HHII", data, field)
            size = count * _TIFF_WIDTHS.get(kind, 0)
            start = start if size > 4 else field + 8
            if start + size > len(data):
                return True
            if tag in (273, 279, 324, 325) and kind in (3, 4):
                numbers[tag] = struct.unpack_from(f"{order}{count}{'HI'[kind - 3]}", data, start)
    except struct.error:
        return True
    pairs = [(numbers.get(offsets, ()), numbers.get(sizes, ())) for offsets, sizes in ((273, 279), (324, 325))]
    return any(start + size > len(data) for pair in pairs for start, size in zip(*pair, strict=False))
