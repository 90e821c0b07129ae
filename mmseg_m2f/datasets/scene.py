"""Generated scenes: textured regions (stuff) with things on top, and labels for every task, from numpy alone.

A scene is a pure function of `(seed, index, size)`. Nothing is read from or written to disk.
"""

import colorsys
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.datasets.segments import Segment
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import IGNORE_INDEX

STUFF_CLASSES = ("stripes", "checker", "speckle")
THING_CLASSES = ("disc", "square", "triangle", "cross", "ring")
CLASSES = STUFF_CLASSES + THING_CLASSES
SMALLEST_SIDE = 32

# Mean hue of each class in turns. Things are saturated and lie a fifth of a turn apart, stuff is pale;
# the jitter leaves neighbouring classes distinguishable but the value alone does not give the class away.
_HUES = (0.58, 0.30, 0.09, 0.00, 0.20, 0.40, 0.60, 0.80)
_HUE_JITTER = 0.06

_Extent = Literal["tiny", "thin", "medium", "big"]
_EXTENTS: tuple[_Extent, ...] = ("tiny", "thin", "medium", "big")
_EXTENT_SHARES = (0.15, 0.10, 0.50, 0.25)


@dataclass(frozen=True)
class Scene:
    """An image with semantic, instance and panoptic labels that agree with each other.

    `image` is H W 3, uint8, BGR; `semantic` is H W, uint8, class index or 255 for void; `segment_map` is
    H W, int16, an index into `segments` or -1 for void. Every segment has at least one pixel.
    """

    image: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    segment_map: NDArray[np.int16]
    segments: tuple[Segment, ...]


class _Grid(NamedTuple):
    """Pixel coordinates, and the length that object and texture sizes refer to (the shorter side)."""

    y: NDArray[np.float32]  # H 1
    x: NDArray[np.float32]  # 1 W
    side: float


def draw_scene(seed: int, index: int, *, size: tuple[int, int]) -> Scene:
    """Scene number `index` of the endless collection `seed`, always the same one.

    Two to three textured regions, three to seven things, later ones in front of earlier ones. A ring of one
    void pixel surrounds each thing and separates regions; one scene in seven has a void strip or corner.

    Args:
        size: Height and width in pixels, at least 32 each.

    Raises:
        ValueError: A negative seed or index, or a size too small to hold the shapes.
    """
    if seed < 0 or index < 0 or min(size) < SMALLEST_SIDE:
        raise InvalidValueError(
            f"draw_scene: expected seed >= 0, index >= 0 and both sides >= {SMALLEST_SIDE}, "
            f"got seed={seed}, index={index}, size={size}. Use numbers in that range."
        )
    rng = np.random.default_rng((seed, index))
    grid = _Grid(
        y=np.arange(size[0], dtype=np.float32)[:, None],
        x=np.arange(size[1], dtype=np.float32)[None, :],
        side=float(min(size)),
    )
    image, segment_map, categories = _draw_regions(rng, grid)
    for extent in _draw_extents(rng):
        category = len(STUFF_CLASSES) + int(rng.integers(len(THING_CLASSES)))
        _draw_thing(rng, grid, category, extent, image=image, segment_map=segment_map, segment_id=len(categories))
        categories.append(category)
    if rng.random() < 0.15:
        _draw_unlabelled_area(rng, grid, image=image, segment_map=segment_map)
    image += rng.standard_normal(size, dtype=np.float32)[:, :, None] * 4
    np.clip(image, 0, 255, out=image)
    return _finish(image.astype(np.uint8), segment_map, categories)


def _finish(image: NDArray[np.uint8], segment_map: NDArray[np.int16], categories: list[int]) -> Scene:
    """Drop the segments nobody sees and number the others without gaps."""
    areas = np.bincount(segment_map.ravel() + 1, minlength=len(categories) + 1)[1:]
    new_ids = np.full(len(categories) + 1, -1, dtype=np.int16)  # the last entry serves the index -1
    new_ids[:-1][areas > 0] = np.arange(np.count_nonzero(areas))
    labels = np.array([*categories, IGNORE_INDEX], dtype=np.uint8)
    segments = tuple(
        Segment(category, category >= len(STUFF_CLASSES), int(area))
        for category, area in zip(categories, areas, strict=True)
        if area > 0
    )
    return Scene(image, labels[segment_map], new_ids[segment_map], segments)


def _draw_regions(rng: np.random.Generator, grid: _Grid) -> tuple[NDArray[np.float32], NDArray[np.int16], list[int]]:
    """Cover the image with one to three regions of different stuff; a void line separates them."""
    height, width = grid.y.shape[0], grid.x.shape[1]
    num_regions = int(rng.choice((1, 2, 3), p=(0.1, 0.4, 0.5)))
    categories = [int(c) for c in rng.permutation(len(STUFF_CLASSES))[:num_regions]]
    regions = np.zeros((height, width), dtype=np.int16)
    for region in range(1, num_regions):
        regions[_one_side_of_a_line(rng, grid)] = region
    image = np.empty((height, width, 3), dtype=np.float32)
    for region, category in enumerate(categories):
        inside = regions == region
        image[inside] = _draw_texture(rng, grid, category)[inside]
    border = np.zeros((height, width), dtype=bool)
    border[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    border[:-1] |= regions[:-1] != regions[1:]
    regions[border] = -1
    return image, regions, categories


def _one_side_of_a_line(rng: np.random.Generator, grid: _Grid) -> NDArray[np.bool_]:
    """H W, true on one side of a line through the middle part of the image: straight or a wave."""
    angle = rng.uniform(0, 2 * np.pi)
    height, width = grid.y.shape[0], grid.x.shape[1]
    y, x = grid.y - height * rng.uniform(0.3, 0.7), grid.x - width * rng.uniform(0.3, 0.7)
    across, along = _rotate(x, y, angle)
    if rng.random() < 0.5:
        wave_length = grid.side * rng.uniform(0.5, 1.2)
        across = across + grid.side * 0.07 * np.sin(along * (2 * np.pi / wave_length) + rng.uniform(0, 6))
    return across > 0


def _draw_texture(rng: np.random.Generator, grid: _Grid, category: int) -> NDArray[np.float32]:
    """H W 3: the texture of a stuff class in two shades of a jittered colour."""
    unit = grid.side / 96
    dark, light = _colour(rng, category, saturation=(0.2, 0.45), value=(0.35, 0.85))
    shape = (grid.y.shape[0], grid.x.shape[1])
    if category == STUFF_CLASSES.index("stripes"):
        across, _ = _rotate(grid.x, grid.y, rng.uniform(0, np.pi))
        mix = 0.5 + 0.5 * np.sin(across * (2 * np.pi / (unit * rng.uniform(5, 9))))
    elif category == STUFF_CLASSES.index("checker"):
        u, v = _rotate(grid.x, grid.y, rng.uniform(-0.3, 0.3))
        cell = unit * rng.uniform(5, 8)
        mix = ((np.floor(u / cell) + np.floor(v / cell)) % 2).astype(np.float32)
    else:
        coarse = rng.random((shape[0] // 2 + 1, shape[1] // 2 + 1), dtype=np.float32)
        mix = coarse.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
    return dark + mix[:, :, None].astype(np.float32) * (light - dark)


def _draw_extents(rng: np.random.Generator) -> list[_Extent]:
    """How large each thing of a scene is, back to front: tiny ones come last, or few would stay visible."""
    drawn = rng.choice(len(_EXTENTS), size=int(rng.integers(3, 8)), p=_EXTENT_SHARES)
    extents = [_EXTENTS[i] for i in drawn]
    return sorted(extents, key=lambda extent: extent == "tiny")


def _draw_thing(
    rng: np.random.Generator,
    grid: _Grid,
    category: int,
    extent: _Extent,
    *,
    image: NDArray[np.float32],
    segment_map: NDArray[np.int16],
    segment_id: int,
) -> None:
    """Draw one thing with its void ring into `image` and `segment_map`, in place."""
    radius = (
        grid.side
        * {
            "tiny": rng.uniform(0.028, 0.045),
            "thin": rng.uniform(0.12, 0.25),
            "medium": rng.uniform(0.10, 0.17),
            "big": rng.uniform(0.17, 0.25),
        }[extent]
    )
    radius = max(float(radius), 2.6)
    margin = 0.4 * radius
    centre_y = rng.uniform(margin, grid.y.shape[0] - margin)
    centre_x = rng.uniform(margin, grid.x.shape[1] - margin)
    # Everything happens in the bounding box, with two pixels to spare for the ring.
    top, left = max(int(centre_y - 1.2 * radius) - 2, 0), max(int(centre_x - 1.2 * radius) - 2, 0)
    box = np.s_[top : int(centre_y + 1.2 * radius) + 3, left : int(centre_x + 1.2 * radius) + 3]
    u, v = _rotate(
        (grid.x[:, box[1]] - centre_x) / radius,
        (grid.y[box[0]] - centre_y) / radius,
        rng.uniform(0, 2 * np.pi),
    )
    width = rng.uniform(3.2, 4.2) / radius if extent == "thin" else rng.uniform(0.55, 0.75)
    inside = _shape(THING_CLASSES[category - len(STUFF_CLASSES)], u, v, width=float(width))
    dark, light = _colour(rng, category, saturation=(0.6, 0.95), value=(0.55, 1.0))
    shade = np.clip(0.5 + 0.5 * u, 0, 1)[:, :, None]
    image[box][inside] = (dark + shade * (light - dark))[inside]
    ring = _dilate(inside) & ~inside
    segment_map[box][inside] = segment_id
    segment_map[box][ring] = -1


def _shape(name: str, u: NDArray[np.float32], v: NDArray[np.float32], *, width: float) -> NDArray[np.bool_]:
    """Where the shape lies; `u v` are coordinates in radii, `width` is that of arms and rims, in radii."""
    if name == "disc":
        return u * u + v * v <= 1
    if name == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.85
    if name == "triangle":  # equilateral, corners 1.16 from the centre
        return np.maximum(-v, 0.866 * np.abs(u) + 0.5 * v) <= 0.58
    if name == "cross":
        longer, shorter = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        return (longer <= 1.1) & (shorter <= width / 2)
    distance = np.sqrt(u * u + v * v)
    return (distance <= 1.05) & (distance >= 1.05 - width)


def _draw_unlabelled_area(
    rng: np.random.Generator, grid: _Grid, *, image: NDArray[np.float32], segment_map: NDArray[np.int16]
) -> None:
    """A dark strip along one side, or a dark corner, that belongs to no class."""
    y = grid.y if rng.random() < 0.5 else grid.y[::-1]
    x = grid.x if rng.random() < 0.5 else grid.x[::-1]
    if rng.random() < 0.5:
        area = np.broadcast_to((y if rng.random() < 0.5 else x) < grid.side * rng.uniform(0.04, 0.1), segment_map.shape)
    else:
        area = y + x < grid.side * rng.uniform(0.2, 0.45)
    image[area] = image[area] * 0.15 + 12
    segment_map[area] = -1


def _colour(
    rng: np.random.Generator, category: int, *, saturation: tuple[float, float], value: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A dark and a light shade (BGR, 0-255) of a colour drawn around the class's hue."""
    hue = (_HUES[category] + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    light = np.array((blue, green, red), dtype=np.float32) * 255
    return light * np.float32(rng.uniform(0.55, 0.75)), light


def _rotate(
    x: NDArray[np.float32], y: NDArray[np.float32], angle: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates in a frame turned by `angle`, broadcast to H W."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _dilate(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grow a region by one pixel in all eight directions."""
    rows = inside.copy()
    rows[1:] |= inside[:-1]
    rows[:-1] |= inside[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown
