"""Reading COCO's JSON files, for objects and for panoptic labels, with errors that name the entry at fault."""

import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mmengine.fileio import get_text
from mmengine.logging import print_log

from mmseg_m2f.errors import InvalidValueError, MissingFileError


class CocoFile(NamedTuple):
    """The three lists of a COCO file. `images` and `annotations` are as in the file; `path` is for messages."""

    path: str
    categories: dict[int, Mapping]
    images: dict[int, Mapping]
    annotations: Sequence[Mapping]

    def class_names(self) -> list[str]:
        """The names of the categories in the file's order."""
        return [str(category["name"]) for category in self.categories.values()]


def read_coco(path: str) -> CocoFile:
    """The content of a COCO file, objects or panoptic.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, lacks one of the lists or an entry's key, repeats an id, or refers to an image or
            category that it does not have.
    """
    try:
        content = json.loads(get_text(path))
    except FileNotFoundError as error:
        raise MissingFileError(
            f"Annotation file {path} does not exist (working directory {os.getcwd()}); expected a COCO JSON file. "
            "Check data_root and ann_file in the dataset config."
        ) from error
    except ValueError as error:  # broken JSON or no text at all
        raise InvalidValueError(
            f"Annotation file {path} is no JSON: {error}. Expected a complete COCO file; copy or write it again."
        ) from error
    lists = ("categories", "images", "annotations")
    missing = [key for key in lists if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        found = sorted(content) if isinstance(content, Mapping) else type(content).__name__
        raise InvalidValueError(
            f"Annotation file {path}: expected the lists categories, images and annotations, got {found}. Add "
            f"{', '.join(missing)}; files with images alone can be predicted, but not trained or tested on."
        )
    for kind, keys in (("categories", ("id", "name")), ("images", ("id", "file_name", "height", "width"))):
        for entry in content[kind]:
            require_keys(entry, keys, place=f"{path}, {kind}")
    file = CocoFile(
        path,
        _by_id(content["categories"], place=f"{path}, categories"),
        _by_id(content["images"], place=f"{path}, images"),
        content["annotations"],
    )
    for entry in file.annotations:
        require_keys(entry, ("image_id",), place=f"{path}, annotations")
        if entry["image_id"] not in file.images:
            raise InvalidValueError(
                f"{path}, annotations: expected the id of an image as image_id, got {entry['image_id']!r}. Add the "
                "image, or remove the annotation."
            )
    return file


def require_keys(entry: Mapping, keys: Sequence[str], *, place: str) -> None:
    """Raise ValueError unless the entry has all the keys."""
    missing = [key for key in keys if key not in entry]
    if missing:
        shown = ", ".join(f"{key}={entry[key]!r}" for key in ("id", "name", "file_name", "image_id") if key in entry)
        raise InvalidValueError(
            f"{place}: expected entries with {', '.join(keys)}, got one ({shown or sorted(entry)}) without "
            f"{', '.join(missing)}. Add what is missing."
        )


def class_of_category(file: CocoFile, classes: Sequence[str]) -> dict[int, int]:
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


def find_class(classes: Mapping[int, int], entry: Mapping, file: CocoFile) -> int | None:
    """The class of an annotation or segment; None where its category is not among the classes.

    Raises:
        ValueError: The file has no such category.
    """
    category = entry["category_id"]
    if category not in file.categories:
        raise InvalidValueError(
            f"{file.path}, {entry.get('image_id', 'segment')} {entry.get('id')}: expected the id of a category as "
            f"category_id ({sorted(file.categories)[:8]} …), got {category!r}. Add the category, or correct the id."
        )
    return classes.get(category)


def palette_of(file: CocoFile, classes: Sequence[str]) -> list[tuple[int, ...]] | None:
    """The colours that the file gives its categories, in the order of the classes; None unless it has all."""
    colours = {str(c["name"]): tuple(c["color"]) for c in file.categories.values() if "color" in c}
    return [colours[name] for name in classes] if all(name in colours for name in classes) else None


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


def _by_id(entries: Sequence[Mapping], *, place: str) -> dict[int, Mapping]:
    found = {entry["id"]: entry for entry in entries}
    if len(found) < len(entries):
        ids = [entry["id"] for entry in entries]
        repeated = sorted({i for i in found if ids.count(i) > 1})[:8]
        raise InvalidValueError(f"{place}: expected each id once, got {repeated} repeatedly. Number the entries anew.")
    return found
