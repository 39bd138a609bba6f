"""The colour rule: how every mode and bit depth that Pillow reads becomes 8-bit RGB.

    stored samples                          what they become
    RGB 8 bit                               as they are
    1, L 1-8 bit                            grey: R = G = B = value, low depths stretched to 0..255
    P                                       the palette's colour
    LA PA RGBA, P or L or RGB with a        over white: round((a c + (255 - a) 255) / 255)
      transparent colour (`+key`)
    La, RGBa (premultiplied)                divided by alpha by Pillow (8 bit), then as above
    RGB RGBA CMYK LA with 16-bit samples    the high byte, v >> 8 (Pillow keeps no more): within 1 of round(v / 257)
                                            (a transparent colour is compared by its high bytes too)
    I;16 (grey 16 bit)                      round(v / 257)
    I;12 (grey 12 bit TIFF)                 round(255 v / 4095)
    I (grey, 32 bit or signed)              round(v / 257); any value outside 0..65535: `unsupported`
    F (grey float)                          round(255 v); any value outside [0, 1], or not finite: `unsupported`
    CMYK (Adobe JPEGs are inverted first)   R = (255 - C)(255 - K) / 255, and so on
    YCbCr, LAB, HSV                         Pillow's conversion (JFIF; CIELAB D50 to sRGB; hexcone)

The rule depends on the mode and never on a picture's content: nothing is stretched to a picture's own extremes.
TIFFs whose zero is white are inverted in all depths. Embedded ICC profiles are ignored, as nearly every reader of
training data does; a wide-gamut photograph therefore looks paler than its profile asks for, and pixels never depend on
a colour engine. Opening files and EXIF orientation are `codec.py`.
"""

import numpy as np
from PIL import Image

from stylejobs.errors import DecodeError

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284


def stored_mode(image: Image.Image) -> str:
    """Pillow's mode of an opened image that is not loaded yet, with what that mode hides about the stored samples.

    Args:
        image: opened, not loaded: loading forgets the sample depth.

    Returns:
        The mode; followed by `;16` for colour with 16-bit samples, `;2` or `;4` for shallow grey; "I;12" for 12-bit
        grey; followed by `+key` when a colour or palette entries are marked as transparent.

    Raises:
        DecodeError: `unsupported`, for 16-bit TIFFs in uncompressed planes, which Pillow reads as 8-bit noise.
    """
    tags = getattr(image, "tag_v2", {})
    tile = image.tile[0] if image.tile else None
    if tile and tile.codec_name == "raw" and tags.get(_PLANAR) == 2 and max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8:
        raise DecodeError("unsupported", "16-bit TIFF in uncompressed planes: save it compressed or interleaved")
    args = tile.args if tile else ()
    raw = args if isinstance(args, str) else next((part for part in args or () if isinstance(part, str)), "")
    mode, key = image.mode, "+key" if image.info.get("transparency") is not None else ""
    if raw == "I;12":
        return "I;12" + key
    if mode == "L" and raw[:3] in ("L;2", "L;4"):
        return raw[:3] + key
    return f"{mode};16{key}" if not mode.startswith("I") and ";16" in raw else mode + key


def to_rgb(image: Image.Image, stored: str) -> Image.Image:
    """Apply the table above.

    Args:
        image: any mode, loaded.
        stored: what `stored_mode` said before it was loaded.

    Returns:
        Mode RGB, same size; the image itself when it needs no change.

    Raises:
        DecodeError: `unsupported`, for 32-bit samples outside the range that the table names.
    """
    if image.mode == "RGB" and not stored.endswith("+key"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_deep_grey_to_8bit(image, stored)).convert("RGB")
    if stored.endswith("+key"):
        _rescale_key(image, stored)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    straight = image.convert("RGBA")
    over_white = Image.new("RGB", image.size, (255, 255, 255))
    over_white.paste(straight, mask=straight)
    return over_white


def _rescale_key(image: Image.Image, stored: str) -> None:
    """Bring a PNG's transparent colour, kept at the stored depth, to the 8 bits of the decoded samples."""
    key = image.info.get("transparency")
    if isinstance(key, int) and stored[:3] in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if stored[2] == "2" else 17)
    elif isinstance(key, tuple) and ";16" in stored:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _deep_grey_to_8bit(image: Image.Image, stored: str) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == "F":
        # Written so that NaN fails too.
        if not bool(np.all((values >= 0) & (values <= 1))):
            raise DecodeError("unsupported", "float samples must be finite and in [0, 1]: rescale the image first")
        grey = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    else:
        if int(values.min()) < 0 or int(values.max()) > 65535:
            raise DecodeError(
                "unsupported",
                f"integer samples must be in 0..65535, came {values.min()}..{values.max()}: rescale the image first",
            )
        white = 4095 if stored.startswith("I;12") else 65535
        # 255 v / white has no ties (both whites are odd multiples of what remains), so this is round-to-nearest.
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey = np.where(values == key, np.uint8(255), grey)
    return grey
