"""Writes the demo's photographs and its style image: `python infra/demo/photos.py DEST [--bad 2] [--style FILE]`.

The photographs come inside two pinned packages (scikit-image, scikit-learn), so nothing is downloaded. Each file is a
crop of its own size and shape, in a folder named after its photograph (`labels=folder`). The style image is painted
here, stroke by stroke. Same arguments, same bytes.
"""

import argparse
import io
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

# label -> (package, file inside it, how often it is drawn). Photographs only: no scans, charts or micrographs.
PHOTOS = {
    "china": ("sklearn", "datasets/images/china.jpg", 9),
    "flower": ("sklearn", "datasets/images/flower.jpg", 9),
    "cat": ("skimage", "data/chelsea.png", 8),
    "coffee": ("skimage", "data/coffee.png", 8),
    "astronaut": ("skimage", "data/astronaut.png", 7),
    "rocket": ("skimage", "data/rocket.jpg", 6),
    "motorcycle": ("skimage", "data/motorcycle_left.png", 6),
    "grass": ("skimage", "data/grass.png", 1),
    "gravel": ("skimage", "data/gravel.png", 1),
    "brick": ("skimage", "data/brick.png", 1),
}
MIN_SIDE_PX, MAX_SIDE_PX = 96, 640
BAD_FILES = ("china/not_a_photo.jpg", "coffee/cut_short.jpg", "flower/empty.jpg")
# EXIF orientation -> the transpose that a camera held that way would have stored.
STORED_AS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
EXIF_ORIENTATION = 0x0112

STYLE_PX = 640
CANVAS_PX = 2 * STYLE_PX  # painted at this size, then halved in `paint_style`: edges of strokes become smooth
# Whirls of the sky: x, y, radius (fractions of the canvas), turn (+ clockwise), light at the heart.
WHIRLS = np.array(
    [
        [0.40, 0.36, 0.200, 1.0, 0.30],
        [0.63, 0.46, 0.130, -1.0, 0.25],
        [0.84, 0.15, 0.135, 1.0, 1.00],
        [0.13, 0.14, 0.090, -1.0, 0.90],
        [0.345, 0.09, 0.068, 1.0, 0.85],
        [0.57, 0.14, 0.065, -1.0, 0.90],
        [0.12, 0.52, 0.070, 1.0, 0.85],
        [0.90, 0.46, 0.060, 1.0, 0.85],
        [0.27, 0.665, 0.060, -1.0, 0.80],
    ]
)
SKY = np.array([[10, 18, 62], [18, 44, 120], [32, 84, 172], [70, 140, 200], [150, 200, 205], [236, 226, 170]], float)
LIGHT = np.array(
    [[26, 70, 160], [90, 160, 190], [226, 190, 70], [246, 176, 30], [255, 226, 110], [255, 248, 205]], float
)
LAND = np.array([[8, 16, 40], [14, 48, 66], [30, 84, 78], [110, 118, 48], [204, 140, 32], [240, 190, 70]], float)

# Brushes, coarse to fine: strokes, width (fraction of the canvas), bristles.
BRUSHES = ((900, 0.034, 14), (2600, 0.020, 9), (4200, 0.012, 6), (2600, 0.007, 4))


def read_photo(label: str) -> Image.Image:
    """The whole photograph, upright, RGB.

    Raises:
        SystemExit: the package that carries it is not installed.
    """
    package, path, _ = PHOTOS[label]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the demo's photographs are inside the package {package!r}: pip install 'stylejobs[demo]'")
    with Image.open(Path(next(iter(spec.submodule_search_locations))) / path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def cut(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop in a random size: sides from 96 to 640 px, landscape and portrait, never enlarged beyond 1.25."""
    aspect = float(np.exp(rng.uniform(np.log(0.62), np.log(1.6))))
    long_side_px = float(np.exp(rng.uniform(np.log(150), np.log(MAX_SIDE_PX))))
    size = np.array([long_side_px * min(1, aspect), long_side_px / max(1, aspect)])
    size *= min(1.0, 1.25 * photo.width / size[0], 1.25 * photo.height / size[1])
    width, height = (int(side) for side in np.clip(np.round(size), MIN_SIDE_PX, MAX_SIDE_PX))
    # The largest window of this shape, then between half of it and all of it.
    scale = min(photo.width / width, photo.height / height) * rng.uniform(0.55, 1.0)
    scale = min(max(scale, 0.8), photo.width / width, photo.height / height)
    left = rng.uniform(0, photo.width - width * scale)
    top = rng.uniform(0, photo.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    image = photo.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def encode(image: Image.Image, rng: np.random.Generator) -> tuple[bytes, str]:
    """Bytes and suffix: mostly plain JPEG, some PNG, WebP, greyscale JPEG, and JPEG turned by an EXIF tag."""
    kind = rng.choice(["jpeg", "png", "webp", "grey", "turned"], p=[0.74, 0.08, 0.08, 0.04, 0.06])
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG")
        return buffer.getvalue(), ".png"
    if kind == "webp":
        image.save(buffer, "WEBP", quality=90)
        return buffer.getvalue(), ".webp"
    exif = Image.Exif()
    if kind == "turned":
        orientation = int(rng.choice(list(STORED_AS)))
        exif[EXIF_ORIENTATION] = orientation
        image = image.transpose(STORED_AS[orientation])
    if kind == "grey":
        image = image.convert("L")
    image.save(buffer, "JPEG", quality=int(rng.integers(85, 96)), exif=exif)
    return buffer.getvalue(), ".jpg"


def write_photos(dest: Path, num_photos: int, seed: int) -> None:
    """`num_photos` files under `dest/<label>/`; file i depends on (seed, i) only."""
    turns = [label for label, (_, _, weight) in PHOTOS.items() for _ in range(weight)]
    photos = {label: read_photo(label) for label in PHOTOS}
    # A fixed stride that shares no factor with the length walks over all labels in a mixed order.
    stride = next(s for s in range(len(turns) // 3, len(turns)) if np.gcd(s, len(turns)) == 1)
    for index in range(num_photos):
        label = turns[index * stride % len(turns)]
        rng = np.random.default_rng([seed, index])
        data, suffix = encode(cut(photos[label], rng), rng)
        path = dest / label / f"{label}_{index:04d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_bad_files(dest: Path, num_bad: int) -> None:
    """Files that no reader can use, for the demo's dead letters: a text, half a photograph, nothing at all."""
    buffer = io.BytesIO()
    read_photo("coffee").save(buffer, "JPEG", quality=90)
    contents = (b"This is a note, not a photograph.\n", buffer.getvalue()[: len(buffer.getvalue()) * 2 // 5], b"")
    for name, data in list(zip(BAD_FILES, contents, strict=True))[:num_bad]:
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (dest / name).write_bytes(data)


def _ramp(palette: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colours [N, 3] of `palette` [K, 3] at `level` [N] in 0..1, blended between neighbours."""
    stops = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(level, stops, palette[:, channel]) for channel in range(3)], axis=-1)


def _horizon(x: np.ndarray) -> np.ndarray:
    return 0.76 - 0.06 * np.sin(2.1 * np.pi * x + 0.6) + 0.025 * np.sin(7 * x + 1)


def _flow(xy: np.ndarray) -> np.ndarray:
    """Unit direction [N, 2] of the brush at the points `xy` [N, 2] (fractions): wind, turned by every whirl."""
    x, y = xy[:, 0], xy[:, 1]
    angle = 0.35 * np.sin(5.2 * x + 3.1 * y) + 0.3 * np.cos(7.3 * y - 2.2 * x)
    direction = 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for centre_x, centre_y, radius, turn, _ in WHIRLS:
        offset = xy - (centre_x, centre_y)
        distance = np.linalg.norm(offset, axis=1, keepdims=True) + 1e-6
        around = np.stack([-offset[:, 1], offset[:, 0]], axis=-1) / distance
        direction += 3.0 * (turn * around - 0.22 * offset / distance) * np.exp(-((distance / radius) ** 2) * 0.55)
    below = np.clip((y - _horizon(x)) * 14 + 0.5, 0, 1)[:, None]
    slope = 0.55 * np.cos(2.1 * np.pi * x + 0.6 + 9 * y) + 0.35 * np.sin(16 * y)
    direction = (1 - below) * direction + below * np.stack([np.ones_like(x), slope], axis=-1)
    return direction / (np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6)


def _colour(xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour [N, 3] that a stroke begun at `xy` gets: what the picture shows there, with the painter's variety."""
    x, y = xy[:, 0], xy[:, 1]
    wander = rng.normal(0, 1, len(xy))
    level = 0.30 + 0.13 * np.sin(9 * x + 5 * np.sin(6 * y)) + 0.16 * np.sin(24 * y + 4 * np.sin(5 * x)) + 0.12 * wander
    colour = _ramp(SKY, np.clip(level, 0, 1))
    for centre_x, centre_y, radius, _, light in WHIRLS:
        distance = np.linalg.norm(xy - (centre_x, centre_y), axis=1) / radius
        rings = 0.5 + 0.5 * np.cos(2 * np.pi * (distance * 1.9 + 0.04 * wander))
        glow = np.clip(1.18 - distance * 0.85, 0, 1)
        palette = LIGHT if light > 0.5 else SKY
        lit = _ramp(palette, np.clip(glow * (0.62 + 0.38 * rings) + 0.08 * wander + 0.12 * (light < 0.5), 0, 1))
        strength = (np.clip(1.5 - distance, 0, 1) ** 0.7 * (rng.random(len(xy)) < 0.35 + 0.65 * glow))[:, None]
        colour = colour * (1 - strength) + lit * strength
    depth = y - _horizon(x)
    furrows = 0.5 + 0.5 * np.sin(70 * depth + 6 * np.sin(6.5 * x + 8 * depth))
    land = _ramp(LAND, np.clip(0.08 + 0.72 * furrows**1.4 + 0.12 * wander, 0, 1))
    colour = np.where((depth > 0)[:, None], land, colour)
    return np.clip(colour + rng.normal(0, 9, colour.shape), 0, 255)


def _paint_layer(
    draw: ImageDraw.ImageDraw, num_strokes: int, width: float, num_bristles: int, rng: np.random.Generator
) -> None:
    """Strokes of one brush: each follows the flow, as `num_bristles` lines whose alpha is the height of the paint."""
    steps = 12
    start = rng.uniform(-0.03, 1.03, (num_strokes, 2))
    # The last strokes close the hearts of the whirls, which the flow leaves bare.
    hearts = np.repeat(WHIRLS[:, :2], 4, axis=0)
    start[-len(hearts) :] = hearts + rng.normal(0, 0.35 * width, hearts.shape)
    colour = _colour(start, rng)
    points, point = [start], start
    stride = width * rng.uniform(0.35, 0.75, (num_strokes, 1))
    for _ in range(steps):
        point = point + stride * _flow(point)
        points.append(point)
    path = np.stack(points, axis=1)
    normal = np.stack([_flow(path[:, i])[:, ::-1] * (-1, 1) for i in range(steps + 1)], axis=1)
    taper = np.sin(np.linspace(0.25, np.pi - 0.12, steps + 1)) ** 0.5
    bristle_px = max(1, round(1.5 * width * CANVAS_PX / num_bristles))
    tone = rng.normal(0, 13, (num_strokes, num_bristles))
    height = rng.uniform(70, 255, (num_strokes, num_bristles))
    for index in range(num_strokes):
        for bristle in range(num_bristles):
            offset = ((bristle + 0.5) / num_bristles - 0.5) * width
            line = (path[index] + normal[index] * (offset * taper)[:, None]) * CANVAS_PX
            first, last = rng.integers(0, 3), steps + 1 - rng.integers(0, 3)
            red, green, blue = np.clip(colour[index] + tone[index, bristle], 0, 255).astype(int).tolist()
            fill = (red, green, blue, int(height[index, bristle]))
            draw.line(line[first:last].ravel().tolist(), fill=fill, width=bristle_px, joint=None)


def paint_style(seed: int) -> Image.Image:
    """A painted night over fields, 640 x 640: curved strokes of four brushes along one flow, lit from the side."""
    rng = np.random.default_rng([seed, 7])
    canvas = Image.new("RGBA", (CANVAS_PX, CANVAS_PX), (14, 30, 84, 90))
    draw = ImageDraw.Draw(canvas)
    for num_strokes, width, num_bristles in BRUSHES:
        _paint_layer(draw, num_strokes, width, num_bristles, rng)
    colour = np.asarray(canvas, np.float32)
    relief = np.asarray(canvas.getchannel("A").filter(ImageFilter.GaussianBlur(1.6)), np.float32)
    slope = np.gradient(relief, axis=0) * 0.8 + np.gradient(relief, axis=1) * 0.6
    shaded = colour[..., :3] * (1 + np.clip(slope * 0.014, -0.3, 0.3)[..., None])
    painted = Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))
    return painted.resize((STYLE_PX, STYLE_PX), Image.Resampling.LANCZOS)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Write the demo's photographs and its style image.")
    parser.add_argument("dest", type=Path, help="folder to write the photographs to")
    parser.add_argument("--num", type=int, default=240, help="how many photographs (default 240)")
    parser.add_argument("--bad", type=int, default=2, choices=range(4), help="how many unreadable files (default 2)")
    parser.add_argument("--style", type=Path, help="where the style image goes (default DEST/../style.png)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    style_path = options.style or options.dest.parent / "style.png"
    write_photos(options.dest, options.num, options.seed)
    write_bad_files(options.dest, options.bad)
    style_path.parent.mkdir(parents=True, exist_ok=True)
    paint_style(options.seed).save(style_path, "PNG")
    print(
        f"{options.num} photographs and {options.bad} bad files in {options.dest}, style in {style_path}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
