"""Formats whose annotations are polygons: LabelMe and YOLO's segmentation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import yaml

from mmseg_m2f.datasets.coco_masks import check_points
from mmseg_m2f.datasets.formats.examples import (
    SUFFIXES,
    VOID,
    Example,
    ForeignData,
    FoundObject,
    draw_polygon,
    find_image,
    flatten,
    image_size,
    read_text,
)
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.json_files import read_json

_ROOM = 0.5  # of the image's side: polygons that leave the image by more are those of another image


def read_labelme(root: Path, *, classes: Sequence[str] = ()) -> ForeignData:
    """One JSON file beside each image, in `SPLIT` folders or not; polygons, rectangles and circles.

    Shapes of one `group_id` and label are one object. Label maps are drawn in the order of the file, and
    where there is no shape the label is void; a class called `background`, if named, stands there instead.

    Args:
        classes: Their order; all labels that occur, by name, unless given.

    Raises:
        ValueError: A label beside `classes`, or a shape of another kind.
    """
    files = {split: sorted((root / split).rglob("*.json")) for split in _folders(root)}
    if not any(files.values()):
        raise MissingFileError(f"{root}: expected LabelMe's JSON files beside the images, got none.")
    classes = list(classes) or sorted(
        {shape["label"] for group in files.values() for f in group for shape in _shapes(f)}
    )

    def read(split: str) -> Iterator[Example]:
        for file in files[split]:
            name = file.relative_to(root / split).with_suffix("").as_posix()
            image = find_image(file.parent, file.stem, needed_by=file)
            size = image_size(image)
            _require_drawn_on(file, size)
            joined: dict[tuple[str, object], np.ndarray] = {}
            for number, shape in enumerate(_shapes(file)):
                if shape["label"] not in classes:
                    raise InvalidValueError(
                        f"{file}: shape {number} is a '{shape['label']}', which is not among the classes "
                        f"{', '.join(classes)}. Add it to --classes."
                    )
                group = shape.get("group_id")
                key = (str(shape["label"]), ("one", number) if group is None else group)
                mask = _draw_shape(shape, size, where=f"{file}: shape {number}")
                joined[key] = joined[key] | mask if key in joined else mask
            objects = [FoundObject(classes.index(label), mask) for (label, _), mask in joined.items()]
            background = classes.index("background") if "background" in classes else VOID
            yield Example(image, name, flatten(objects, size, background=background), objects)

    return ForeignData(classes, {split or "train": read(split) for split in files})


def read_yolo(root: Path) -> ForeignData:
    """`data.yaml` with `names`, and its `train`, `val` and `test` folders of images with `labels` beside `images`.

    A line of a label file is a class and a polygon, x and y as fractions of width and height. Images without a file
    have no object.

    Raises:
        FileNotFoundError, ValueError: No `.yaml` file, or a line of another form.
    """
    found = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    if not found:
        raise MissingFileError(f"{root}: expected data.yaml with names, train and val, got no .yaml file.")
    content = _read_yaml(found[0])
    classes = _yolo_classes(content.get("names"), found[0])
    base = root / str(content.get("path") or "") if not Path(str(content.get("path") or "")).is_absolute() else root
    splits = {split: base / str(content[split]) for split in ("train", "val", "test") if content.get(split)}

    def read(folder: Path) -> Iterator[Example]:
        if not folder.is_dir():
            raise MissingFileError(f"{found[0]}: the folder {folder} does not exist. Correct path, train or val.")
        for image in sorted(item for item in folder.rglob("*") if item.suffix.lower() in SUFFIXES):
            place = image.relative_to(base).as_posix().replace("images", "labels", 1)
            objects = _yolo_objects((base / place).with_suffix(".txt"), image_size(image), len(classes))
            yield Example(image, image.relative_to(folder).with_suffix("").as_posix(), None, objects)

    return ForeignData(classes, {split: read(folder) for split, folder in splits.items()})


def _read_yaml(file: Path) -> Mapping:
    try:
        content = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidValueError(
            f"{file}: expected YAML with names, train and val, got {reason}. Correct it."
        ) from error
    return content if isinstance(content, Mapping) else {}


def _yolo_classes(names: object, file: Path) -> list[str]:
    if isinstance(names, Mapping) and all(type(key) is int for key in names):
        if sorted(names) != list(range(len(names))):
            raise InvalidValueError(f"{file}: expected names numbered from 0 without a gap, got {sorted(names)[:8]}.")
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise InvalidValueError(
            f"{file}: expected names: a list of classes, got {names}. Write [{names}] for one class."
        )
    odd = [name for name in names if not isinstance(name, str) and type(name) is not int]
    if odd:
        raise InvalidValueError(
            f"{file}: expected texts as names, got {odd[0]!r} as YAML reads it (no, yes, on and off are truth values). "
            "Put the name in quotes."
        )
    return [str(name) for name in names]


def _yolo_objects(file: Path, size: tuple[int, int], num_classes: int) -> list[FoundObject]:
    objects: list[FoundObject] = []
    for number, line in enumerate(read_text(file).splitlines() if file.is_file() else (), 1):
        try:
            label, *values = (float(value) for value in line.split())
            if "_" in line:  # which Python reads between digits
                raise ValueError("an underscore is no part of a number")
        except ValueError as error:
            raise InvalidValueError(f"{file}, line {number}: expected numbers, got '{line[:60]}'.") from error
        wrong = next((value for value in values if not -_ROOM <= value <= 1 + _ROOM), None)
        if not math.isfinite(label) or wrong is not None:
            raise InvalidValueError(
                f"{file}, line {number}: expected a class, and x and y as fractions of width and height (0…1), got "
                f"class {label:g} and {wrong}. Divide pixels by the side of the image, or remove the line."
            )
        if label != int(label) or not 0 <= label < num_classes or len(values) < 6 or len(values) % 2:
            raise InvalidValueError(
                f"{file}, line {number}: expected a class below {num_classes} and at least 3 points, got class "
                f"{label:g} and {len(values)} numbers. Boxes (4 numbers) are no masks: export the segmentation."
            )
        points = np.asarray(values).reshape(-1, 2) * size[::-1]
        objects.append(FoundObject(int(label), draw_polygon(points, size)))
    return objects


def _folders(root: Path) -> list[str]:
    return [name for name in ("train", "val", "test") if (root / name).is_dir()] or [""]


def _shapes(file: Path) -> list[dict]:
    shapes = _read_labelme(file)["shapes"]
    for number, shape in enumerate(shapes):
        if not _is_shape(shape):
            raise InvalidValueError(
                f"{file}: expected shapes with a label, points [[x, y], ...] and a group_id that is a number or none, "
                f"got {str(shape)[:60]} as shape {number}. Correct or remove it."
            )
    return shapes


def _read_labelme(file: Path) -> dict:
    side = (int, None)
    structure = {"shapes": [object], "imageHeight?": side, "imageWidth?": side}
    return read_json(
        file, what="LabelMe's JSON with 'shapes'", structure=structure, remedy="Save it with LabelMe again."
    )


def _require_drawn_on(file: Path, size: tuple[int, int]) -> None:
    """Raise ValueError where the shapes were drawn on an image of another size."""
    content = _read_labelme(file)
    drawn = tuple(
        own if (side := content.get(key)) is None else side
        for key, own in zip(("imageHeight", "imageWidth"), size, strict=True)
    )
    if drawn != size:
        raise InvalidValueError(
            f"{file}: drawn on {drawn[0]} × {drawn[1]} pixels, but the image has {size[0]} × {size[1]} (height × "
            "width). Expected the image as it was annotated, upright and not resized; take that one."
        )


def _is_shape(shape: object) -> bool:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        return False
    points, group = shape.get("points"), shape.get("group_id")
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    kind = shape.get("shape_type")
    return pairs and type(group) in (int, str, type(None)) and (kind is None or isinstance(kind, str))


def _draw_shape(shape: Mapping, size: tuple[int, int], *, where: str) -> np.ndarray:
    if shape["points"]:
        check_points([*chain.from_iterable(shape["points"])], size, where)
    points = np.asarray(shape["points"], dtype=np.float64)
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.asarray([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif kind == "circle" and len(points) == 2:
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angles), np.sin(angles)], 1)
    elif kind != "polygon" or len(points) < 3:
        raise InvalidValueError(
            f"{where} is a {kind[:40]} of {len(points)} points; expected a polygon of 3 or more, a rectangle or a "
            "circle. Draw it as a polygon."
        )
    return draw_polygon(points, size)
