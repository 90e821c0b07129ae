"""Labels, segments and objects drawn over an image."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.predictions import ImageResult, Kind, Objects, resize_result
from mmseg_m2f.predictions.palettes import Palette, distinct_palette, shades
from mmseg_m2f.visualization.fonts import drawable_names
from mmseg_m2f.visualization.tags import draw_names, draw_tags

_VOID = (90, 90, 90)
_SMALLEST_OUTLINED = 7  # sides in pixels; an outline would hide what is smaller


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.integer], palette: Palette, *, opacity: float = 0.6
) -> NDArray[np.uint8]:
    """The image with each class tinted, a dark line between classes, and void as black hatching.

    Args:
        labels: H W of the image; any value that is no index into the palette counts as void.
        opacity: 0 shows the image alone, 1 the colours alone.

    Raises:
        ValueError: The labels have another size than the image.
    """
    _check_size("overlay", image, labels.shape)
    known = (labels >= 0) & (labels < len(palette))
    colours = np.asarray([*palette, _VOID], dtype=np.float32)
    mixed = image * (1 - opacity) + colours[np.where(known, labels, len(palette))] * opacity
    _hatch(mixed, ~known)
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge & known] *= 0.55
    return mixed.round().astype(np.uint8)


def overlay_panoptic(
    image: NDArray[np.uint8],
    panoptic: NDArray[np.integer],
    classes: Sequence[str],
    palette: Palette,
    *,
    opacity: float = 0.6,
) -> NDArray[np.uint8]:
    """The image with each segment tinted and, where there is room, named.

    Things have shades of their class's colour and a white outline, stuff has the colour itself; void is hatched.

    Args:
        panoptic: H W of the image, class + 1000 · instance number; a class that is no index into the palette is void.
        opacity: 0 shows the image alone, 1 the colours alone.

    Raises:
        ValueError: The map has another size than the image.
    """
    _check_size("overlay_panoptic", image, panoptic.shape)
    ids, inverse = np.unique(panoptic, return_inverse=True)
    segments = inverse.reshape(panoptic.shape)
    labels, numbers = ids % INSTANCE_OFFSET, ids // INSTANCE_OFFSET
    known = (ids >= 0) & (labels < len(palette))
    colours = np.full((len(ids), 3), _VOID, dtype=np.float32)
    colours[known] = shades(palette, labels[known])
    mixed = image * (1 - opacity) + colours[segments] * opacity
    _hatch(mixed, ~known[segments])
    _outline(mixed, segments, light=known & (numbers > 0), dark=known & (numbers == 0))
    classes = drawable_names(classes)
    names = {int(index): classes[labels[index]] for index in known.nonzero()[0]}
    return draw_names(mixed.round().astype(np.uint8), segments, names)


def overlay_objects(
    image: NDArray[np.uint8],
    objects: Objects,
    classes: Sequence[str],
    palette: Palette,
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
    show_scores: bool = True,
) -> NDArray[np.uint8]:
    """The image with the masks of objects tinted and outlined, or their boxes where there are no masks.

    Objects have shades of their class's colour; where there is one class only, each has a colour of its own. Small
    objects lie in front of large ones. A tag with class name and score stands where it has room, the surest first.

    Args:
        objects: boxes and masks in pixels of the image.
        opacity: of the masks; 0 shows the image alone, 1 the colours alone.
        score_threshold: objects with a lower score are left out.
        show_scores: put the score into the tags.

    Raises:
        ValueError: The masks have another size than the image.
    """
    shown = objects.scores >= score_threshold
    labels, scores, boxes = objects.labels[shown], objects.scores[shown], objects.boxes_px[shown]
    colours: NDArray[np.float32]
    if len(classes) == 1:
        colours = np.asarray(distinct_palette(len(labels)), dtype=np.float32).reshape(-1, 3)
    else:
        colours = shades(palette, labels)
    if objects.masks is not None:
        _check_size("overlay_objects", image, objects.masks.shape[1:])
        picture = _tint_masks(image, objects.masks[shown], colours, opacity=opacity)
        anchors = _highest_points(objects.masks[shown])
    else:
        picture = _draw_boxes(image, boxes, colours)
        anchors = np.stack([boxes[:, 0::2].mean(1), boxes[:, 1]], 1)
    named = len(classes) > 1
    classes = drawable_names(classes)
    texts = [
        " ".join([classes[label]] * named + [f"{score:.2f}"] * show_scores)
        for label, score in zip(labels, scores, strict=True)
    ]
    if not (named or show_scores):
        return picture
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return draw_tags(picture, texts, anchors=anchors, areas=areas, colours=colours)


def overlay_result(
    image: NDArray[np.uint8],
    prediction: ImageResult,
    kind: Kind,
    classes: Sequence[str],
    palette: Palette,
    *,
    opacity: float = 0.6,
    score_threshold: float = 0.5,
    show_scores: bool = True,
) -> NDArray[np.uint8]:
    """One kind of result, resized to the image and drawn over it.

    Raises:
        ValueError: The result has none of this kind.
    """
    _, semantic, panoptic, objects, *_ = resize_result(prediction, (image.shape[0], image.shape[1]))
    if kind == "semantic" and semantic is not None:
        return overlay(image, semantic, palette, opacity=opacity)
    if kind == "panoptic" and panoptic is not None:
        return overlay_panoptic(image, panoptic, classes, palette, opacity=opacity)
    if kind == "instances" and objects is not None:
        return overlay_objects(
            image,
            objects,
            classes,
            palette,
            opacity=opacity,
            score_threshold=score_threshold,
            show_scores=show_scores,
        )
    raise InvalidValueError(
        f"overlay_result: expected a result of kind '{kind}', got {prediction.kinds()}. Draw one of its kinds()."
    )


def _check_size(function: str, image: NDArray[np.uint8], size: tuple[int, ...]) -> None:
    if size != image.shape[:2]:
        raise InvalidValueError(
            f"{function}: expected labels of the image's size {image.shape[:2]}, got {size}. "
            "Resize one of them (nearest neighbour for labels)."
        )


def _hatch(mixed: NDArray[np.floating], void: NDArray[np.bool_]) -> None:
    y, x = np.ogrid[: void.shape[0], : void.shape[1]]
    mixed[void & ((x + y) % 6 < 2)] *= 0.1


def _tint_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], colours: NDArray[np.float32], *, opacity: float
) -> NDArray[np.uint8]:
    background = len(masks)
    front = np.full(image.shape[:2], background)
    for index in np.argsort(-masks.sum((1, 2)), kind="stable"):
        front[masks[index]] = index
    mixed = image.astype(np.float32)
    covered = front != background
    mixed[covered] = mixed[covered] * (1 - opacity) + colours[front[covered]] * opacity
    sides = np.minimum(masks.any(1).sum(1), masks.any(2).sum(1))
    light = np.append(sides >= _SMALLEST_OUTLINED, False)
    _outline(mixed, front, light=light, dark=np.zeros_like(light))
    return mixed.round().astype(np.uint8)


def _highest_points(masks: NDArray[np.bool_]) -> NDArray[np.floating]:
    """N 2: x and y of the middle of each mask's first row; zeros for an empty mask."""
    y = masks.any(2).argmax(1)
    rows = masks[np.arange(len(masks)), y]
    x = (rows.argmax(1) + rows.shape[1] - 1 - rows[:, ::-1].argmax(1)) / 2
    return np.stack([x, y], 1) * rows.any(1, keepdims=True)


def _outline(
    mixed: NDArray[np.floating],
    segments: NDArray[np.integer],
    *,
    light: NDArray[np.bool_],
    dark: NDArray[np.bool_],
) -> None:
    """White or dark lines just inside the segments that `light` and `dark` mark, where another one begins."""
    edge = np.zeros(segments.shape, dtype=bool)
    across, down = segments[:, 1:] != segments[:, :-1], segments[1:] != segments[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    width = _line_width(edge.shape)
    if width > 1:
        edge = cv2.dilate(edge.astype(np.uint8), np.ones((2 * width - 1,) * 2, np.uint8)).astype(bool)
    mixed[edge & dark[segments]] *= 0.55
    bright = edge & light[segments]
    mixed[bright] = 0.2 * mixed[bright] + 0.8 * 255


def _draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], colours: NDArray[np.float32]
) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    width = _line_width(image.shape) + 1
    # Large boxes first: those of small objects lie in front of them.
    sides = boxes[:, 2:] - boxes[:, :2]
    for index in np.argsort(-sides.prod(1), kind="stable"):
        left, top, right, bottom = (float(v) for v in boxes[index])
        outer = (left - 1, top - 1, max(right, left), max(bottom, top))
        inner = (left, top, max(right - 1, left), max(bottom - 1, top))
        draw.rectangle(outer, outline=(20, 20, 20), width=width + 2)
        draw.rectangle(inner, outline=tuple(colours[index].round().astype(int).tolist()), width=width)
    return np.asarray(picture)


def _line_width(shape: Sequence[int]) -> int:
    return max(round((shape[0] * shape[1]) ** 0.5 / 600), 1)
