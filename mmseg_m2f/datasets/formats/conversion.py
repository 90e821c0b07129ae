"""Writing a data set of another format as label maps or objects that we read: see docs/own_data.md."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from mmseg_m2f.datasets.formats.examples import (
    VOID,
    Example,
    ForeignData,
    FoundObject,
    flatten,
    image_size,
    require_class_names,
)
from mmseg_m2f.datasets.formats.mask_formats import read_cityscapes, read_label_folder, read_pascal_voc
from mmseg_m2f.datasets.formats.polygon_formats import read_labelme, read_yolo
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import replace_file, save_json, save_png

Format = Literal["cityscapes", "cvat", "label-folder", "labelme", "pascal-voc", "yolo"]
Target = Literal["labels", "objects"]

_READERS: dict[Format, Callable[..., ForeignData]] = {
    "cityscapes": read_cityscapes,
    "cvat": read_pascal_voc,  # with labelmap.txt
    "label-folder": read_label_folder,
    "labelme": read_labelme,
    "pascal-voc": read_pascal_voc,
    "yolo": read_yolo,
}
_WITH_CLASSES: tuple[Format, ...] = ("label-folder", "labelme")


class DatasetReport(NamedTuple):
    """What was written: number of images and objects by split, classes in order, and lines for a leaf."""

    images: dict[str, int]
    objects: dict[str, int]
    classes: Sequence[str]
    data: str


def convert_dataset(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: Format,
    to: Target,
    classes: Sequence[str] = (),
    labelmap: str | os.PathLike[str] | None = None,
) -> DatasetReport:
    """Write `images/SPLIT` with `labels/SPLIT` (PNG, void 255) or `instances_SPLIT.json` (COCO, run lengths).

    Images are copied as they are, one at a time. The source is not changed.

    Args:
        classes: Names in order, for formats that do not tell (`label-folder`) or number by name (`labelme`).
        labelmap: A `labelmap.txt` with the colours of `label-folder`.

    Raises:
        FileNotFoundError: A file that the format has is missing; the message says which.
        ValueError: The format has no such annotations, an argument does not belong to it, a mask has another size than
            its image, the target is not empty, or there is no image.
    """
    source, target = Path(source), Path(target)
    data = _READERS[format](source, **_arguments(format, classes, labelmap))
    require_class_names(data.classes, file=source)
    if target.exists() and any(target.iterdir()):
        raise InvalidValueError(f"{target}: expected a new or empty folder, got one with files. Choose another.")
    if to == "labels" and len(data.classes) > VOID:
        raise InvalidValueError(f"{source}: {len(data.classes)} classes; label maps of 8 bits hold 255.")
    images, objects = {}, {}
    for split, examples in data.splits.items():
        write = _write_labels if to == "labels" else _write_objects
        images[split], objects[split] = write(examples, target, split=split, data=data, where=f"{source}, {format}")
    if not sum(images.values()):
        raise InvalidValueError(f"{source}: expected images of the format {format}, got none. Check the folder.")
    return DatasetReport(images, objects, data.classes, _leaf_lines(target, data, to))


def _arguments(format: Format, classes: Sequence[str], labelmap: str | os.PathLike[str] | None) -> dict[str, object]:
    if classes and format not in _WITH_CLASSES:
        raise InvalidValueError(
            f"--classes: {format} names its classes itself; expected it with {_WITH_CLASSES} alone."
        )
    if labelmap is not None and format != "label-folder":
        raise InvalidValueError(f"--labelmap: expected it with label-folder alone, got {format}. Leave it out.")
    arguments: dict[str, object] = dict(classes=list(classes)) if format in _WITH_CLASSES else {}
    return arguments if labelmap is None else arguments | dict(labelmap=Path(labelmap))


def _write_labels(
    examples: Iterable[Example], target: Path, *, split: str, data: ForeignData, where: str
) -> tuple[int, int]:
    number = 0
    for example in examples:
        number += 1
        labels, size = example.labels, image_size(example.image)
        if labels is None:
            background = data.classes.index("background") if "background" in data.classes else VOID
            labels = flatten(example.objects or (), size, background=background)
        _check_size(labels, size, example)
        _copy_image(example, target, split)
        save_png(Image.fromarray(labels), target / f"labels/{split}/{example.name}.png")
    return number, 0


def _write_objects(
    examples: Iterable[Example], target: Path, *, split: str, data: ForeignData, where: str
) -> tuple[int, int]:
    images: list[dict] = []
    annotations: list[dict] = []
    for number, example in enumerate(examples, 1):
        if example.objects is None:
            raise InvalidValueError(
                f"{where}: {example.image} has no objects, a label map alone. Expected a format or export with objects "
                "(SegmentationObject, instanceIds). Convert to labels."
            )
        size = image_size(example.image)
        name = _copy_image(example, target, split)
        images.append(dict(id=number, file_name=name, height=size[0], width=size[1]))
        for found in example.objects:
            _check_size(found.mask, size, example)
            if found.mask.any():
                annotations.append(_annotation(found, size, image_id=number, number=len(annotations) + 1))
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(data.classes)]
    for category, colour in zip(categories, data.palette, strict=False):
        category["color"] = list(colour)
    content = dict(images=images, annotations=annotations, categories=categories)
    save_json(content, target / f"instances_{split}.json")
    return len(images), len(annotations)


def _annotation(found: FoundObject, size: tuple[int, int], *, image_id: int, number: int) -> dict:
    from pycocotools import mask as run_lengths  # comes with mmdet, without which no model finds objects

    code = run_lengths.encode(np.asfortranarray(found.mask.astype(np.uint8)))
    rows, columns = np.flatnonzero(found.mask.any(1)), np.flatnonzero(found.mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return dict(
        id=number,
        image_id=image_id,
        category_id=found.label + 1,
        iscrowd=0,
        area=int(found.mask.sum()),
        bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        segmentation=dict(size=list(size), counts=code["counts"].decode()),
    )


def _check_size(mask: np.ndarray, size: tuple[int, int], example: Example) -> None:
    if mask.shape != size:
        raise InvalidValueError(
            f"{example.image}: the image has {size[0]} × {size[1]} pixels (height × width), its annotation "
            f"{mask.shape[0]} × {mask.shape[1]}. Expected the same; export the annotation at the image's size."
        )


def _copy_image(example: Example, target: Path, split: str) -> str:
    name = f"{example.name}{example.image.suffix.lower()}"
    replace_file(target / f"images/{split}" / name, example.image.read_bytes())
    return name


def _leaf_lines(target: Path, data: ForeignData, to: Target) -> str:
    if to == "objects":
        return f'data = "{target.as_posix()}/"'  # classes and colours are in the JSON
    palette = f", palette={[list(colour) for colour in data.palette]}" if data.palette else ""
    return f'data = dict(root="{target.as_posix()}", classes={tuple(data.classes)!r}{palette})'


FORMATS = get_args(Format)
TARGETS = get_args(Target)
