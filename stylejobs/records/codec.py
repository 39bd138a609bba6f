"""The only place where image bytes become pixels and back (Pillow).

Reading: JPEG, PNG, WebP, BMP, TIFF and GIF, recognised by their first bytes; the first frame of several; upright, after
EXIF (or XMP) orientation; 8-bit RGB by the table in `colour.py`. Any bytes whatsoever give pixels or a `DecodeError`:

    reason          when
    not_an_image    no image signature: text, zero bytes, a video
    unsupported     another image format, or a variant of ours that is not read (the message says which)
    truncated       the file ends before its container says so; nothing is filled in
    bomb            more bytes or pixels than the limits, or metadata that inflates without bound
    too_small       the short side is below `min_side_px`, or too short for the long side (`max_aspect`)
    decode          everything else: corrupt
    oom             memory ran out: the row may be good, try it again alone

Safe to call from several threads: no global of Pillow or of `warnings` is touched. Rows, schemas and lineage live in
their own files; file names and URIs are unknown here.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import (
    # Imported for their registration: Pillow would otherwise load all its plugins on the first row, in any thread.
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from stylejobs.errors import DecodeError, EncodeError
from stylejobs.records import colour, containers

ENCODED_FORMATS = ("jpeg", "png", "webp")
# Our own limit is a setting, and is checked on the header before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_ORIENTATION_TAG = 0x0112
_TURN_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BOMB_WORDS = ("decompressed data too large", "memory used in text chunks")
_TRUNCATED_WORDS = ("truncated", "not enough")
_UNSUPPORTED_WORDS = ("unsupported", "not supported", "not yet supported", "unknown", "cannot handle")


@dataclass(frozen=True)
class Limits:
    """What is refused from the header alone, before a pixel is decoded.

    Attributes:
        max_bytes: longest file.
        max_megapixels: largest image, in 10**6 pixels; Pillow's own guard refuses more than 178.9 in any case.
        max_aspect: largest long side / short side.
        min_side_px: shortest short side.
    """

    max_bytes: int = 64 * 2**20
    max_megapixels: float = 100.0
    max_aspect: float = 50.0
    min_side_px: int = 8


@dataclass(frozen=True)
class Header:
    """What a file says about its image.

    Attributes:
        format: "jpeg", "png", "webp", "bmp", "tiff" or "gif".
        width: pixels, after orientation: of what `decode_image` returns.
        height: pixels, after orientation.
        mode: stored samples, as `colour.stored_mode` names them; "RGB" is 8-bit RGB without transparency.
        orientation: EXIF orientation as stored, 1 to 8; 1 when absent or malformed.
        num_frames: images in the file; for GIF and TIFF 2 stands for two or more (counting reads the whole file).
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int
    num_frames: int


class OpenImage:
    """A file whose container has been read and found within the limits; no pixel is decoded yet.

    Attributes:
        height, width: pixels, after orientation: of what `decode` returns.

    Args:
        data: the whole file.
        limits: what to refuse.

    Raises:
        DecodeError: with a reason of the module's table; nothing else, for any bytes.
    """

    def __init__(self, data: bytes, limits: Limits):
        self._data = data
        with _raises_decode_error(data):
            self._image, self._format = _open(data, limits)
            self._orientation = _orientation(self._image)
            self.height, self.width = _upright_size(self._image, self._orientation)
            self._mode = colour.stored_mode(self._image)

    def header(self) -> Header:
        """What the file says about its image; a file that says it may still fail to decode."""
        with _raises_decode_error(self._data):
            num_frames = _num_frames(self._image)
            return Header(self._format, self.width, self.height, self._mode, self._orientation, num_frames)

    def decode(self) -> np.ndarray:
        """The first frame, upright, as 8-bit RGB (the rule is the table in `colour.py`); to be called once.

        Returns:
            uint8 [H, W, 3], C-contiguous, writable.

        Raises:
            DecodeError: with a reason of the module's table; nothing else, for any bytes.
        """
        with _raises_decode_error(self._data):
            self._image.load()
            rgb = colour.to_rgb(self._image, self._mode)
            # Pillow turns TIFFs upright while loading them.
            if self._orientation > 1 and self._format != "tiff":
                rgb = rgb.transpose(_TURN_UPRIGHT[self._orientation])
            if rgb.size != (self.width, self.height):
                raise DecodeError(
                    "decode", f"the header says {self.width}x{self.height} pixels, decoded {rgb.width}x{rgb.height}"
                )
            return np.array(rgb)


def read_header(data: bytes, limits: Limits) -> Header:
    """Checks a file against the limits and describes it, without decoding a pixel; raises as `OpenImage` does."""
    return OpenImage(data, limits).header()


def decode_image(data: bytes, limits: Limits) -> np.ndarray:
    """Decodes the first frame, upright, as uint8 RGB [H, W, 3]; raises as `OpenImage` and its `decode` do.

    >>> decode_image(encode_image(np.full((8, 9, 3), 7, np.uint8), "png", 90), Limits())[0, 0].tolist()
    [7, 7, 7]
    """
    return OpenImage(data, limits).decode()


def encode_image(pixels_HWC: np.ndarray, format: str, quality: int, subsampling: str = "4:2:0") -> bytes:
    """Encode pixels; the same pixels and arguments give the same bytes, which hold no metadata.

    Args:
        pixels_HWC: uint8 [H, W, 3] RGB.
        format: "jpeg" (baseline, default Huffman tables), "png" (lossless, zlib level 6) or "webp" (always lossy:
            quality 100 is its best lossy quality and not its lossless mode).
        quality: 1 to 100; png has none and ignores it.
        subsampling: chroma of jpeg: "4:2:0", "4:2:2" or "4:4:4"; webp is always 4:2:0.

    Returns:
        A whole file.

    Raises:
        ValueError: a format, quality or subsampling that does not exist.
        EncodeError: `encode`, for pixels that the format cannot hold (jpeg ends at 65500 px a side, webp at 16383).
    """
    if format not in ENCODED_FORMATS:
        raise ValueError(f"format must be one of {', '.join(ENCODED_FORMATS)}, came {format!r}")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"quality must be an integer from 1 to 100, came {quality!r}")
    if subsampling not in _SUBSAMPLINGS:
        raise ValueError(f"subsampling must be one of {', '.join(_SUBSAMPLINGS)}, came {subsampling!r}")
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3 or 0 in pixels_HWC.shape:
        raise EncodeError("encode", f"wanted uint8 [H, W, 3] pixels, came {pixels_HWC.dtype} {pixels_HWC.shape}")
    options: dict[str, dict[str, object]] = {
        "jpeg": {"quality": quality, "subsampling": subsampling, "optimize": False, "progressive": False},
        "png": {"compress_level": 6},
        "webp": {"quality": quality, "lossless": False, "method": 4},
    }
    encoded = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(pixels_HWC)).save(encoded, format=format, **options[format])
    except Exception as error:
        height, width = pixels_HWC.shape[:2]
        raise EncodeError("encode", f"cannot encode {width}x{height} pixels as {format}: {error}") from error
    return encoded.getvalue()


def is_plain_rgb8(header: Header) -> bool:
    """Whether the file's own bytes already are 8-bit RGB, upright, a single frame: they can be kept as they are."""
    return header.mode == "RGB" and header.orientation == 1 and header.num_frames == 1


def _open(data: bytes, limits: Limits) -> tuple[Image.Image, str]:
    if len(data) > limits.max_bytes:
        raise DecodeError("bomb", f"{len(data)} bytes, the limit is {limits.max_bytes}: raise max_bytes to accept it")
    format = containers.accepted_format(data)
    if format is None:
        raise _unrecognised(data)
    if format == "webp" and (canvas := containers.webp_canvas(data)):
        _check_size(*canvas, limits)
    if format == "png":
        data = containers.png_metadata_first(data)
    image = Image.open(io.BytesIO(data), formats=(format.upper(),))
    _check_size(image.height, image.width, limits)
    return image, format


def _unrecognised(data: bytes) -> DecodeError:
    if refused := containers.refused_format(data):
        return DecodeError("unsupported", f"{refused} is not read: convert it to JPEG, PNG, WebP, BMP, TIFF or GIF")
    if containers.starts_a_signature(data):
        return DecodeError("truncated", f"only {len(data)} bytes, not even a whole signature: fetch the file again")
    # No more than a signature has: what is no picture may be somebody's secret, behind a link.
    return DecodeError("not_an_image", f"{len(data)} bytes that begin with {data[:4]!r}: no image signature")


def _check_size(height: int, width: int, limits: Limits) -> None:
    short, long = sorted((height, width))
    if height * width > limits.max_megapixels * 1e6:
        raise DecodeError(
            "bomb", f"{width}x{height} pixels, the limit is {limits.max_megapixels:g} megapixels (max_megapixels)"
        )
    if short < limits.min_side_px:
        raise DecodeError("too_small", f"{width}x{height} pixels, the short side must be {limits.min_side_px} or more")
    if long > limits.max_aspect * short:
        raise DecodeError("too_small", f"{width}x{height} pixels is longer than {limits.max_aspect:g}:1 (max_aspect)")


def _orientation(image: Image.Image) -> int:
    # The base class's method: PNG's own decodes the pixels to look for more. Malformed EXIF fails in too many ways to
    # name, and must not cost a picture that decodes.
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    already = getattr(image, "tag_v2", {}).get(_ORIENTATION_TAG) in (5, 6, 7, 8)
    turned = orientation >= 5 and not already
    return (image.width, image.height) if turned else (image.height, image.width)


def _num_frames(image: Image.Image) -> int:
    if image.format in ("PNG", "WEBP", "MPO"):
        return image.n_frames
    # Looking for a second frame parses it: one that is damaged is still there, and costs the first nothing.
    try:
        return 2 if getattr(image, "is_animated", False) else 1
    except Exception:
        return 2


@contextmanager
def _raises_decode_error(data: bytes) -> Iterator[None]:
    # Pillow's plugins raise nearly every built-in exception on corrupt bytes; a row must never take a worker down.
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        format = containers.accepted_format(data) or "image"
        cause = _open_failure(data, format) if isinstance(error, UnidentifiedImageError) else error
        raise DecodeError(_reason(cause, data, format), f"cannot decode this {format}: {cause}") from error


def _open_failure(data: bytes, format: str) -> Exception:
    """Why Pillow could not identify a file: `Image.open` keeps that to itself, the format's own reader says it."""
    try:
        Image.OPEN[format.upper()][0](io.BytesIO(data), "")
    except Exception as error:
        return error
    return UnidentifiedImageError("the header makes no sense")


def _reason(error: Exception, data: bytes, format: str) -> str:
    text = str(error).lower()
    if isinstance(error, MemoryError):
        return "oom"
    is_bomb = isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning))
    if is_bomb or any(words in text for words in _BOMB_WORDS):
        return "bomb"
    if containers.is_cut_short(data, format) or any(words in text for words in _TRUNCATED_WORDS):
        return "truncated"
    return "unsupported" if any(words in text for words in _UNSUPPORTED_WORDS) else "decode"
