"""Classes as results show them: names, colours, ids; colours of the objects of a class."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmseg_m2f.errors import InvalidValueError

Palette: TypeAlias = Sequence[Sequence[int]]

_GOLDEN = 0.618034


class Categories(NamedTuple):
    """The K classes of a data set."""

    names: Sequence[str]
    palette: Palette
    """K RGB triples."""
    ids: Sequence[int | str]
    """The data set's own number of each class; its index where the data set has none."""


def distinct_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Colours for classes that come without: the same ones each time, neighbours far apart in hue."""
    colours = []
    for index in range(num_classes):
        hue, value = int(index * _GOLDEN * 256) % 256, (235, 170, 205)[index % 3]
        red, green, blue = Image.new("HSV", (1, 1), (hue, 190 - 60 * (index // 8 % 2), value)).convert("RGB").tobytes()
        colours.append((red, green, blue))
    return colours


def shades(palette: Palette, labels: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float32]:
    """N 3: for each of N labels its class's colour, or a shade of it where the class was there before.

    Shades keep close to the colour's hue and differ in brightness and saturation, the more so from one to the next.
    """
    seen: dict[int, int] = {}
    colours = np.empty((len(labels), 3), dtype=np.float32)
    for index, label in enumerate(map(int, labels)):
        number = seen[label] = seen.get(label, -1) + 1
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in palette[label]))
        if number:
            hue += 0.12 * ((number * _GOLDEN) % 1 - 0.5)
            saturation *= (1.0, 0.65, 0.85)[number % 3]
            value = (value, 0.62 * value, min(1.25 * value, 1.0), 0.8 * value)[number % 4]
        colours[index] = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return colours * 255


def class_colours(dataset: object) -> tuple[list[str], Palette]:
    """Class names and palette of a dataset; colours are made up where it has none.

    Raises:
        ValueError: The dataset does not name its classes.
    """
    metainfo = getattr(dataset, "metainfo", {})
    classes = list(metainfo.get("classes") or ())
    if not classes:
        raise InvalidValueError(
            f"{type(dataset).__name__}: expected class names to draw with, got metainfo {metainfo}. "
            "Pass metainfo=dict(classes=[...]) in the dataset config."
        )
    palette = metainfo.get("palette") or ()
    return classes, palette if len(palette) == len(classes) else distinct_palette(len(classes))


def read_categories(dataset: object) -> Categories:
    """Names, colours and ids of a dataset's classes.

    Ids are `category_ids` of its metainfo (as ours for COCO's formats have them) or mmdet's `cat_ids`.

    Raises:
        ValueError: The dataset does not name its classes.
    """
    names, palette = class_colours(dataset)
    ids = getattr(dataset, "metainfo", {}).get("category_ids") or getattr(dataset, "cat_ids", None) or ()
    return Categories(names, palette, [*ids] if len(ids) == len(names) else range(len(names)))
