"""One generated scene, written in the formats of others."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

#: background, cat, dog; two cats and a dog, all rectangles: (class, top, left, bottom, right), ends exclusive.
CLASSES = ("background", "cat", "dog")
COLOURS = ((0, 0, 0), (200, 10, 20), (30, 40, 250))
OBJECTS = ((1, 2, 2, 8, 9), (1, 12, 20, 18, 30), (2, 10, 4, 20, 16))
SIZE = (24, 32)
SPLITS = {"train": ("a", "b"), "val": ("c",)}


def label_map() -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    for label, top, left, bottom, right in OBJECTS:
        labels[top:bottom, left:right] = label
    return labels


def object_map() -> np.ndarray:
    numbers = np.zeros(SIZE, np.uint8)
    for number, (_, top, left, bottom, right) in enumerate(OBJECTS, 1):
        numbers[top:bottom, left:right] = number
    return numbers


def masks() -> list[tuple[int, np.ndarray]]:
    return [(label, object_map() == number) for number, (label, *_) in enumerate(OBJECTS, 1)]


def save(path: Path, picture: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    if palette:
        image.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    image.save(path)


def image(path: Path) -> None:
    save(path, np.random.default_rng(len(str(path))).integers(0, 255, (*SIZE, 3), np.uint8))


def corners(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    """Of a polygon whose drawn pixels are those of the rectangle: borders belong to it."""
    return [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]


def write_pascal_voc(root: Path, *, of_cvat: bool) -> None:
    colour = np.asarray(COLOURS, np.uint8)
    for split, names in SPLITS.items():
        lists = root / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image(root / f"JPEGImages/{name}.png")
            labels = label_map()
            save(root / f"SegmentationClass/{name}.png", colour[labels] if of_cvat else labels, palette=not of_cvat)
            save(root / f"SegmentationObject/{name}.png", object_map(), palette=True)
    if of_cvat:
        write_labelmap(root / "labelmap.txt")


def write_labelmap(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(CLASSES, COLOURS, strict=True)]
    file.write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")


def write_cityscapes(root: Path) -> None:
    """Background is road (id 7), cats are cars (26), dogs persons (24)."""
    ids = np.asarray([7, 26, 24])
    for split, names in SPLITS.items():
        for name in names:
            image(root / f"leftImg8bit/{split}/town/{name}_leftImg8bit.png")
            labels, numbers = ids[label_map()], object_map()
            stem = f"gtFine/{split}/town/{name}_gtFine"
            save(root / f"{stem}_labelIds.png", labels.astype(np.uint8))
            save(root / f"{stem}_instanceIds.png", np.where(numbers, labels * 1000 + numbers, labels).astype(np.uint16))


def write_label_folder(root: Path, *, colours: bool) -> None:
    for split, names in SPLITS.items():
        for name in names:
            image(root / f"images/{split}/{name}.png")
            labels = label_map()
            save(root / f"masks/{split}/{name}.png", np.asarray(COLOURS, np.uint8)[labels] if colours else labels)
    if colours:
        write_labelmap(root / "labelmap.txt")


def write_labelme(root: Path) -> None:
    for split, names in SPLITS.items():
        for name in names:
            image(root / f"{split}/{name}.png")
            shapes = [
                dict(label=CLASSES[label], points=corners(*box), shape_type="polygon", group_id=None)
                for label, *box in OBJECTS
            ]
            shapes[1] |= dict(shape_type="rectangle", points=[shapes[1]["points"][0], shapes[1]["points"][2]])
            content = dict(shapes=shapes, imagePath=f"{name}.png", imageHeight=SIZE[0], imageWidth=SIZE[1])
            (root / f"{split}/{name}.json").write_text(json.dumps(content))


def write_yolo(root: Path) -> None:
    for split, names in SPLITS.items():
        for name in names:
            image(root / f"images/{split}/{name}.png")
            lines = []
            for label, *box in OBJECTS:
                points = np.asarray(corners(*box)) / (SIZE[1], SIZE[0])
                lines.append(" ".join([str(label), *(f"{value:.9f}" for value in points.reshape(-1))]))
            file = root / f"labels/{split}/{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
    names = dict(enumerate(CLASSES))
    (root / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnames: {json.dumps(list(names.values()))}\n"
    )
