"""Paints a style set: `python infra/demo/paintings.py DEST [--num 64] [--seed 0]`.

Two hands paint views of the demo's photographs, each in a folder of its own (`labels=folder` makes them two styles):
`oil` lays short thick strokes of earth colours, `night` long thin ones of blues and lamplight along one restless flow.
Views are tilted and framed on their own, so no painting shows what a content photograph shows. Same arguments, same
bytes. Strokes: Hertzmann 1998, "Painterly rendering with curved brush strokes of multiple sizes".
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from photos import read_photo
from PIL import Image, ImageDraw, ImageFilter, ImageOps

SIDE_PX = 256
SCALE = 2  # painted at this many times the size, then reduced: edges of strokes become smooth
LABELS = ("china", "flower", "cat", "coffee", "astronaut", "rocket", "motorcycle")
LUMA = np.array([0.299, 0.587, 0.114])


class Brush(NamedTuple):
    """One round of strokes: a stroke may start in each cell, of this radius and at most so many radii long."""

    cell_px: int
    radius_px: float
    steps: int
    tolerance: float  # mean difference (0 to 255) to the view at which a cell is painted over


class Hand(NamedTuple):
    """What makes two paintings look like one painter's."""

    brushes: tuple[Brush, ...]  # coarse to fine
    palette: np.ndarray  # [K, 3]
    loyalty: float  # 0 paints what it sees, 1 only the palette's colours
    variety: float  # standard deviation of a stroke's brightness
    flow: float  # how far the direction is the hand's own, not the view's
    flow_px: float  # size of the whirls in its own direction
    relief: float  # how strongly the light from the side shows the paint's thickness


OIL = np.array(
    [
        [38, 26, 22], [84, 48, 30], [134, 78, 40], [176, 116, 52], [212, 164, 84], [240, 216, 160], [250, 242, 216],
        [92, 98, 60], [146, 148, 92], [72, 88, 98], [134, 152, 154], [150, 52, 36], [196, 92, 58],
    ],
    float,
)  # fmt: skip
NIGHT = np.array(
    [
        [8, 12, 44],
        [16, 34, 96],
        [26, 66, 150],
        [54, 112, 178],
        [108, 164, 180],
        [150, 172, 140],
        [214, 190, 92],
        [250, 226, 150],
    ],
    float,
)
HANDS = {
    "oil": Hand((Brush(16, 10, 5, 0), Brush(8, 6, 5, 20), Brush(8, 3.6, 5, 26)), OIL, 0.8, 22, 0.25, 60, 1.2),
    "night": Hand((Brush(16, 7, 14, 0), Brush(8, 3.6, 16, 14), Brush(8, 2.4, 14, 22)), NIGHT, 1.0, 20, 0.65, 110, 0.9),
}


def view(index: int, rng: np.random.Generator) -> np.ndarray:
    """A square of a photograph, tilted by 9 to 25 degrees either way, perhaps mirrored: float [SIDE_PX, SIDE_PX, 3]."""
    photo = read_photo(LABELS[index % len(LABELS)])
    photo = ImageOps.mirror(photo) if rng.random() < 0.5 else photo
    angle = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(9, 25))
    # A tilted square of side s needs s (cos + |sin|) on both sides of the photograph.
    reach = np.cos(angle) + abs(np.sin(angle))
    side = min(photo.size) / reach * rng.uniform(0.6, 1.0)
    centre = [rng.uniform(side * reach / 2, length - side * reach / 2) for length in photo.size]
    across = np.array([np.cos(angle), np.sin(angle)]) * side / SIDE_PX
    down = np.array([-across[1], across[0]])
    corner = centre - (across + down) * SIDE_PX / 2
    # Pillow's affine transform takes single pixels; a blur first keeps fine detail from turning into noise.
    photo = photo.filter(ImageFilter.GaussianBlur(float(max(0.0, 0.4 * (side / SIDE_PX - 1)))))
    matrix = (across[0], down[0], corner[0], across[1], down[1], corner[1])
    square = photo.transform((SIDE_PX, SIDE_PX), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(ImageOps.autocontrast(square, cutoff=1), float)


def smooth(field: np.ndarray, radius_px: float) -> np.ndarray:
    """[H, W] or [H, W, C] without anything smaller than the radius."""
    if field.ndim == 3:
        return np.stack([smooth(channel, radius_px) for channel in np.moveaxis(field, -1, 0)], axis=-1)
    small_px = max(2, round(SIDE_PX / radius_px))
    small = Image.fromarray(field.astype(np.float32)).resize((small_px, small_px), Image.Resampling.LANCZOS)
    return np.asarray(small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC), float)


def directions(picture: np.ndarray, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """Unit direction of the brush at each pixel [H, W, 2] (x, y): along edges, and elsewhere the hand's own flow."""
    slope_y, slope_x = np.gradient(smooth(picture @ LUMA, 3))
    # Doubled angles, so that opposite gradients agree; the brush goes across the gradient, hence the minus.
    along = -smooth(np.stack([slope_x**2 - slope_y**2, 2 * slope_x * slope_y], axis=-1), 8)
    strength = np.linalg.norm(along, axis=-1, keepdims=True)
    along /= np.sqrt(strength**2 + (0.3 * strength.mean()) ** 2) + 1e-9
    turn = smooth(rng.normal(0, 1, (SIDE_PX, SIDE_PX)), hand.flow_px)
    turn = 1.1 * turn / (turn.std() + 1e-9) + rng.uniform(0, 2 * np.pi)
    own = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    doubled = (1 - hand.flow) * along + hand.flow * own
    angle = np.arctan2(doubled[..., 1], doubled[..., 0]) / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def mix(colour: np.ndarray, hand: Hand) -> np.ndarray:
    """Paint [..., 3] for colours [..., 3]: the palette's nearest, brightness counting most, and some view."""
    axes = np.column_stack([np.eye(3), np.sqrt(6) * LUMA])
    palette = hand.palette @ axes
    # |c - p|^2 without |c|^2, which is the same for every p
    nearest = np.argmin((palette**2).sum(axis=-1) - 2 * (colour @ axes) @ palette.T, axis=-1)
    return hand.loyalty * hand.palette[nearest] + (1 - hand.loyalty) * colour


def trace(start: np.ndarray, brush: Brush, picture: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths [N, steps + 1, 2] from `start` [N, 2], and how many points of each are painted [N].

    A stroke ends where the view's colour has left the colour that it began with.
    """
    point, points, heading = start, [start], None
    first_colour = picture[tuple(start.astype(int).T[::-1])]
    going, length = np.ones(len(start), bool), np.full(len(start), 3)
    for step in range(brush.steps):
        column, row = np.clip(point, 0, SIDE_PX - 1).astype(int).T
        direction = flow[row, column]
        if heading is not None:
            direction = direction * np.where((direction * heading).sum(axis=1) < 0, -1, 1)[:, None]
            direction = 0.6 * direction + 0.4 * heading
        heading = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        point = point + heading * brush.radius_px
        points.append(point)
        going &= np.abs(picture[row, column] - first_colour).mean(axis=1) < 26
        length = np.where(going & (step >= 2), step + 2, length)
    return np.stack(points, axis=1), length


def starts(canvas: np.ndarray, picture: np.ndarray, brush: Brush, rng: np.random.Generator) -> np.ndarray:
    """Where strokes begin, [N, 2] (x, y), in painting order: the worst place of every cell that is not good enough."""
    wrong = np.abs(canvas - picture).mean(axis=-1) + rng.uniform(0, 6, (SIDE_PX, SIDE_PX))
    cells, cell_px = SIDE_PX // brush.cell_px, brush.cell_px
    tiles = wrong.reshape(cells, cell_px, cells, cell_px).swapaxes(1, 2).reshape(cells, cells, -1)
    row, column = np.nonzero(tiles.mean(axis=-1) > brush.tolerance)
    worst = tiles.argmax(axis=-1)[row, column]
    begin = np.stack([column * cell_px + worst % cell_px, row * cell_px + worst // cell_px], axis=-1)
    return rng.permutation(begin).astype(float)


def draw_strokes(
    layers: tuple[Image.Image, Image.Image],
    paths: tuple[np.ndarray, np.ndarray],
    colour: np.ndarray,
    radius_px: float,
    rng: np.random.Generator,
) -> None:
    """Draws strokes into the colours and into the height of the paint, bristle by bristle, each of its own tone.

    `paths` are points [N, P, 2] and how many of them are painted [N]; `colour` is [N, 3].
    """
    draw_colour, draw_height = (ImageDraw.Draw(layer) for layer in layers)
    points, lengths = paths
    num_bristles = max(2, round(radius_px / 2.2))
    width_px = max(1, round(SCALE * 2.6 * radius_px / num_bristles))
    offset = ((np.arange(num_bristles) + 0.5) / num_bristles - 0.5) * 2 * radius_px
    side = np.gradient(points, axis=1)[..., ::-1] * (-1, 1)
    side /= np.linalg.norm(side, axis=-1, keepdims=True) + 1e-9
    tone = rng.normal(0, 9, (len(points), num_bristles, 1))
    fills = np.clip(colour[:, None] + tone, 0, 255).astype(int).tolist()
    heights = rng.integers(40, 256, (len(points), num_bristles)).tolist()
    tapers = {n: np.minimum(1, 1.25 * np.sin(np.linspace(0.35, np.pi - 0.2, n))) for n in np.unique(lengths)}
    for path, across, n, fill, height in zip(points, side, lengths, fills, heights, strict=True):
        lines = path[:n] + across[:n] * (offset[:, None] * tapers[n])[..., None]
        for line, bristle_fill, bristle_height in zip((SCALE * lines).tolist(), fill, height, strict=True):
            corners = [tuple(corner) for corner in line]
            draw_colour.line(corners, fill=tuple(bristle_fill), width=width_px)
            draw_height.line(corners, fill=bristle_height, width=width_px)


def paint(picture: np.ndarray, hand: Hand, rng: np.random.Generator) -> Image.Image:
    """The view in this hand, SIDE_PX square."""
    size = (SIDE_PX * SCALE, SIDE_PX * SCALE)
    colours = Image.new("RGB", size, tuple(hand.palette[1].astype(int).tolist()))
    thickness = Image.new("L", size, 40)
    flow = directions(picture, hand, rng)
    for brush in hand.brushes:
        seen = smooth(picture, max(2.0, 0.8 * brush.radius_px))
        wanted = mix(seen, hand)
        canvas = np.asarray(colours.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX), float)
        begin = starts(canvas, wanted, brush, rng)
        colour = wanted[tuple(begin.astype(int).T[::-1])]
        colour = colour + rng.normal(0, hand.variety, (len(begin), 1)) + rng.normal(0, 4, (len(begin), 3))
        draw_strokes((colours, thickness), trace(begin, brush, seen, flow), colour, brush.radius_px, rng)
    relief = np.asarray(thickness.filter(ImageFilter.GaussianBlur(1.0)), float)
    light = np.clip((np.gradient(relief, axis=0) * 0.8 + np.gradient(relief, axis=1) * 0.6) * 0.012, -0.35, 0.35)
    lit = np.asarray(colours, float) * (1 + hand.relief * light[..., None])
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def write_paintings(dest: Path, num_paintings: int, seed: int) -> None:
    """`num_paintings` PNGs under `dest/oil` and `dest/night` by turns; file i depends on (seed, i) only."""
    for index in range(num_paintings):
        name = list(HANDS)[index % len(HANDS)]
        # 23: a stream of its own, so that these views are not the crops of photos.py for the same seed
        rng = np.random.default_rng([seed, index, 23])
        path = dest / name / f"{name}_{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(view(index // len(HANDS), rng), HANDS[name], rng).save(path, "PNG")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Paint the demo's style set.")
    parser.add_argument("dest", type=Path, help="folder to write the paintings to")
    parser.add_argument("--num", type=int, default=64, help="how many paintings (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    write_paintings(options.dest, options.num, options.seed)
    print(f"{options.num} paintings in {options.dest}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
