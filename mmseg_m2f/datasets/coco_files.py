"""Reading COCO's JSON files, for objects and for panoptic labels, with errors that name the entry at fault."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from pathlib import PurePath
from typing import NamedTuple

from mmengine.fileio import get
from mmengine.logging import print_log

from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.json_files import parse_json

_UNWRITABLE = re.compile("[\\0\ud800-\udfff]")


class CocoFile(NamedTuple):
    """The three lists of a COCO file. `images` and `annotations` are as in the file; `path` is for messages."""

    path: str
    categories: dict[int | str, Mapping]
    images: dict[int | str, Mapping]
    annotations: Sequence[Mapping]

    def class_names(self) -> list[str]:
        """The names of the categories in the file's order."""
        return [str(category["name"]) for category in self.categories.values()]


def read_coco(path: str) -> CocoFile:
    """The content of a COCO file, objects or panoptic.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, lacks one of the lists or an entry's key, has a value of another type, repeats an id,
            or refers to an image or category that it does not have.
    """
    try:
        data = get(path)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"Annotation file {path} does not exist (working directory {os.getcwd()}); expected a COCO JSON file. "
            "Check data_root and ann_file in the dataset config."
        ) from error
    content = parse_json(
        data, source=f"Annotation file {path}", what="a complete COCO file", remedy="Copy or write it again."
    )
    lists = ("categories", "images", "annotations")
    missing = [key for key in lists if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        found = sorted(content) if isinstance(content, Mapping) else type(content).__name__
        raise InvalidValueError(
            f"Annotation file {path}: expected the lists categories, images and annotations, got {found}. Add "
            f"{', '.join(missing)}; files with images alone can be predicted, but not trained or tested on."
        )
    _check_entries(content["categories"], content["images"], path)
    file = CocoFile(
        path,
        _by_id(content["categories"], place=f"{path}, categories"),
        _by_id(content["images"], place=f"{path}, images"),
        content["annotations"],
    )
    for entry in file.annotations:
        require_keys(entry, ("image_id",), place=f"{path}, annotations")
        if not _is_id(entry["image_id"]) or entry["image_id"] not in file.images:
            raise InvalidValueError(
                f"{path}, annotations: expected the id of an image as image_id, got {entry['image_id']!r}. Add the "
                "image, or remove the annotation."
            )
    return file


def refuse_filter(filter_cfg: Mapping | None, path: str) -> None:
    """Raise ValueError for mmengine's `filter_cfg`, which our data sets do not read."""
    if filter_cfg:
        raise InvalidValueError(
            f"Data set of {path}: expected drop_empty and min_size to choose what is trained on, got filter_cfg="
            f"{dict(filter_cfg)}. Write drop_empty=True for filter_empty_gt=True, and min_size outside filter_cfg."
        )


def require_images(found: Sized, file: CocoFile, *, need: str) -> None:
    """Raise ValueError where a file leaves no image to read.

    Args:
        need: What an image has to have.
    """
    if not len(found):
        raise InvalidValueError(
            f"{file.path}: expected images {need}, got none among {len(file.images)} images and "
            f"{len(file.annotations)} annotations. Take the complete file."
        )


def require_keys(entry: object, keys: Sequence[str], *, place: str) -> None:
    """Raise ValueError unless the entry is a mapping that has all the keys."""
    if not isinstance(entry, Mapping):
        raise InvalidValueError(
            f"{place}: expected entries {{...}} with {', '.join(keys)}, got {str(entry)[:60]}. Write each entry as a "
            "JSON object."
        )
    missing = [key for key in keys if key not in entry]
    if missing:
        shown = ", ".join(f"{key}={entry[key]!r}" for key in ("id", "name", "file_name", "image_id") if key in entry)
        raise InvalidValueError(
            f"{place}: expected entries with {', '.join(keys)}, got one ({shown or sorted(entry)}) without "
            f"{', '.join(missing)}. Add what is missing."
        )


def is_text(value: object) -> bool:
    """Whether a value is a text that can be written: halves of characters (lone surrogates) and NUL cannot."""
    return isinstance(value, str) and not _UNWRITABLE.search(value)


def read_flag(entry: Mapping, key: str, place: str) -> bool:
    """A flag of an entry, which is 0 or 1 or true or false; false where it is missing.

    Raises:
        ValueError: It is anything else.
    """
    value = entry.get(key, 0)
    _require(entry, key, type(value) in (int, bool) and value in (0, 1), "0, 1, true or false", place)
    return bool(value)


def class_of_category(file: CocoFile, classes: Sequence[str]) -> dict[int | str, int]:
    """The class index of each category id; categories outside `classes` have none.

    Raises:
        ValueError: A class is no category of the file, or two categories share its name.
    """
    names = file.class_names()
    index_of_name = {name: index for index, name in enumerate(classes)}
    for name in classes:
        if names.count(name) != 1:
            near = difflib.get_close_matches(name, names, n=3)
            raise InvalidValueError(
                f"{file.path}: expected exactly one category named '{name}', got {names.count(name)}. "
                f"{f'Nearest: {near}.' if near and name not in names else f'It has: {names[:8]} …'} Correct "
                "metainfo.classes in the dataset config, or the file."
            )
    return {i: index_of_name[n] for i, n in zip(file.categories, names, strict=True) if n in index_of_name}


def find_class(classes: Mapping[int | str, int], entry: Mapping, file: CocoFile) -> int | None:
    """The class of an annotation or segment; None where its category is not among the classes.

    Raises:
        ValueError: The file has no such category.
    """
    category = entry["category_id"]
    if not _is_id(category) or category not in file.categories:
        raise InvalidValueError(
            f"{file.path}, {entry.get('image_id', 'segment')} {entry.get('id')}: expected the id of a category as "
            f"category_id ({sorted(file.categories, key=str)[:8]} …), got {category!r}. Add the category, or "
            "correct the id."
        )
    return classes.get(category)


def describe_classes(file: CocoFile, classes: Sequence[str], *, things: Set[str], given: Mapping) -> dict[str, object]:
    """The metainfo of a data set: the given one with `classes`, `category_ids`, `thing_ids` and `stuff_ids`.

    `palette` is the given one, or has the colours of the file's categories where each class has one.

    Args:
        classes: names of categories that `class_of_category` has checked, in the order of the class indices.
        things: names of countable classes.
    """
    by_name = {str(category["name"]): category for category in file.categories.values()}
    place = f"{file.path}, categories"
    colours = [_read_colour(by_name[name], place) for name in classes if "color" in by_name[name]]
    palette = dict(palette=colours) if len(colours) == len(classes) else {}
    return {
        **palette,
        **given,
        "classes": tuple(classes),
        "category_ids": tuple(by_name[name]["id"] for name in classes),
        "thing_ids": tuple(index for index, name in enumerate(classes) if name in things),
        "stuff_ids": tuple(index for index, name in enumerate(classes) if name not in things),
    }


def report(path: str, what: str, examples: Iterable[object]) -> None:
    """Log that something of a file is left out, how often, and the first examples."""
    examples = list(examples)
    if examples:
        more = " …" if len(examples) > 5 else ""
        shown = ", ".join(map(str, examples[:5]))
        print_log(f"{path}: {len(examples)} {what} ({shown}{more})", logger="current")


def keep_useful(
    data_list: Sequence[dict], *, path: str, is_empty: Sequence[bool], drop_empty: bool, min_size: int
) -> list[dict]:
    """The samples to train on; how many are left out, and why, goes to the log.

    Raises:
        ValueError: None is left.
    """
    kept, small, empty = [], [], []
    for sample, nothing in zip(data_list, is_empty, strict=True):
        if min(sample["height"], sample["width"]) < min_size:
            small.append(os.path.basename(sample["img_path"]))
        elif drop_empty and nothing:
            empty.append(os.path.basename(sample["img_path"]))
        else:
            kept.append(sample)
    report(path, f"images left out: a side below {min_size} pixels", small)
    report(path, "images left out: nothing annotated", empty)
    if not kept:
        raise InvalidValueError(
            f"{path}: expected images to train on, got {len(data_list)}, of which drop_empty={drop_empty} and "
            f"min_size={min_size} leave none. Check the annotations, or set drop_empty=False and min_size=0."
        )
    return kept


def _check_entries(categories: Sequence, images: Sequence, path: str) -> None:
    place = f"{path}, categories"
    for entry in categories:
        require_keys(entry, ("id", "name"), place=place)
        _require(entry, "name", is_text(entry["name"]), "a text", place)
    place = f"{path}, images"
    for entry in images:
        require_keys(entry, ("id", "file_name", "height", "width"), place=place)
        _require(entry, "file_name", is_text(entry["file_name"]) and PurePath(entry["file_name"]).name, "a file", place)
        for side in ("height", "width"):
            _require(entry, side, type(entry[side]) is int and 0 < entry[side] < 2**31, "a positive integer", place)


def _require(entry: Mapping, key: str, is_right: object, expected: str, place: str) -> None:
    if not is_right:
        shown = ", ".join(f"{k}={entry[k]!r}"[:60] for k in ("id", "name", "file_name") if k in entry and k != key)
        raise InvalidValueError(
            f"{place}: expected {expected} as {key}, got {str(entry.get(key))[:60]!r} ({shown}). Correct the entry."
        )


def _read_colour(category: Mapping, place: str) -> tuple[int, ...]:
    colour = category["color"]
    is_colour = isinstance(colour, list) and len(colour) == 3 and all(type(v) is int and 0 <= v < 256 for v in colour)
    _require(category, "color", is_colour, "[red, green, blue] in 0…255", place)
    return tuple(colour)


def _is_id(value: object) -> bool:
    return type(value) is int or is_text(value)


def _by_id(entries: Sequence[Mapping], *, place: str) -> dict[int | str, Mapping]:
    for entry in entries:
        _require(entry, "id", _is_id(entry["id"]), "an integer or a text", place)
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        numbers = Counter(entry["id"] for entry in entries)
        repeated = [i for i, number in numbers.items() if number > 1][:8]
        raise InvalidValueError(f"{place}: expected each id once, got {repeated} repeatedly. Number the entries anew.")
    return found
