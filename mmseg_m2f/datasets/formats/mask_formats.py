"""Formats whose annotations are pictures: Pascal VOC, CVAT's segmentation masks, Cityscapes, plain label maps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmseg_m2f.datasets.formats.examples import (
    SUFFIXES,
    VOID,
    Example,
    ForeignData,
    FoundObject,
    find_image,
    name_colours,
    read_colours,
    read_indices,
    read_names,
    read_numbers,
    read_text,
    require_class_names,
    require_known,
    split_segments,
)
from mmseg_m2f.errors import InvalidValueError, MissingFileError

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
#: Cityscapes' label ids of these classes, in their order.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def read_labelmap(file: Path) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Names and colours of a `labelmap.txt` as CVAT writes it: `name:red,green,blue:parts:actions` on each line.

    Raises:
        FileNotFoundError, ValueError: No such file, or a line of another form.
    """
    if not file.is_file():
        raise MissingFileError(f"{file}: no such labelmap. Expected lines such as car:0,0,142:: with a colour each.")
    names, colours = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.split(":")[0].split(",")
        if len(values) != 3 or not all(value.strip().isdecimal() and int(value) < 256 for value in values):
            raise InvalidValueError(
                f"{file}, line {number}: expected name:red,green,blue, got '{line}'. Give three numbers up to 255."
            )
        names.append(name.strip())
        colours.append((int(values[0]), int(values[1]), int(values[2])))
    require_class_names(names, file=file)
    if len(set(colours)) < len(colours):
        shared = next(colour for colour in colours if colours.count(colour) > 1)
        raise InvalidValueError(f"{file}: expected a colour for each class, got {shared} twice. Correct the lines.")
    return names, colours


def read_pascal_voc(root: Path) -> ForeignData:
    """`JPEGImages`, `SegmentationClass`, `SegmentationObject`, `ImageSets/Segmentation/*.txt`; borders are void.

    With a `labelmap.txt` (CVAT's export "segmentation mask") its names and colours hold, else VOC's 21 classes.
    A class called background stays a class of label maps and makes no objects.

    Raises:
        FileNotFoundError: There is no list of images; while reading, an image or mask of a list is missing.
        ValueError: A mask has a colour or index without a class.
    """
    labelmap = root / "labelmap.txt"
    palette: Sequence[Sequence[int]] = ()
    classes: Sequence[str] = VOC_CLASSES
    if labelmap.is_file():
        classes, palette = read_labelmap(labelmap)
    background = [label for label, name in enumerate(classes) if name == "background"]
    lists = sorted((root / "ImageSets/Segmentation").glob("*.txt"))
    if not lists:
        raise MissingFileError(f"{root}: expected ImageSets/Segmentation/train.txt and val.txt, got no list of images.")

    def read(file: Path) -> Iterator[Example]:
        for name in read_names(file):
            mask = root / f"SegmentationClass/{name}.png"
            labels = name_colours(read_colours(mask), palette, file=mask) if palette else read_indices(mask)
            require_known(labels, len(classes), file=mask)
            numbers = root / f"SegmentationObject/{name}.png"
            objects = _voc_objects(numbers, labels, background) if numbers.is_file() else None
            image = find_image(root / "JPEGImages", name, needed_by=file)
            yield Example(image, name, labels, objects)

    return ForeignData(classes, {file.stem: read(file) for file in lists}, palette)


def read_cityscapes(root: Path) -> ForeignData:
    """`leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/SPLIT/CITY/*_labelIds.png` and `*_instanceIds.png`.

    The 19 classes of the benchmark; other ids are void. Instance ids from 1000 on are objects: class id · 1000 + n.

    Raises:
        FileNotFoundError: There is no folder of a split; while reading, a mask is missing.
    """
    table = np.full(256, VOID, np.uint8)
    table[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))
    splits = sorted(folder.name for folder in (root / "leftImg8bit").glob("*") if folder.is_dir())
    if not splits:
        raise MissingFileError(f"{root}: expected leftImg8bit/train/CITY and gtFine/train/CITY, got no leftImg8bit.")

    def read(split: str) -> Iterator[Example]:
        for image in sorted((root / "leftImg8bit" / split).rglob("*_leftImg8bit.png")):
            name = image.relative_to(root / "leftImg8bit" / split).as_posix().removesuffix("_leftImg8bit.png")
            stem = root / "gtFine" / split / f"{name}_gtFine"
            labels = table[read_indices(Path(f"{stem}_labelIds.png"))]
            yield Example(image, name, labels, _cityscapes_objects(Path(f"{stem}_instanceIds.png"), labels, table))

    return ForeignData(CITYSCAPES_CLASSES, {split: read(split) for split in splits})


def read_label_folder(root: Path, *, classes: Sequence[str] = (), labelmap: Path | None = None) -> ForeignData:
    """`images/SPLIT` and `masks/SPLIT` (or `labels`, `annotations`); masks hold indices or a labelmap's colours.

    Without folders of splits, all images are `train`.

    Raises:
        ValueError: Neither names of classes nor a labelmap.
    """
    palette: Sequence[Sequence[int]] = ()
    if labelmap is not None:
        classes, palette = read_labelmap(labelmap)
    if not classes:
        raise InvalidValueError(
            f"{root}: expected the names of the classes. Give --classes road,car or --labelmap FILE."
        )
    masks = next((root / name for name in ("masks", "labels", "annotations") if (root / name).is_dir()), None)
    if masks is None or not (root / "images").is_dir():
        raise MissingFileError(f"{root}: expected the folders images and masks (or labels, annotations).")
    splits = sorted(folder.name for folder in (root / "images").iterdir() if folder.is_dir()) or [""]

    def read(split: str) -> Iterator[Example]:
        for image in sorted((root / "images" / split).rglob("*")):
            if image.suffix.lower() not in SUFFIXES:
                continue
            name = image.relative_to(root / "images" / split).with_suffix("").as_posix()
            mask = masks / split / f"{name}.png"
            labels = name_colours(read_colours(mask), palette, file=mask) if palette else read_indices(mask)
            require_known(labels, len(classes), file=mask)
            yield Example(image, name, labels)

    return ForeignData(classes, {split or "train": read(split) for split in splits}, palette)


def _voc_objects(file: Path, labels: np.ndarray, background: Sequence[int]) -> list[FoundObject]:
    numbers = read_numbers(file)
    _require_same_size(numbers, labels, file)
    return split_segments(labels, numbers, background=background)


def _cityscapes_objects(file: Path, labels: np.ndarray, table: np.ndarray) -> list[FoundObject] | None:
    """Objects of an instance map: their class is that of the label map there, as the id says it."""
    if not file.is_file():
        return None
    ids = read_numbers(file)
    _require_same_size(ids, labels, file)
    found = []
    for number in np.unique(ids[ids >= 1000]).tolist():
        mask, label_id = ids == number, number // 1000
        label = int(table[label_id]) if label_id < len(table) else VOID
        if (labels[mask] != label).any():
            raise InvalidValueError(
                f"{file}: object {number} is of label id {label_id}, but the label map has other labels there. "
                "Expected the files of one export; create both anew."
            )
        if label != VOID:
            found.append(FoundObject(label, mask))
    return found


def _require_same_size(numbers: np.ndarray, labels: np.ndarray, file: Path) -> None:
    if numbers.shape != labels.shape:
        raise InvalidValueError(
            f"{file}: expected the size of the label map, {labels.shape[0]} × {labels.shape[1]} pixels, got "
            f"{numbers.shape[0]} × {numbers.shape[1]}. Export both at the image's size."
        )
