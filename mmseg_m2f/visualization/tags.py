"""Writing on pictures: names in segments, tags at objects. What has no room is left out."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmseg_m2f.visualization.fonts import Font, font_of

Rectangle = tuple[float, float, float, float]

_LARGEST_TAG = 0.6  # of its object's box
_MOST_TAGGED = 40  # objects; of more, tags would hide too many


def draw_names(
    picture: NDArray[np.uint8], segments: NDArray[np.integer], names: Mapping[int, str]
) -> NDArray[np.uint8]:
    """The name of each segment at its widest place, large segments first; none where it would not fit.

    Args:
        segments: H W, what `names` is indexed with.
    """
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    areas = {index: int((segments == index).sum()) for index in names}
    taken: list[Rectangle] = []
    for index in sorted(names, key=lambda index: -areas[index]):
        font = _font(names[index], picture.shape)
        width, height = _text_size(names[index], font)
        if areas[index] < 2 * width * height:
            continue
        x, y, radius = _widest_place(segments == index)
        x = min(max(x, width / 2 + 1), picture.shape[1] - width / 2 - 1)
        place = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        if radius < 0.6 * height or 2.5 * radius < width or _hits(place, taken):
            continue
        taken.append(place)
        draw.text((x, y), names[index], "white", font, anchor="mm", stroke_width=2, stroke_fill=(20, 20, 20))
    return np.asarray(page)


def draw_tags(
    picture: NDArray[np.uint8],
    texts: Sequence[str],
    *,
    anchors: NDArray[np.floating],
    areas: NDArray[np.floating],
    colours: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """A coloured tag on top of each object, the first ones first.

    A tag is left out where it would cover most of its object or another tag; all are, where there are many objects.

    Args:
        anchors: N 2, x and y in pixels of what the tags stand on.
        areas: N, pixels of each object's box.
        colours: N 3.
    """
    if len(texts) > _MOST_TAGGED:
        return picture
    placed: list[tuple[int, Rectangle]] = []
    for index, text in enumerate(texts):
        width, height = _text_size(text, _font(text, picture.shape))
        width, height = width + 6, height + 4
        if width * height > _LARGEST_TAG * areas[index]:
            continue
        x, y = (float(v) for v in anchors[index])
        x = min(max(x - width / 2, 0.0), picture.shape[1] - width - 1)
        for top in (y - height, y + 2):
            place = (x, top, x + width, top + height)
            if 0 <= top < picture.shape[0] - height and not _hits(place, [taken for _, taken in placed]):
                placed.append((index, place))
                break
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    for index, place in placed:
        colour = colours[index].round().astype(int).tolist()
        dark = colours[index] @ (0.299, 0.587, 0.114) < 140
        draw.rectangle(place, fill=tuple(colour), outline=(20, 20, 20))
        centre = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        draw.text(centre, texts[index], "white" if dark else "black", _font(texts[index], picture.shape), anchor="mm")
    return np.asarray(page)


def _font(text: str, shape: Sequence[int]) -> Font:
    return font_of(text, min(max(round((shape[0] * shape[1]) ** 0.5 / 45), 11), 40))


def _text_size(text: str, font: Font) -> tuple[float, float]:
    left, top, right, bottom = font.getbbox(text, anchor="mm") if text else (0, 0, 0, 0)
    return float(right - left), float(bottom - top)


def _widest_place(inside: NDArray[np.bool_]) -> tuple[float, float, float]:
    """x, y and radius in pixels of the largest circle inside."""
    distance = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return float(x - 1), float(y - 1), float(distance[y, x])


def _hits(place: Rectangle, others: Sequence[Rectangle]) -> bool:
    return any(
        place[0] < right and left < place[2] and place[1] < bottom and top < place[3]
        for left, top, right, bottom in others
    )
