"""Panoptic data in COCO's format: a JSON file that lists segments, and PNGs that say where they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import ClassVar

from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path

from mmseg_m2f.datasets.coco_files import (
    CocoFile,
    class_of_category,
    describe_classes,
    find_class,
    is_text,
    keep_useful,
    read_coco,
    read_flag,
    refuse_filter,
    report,
    require_images,
    require_keys,
)
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import DATASETS
from mmseg_m2f.structures import IGNORE_INDEX


@DATASETS.register_module()
class CocoPanoptic(BaseDataset):
    """Images with a segment id for each pixel. `LoadPanoptic` reads the ids.

    Classes are numbered without gaps: things first, then stuff, each in the file's order; or all in the file's order;
    or as `metainfo.classes` lists them. `metainfo` gets `classes`, `thing_ids`, `stuff_ids`, and `palette` where the
    file has colours. Segments of categories that `metainfo.classes` leaves out are void. An image without an entry in
    `annotations` is left out; the log says how many are.

    Args:
        ann_file: The JSON file.
        data_prefix: `img_path` and `seg_map_path`, the folders of images and PNGs. The PNG's name is the annotation's
            `file_name`, or the image's with the suffix `.png`.
        thing_classes: Names of the countable classes, for files whose categories do not say so (`isthing`).
        things_first: Number the classes as mmdet does. False keeps the file's order.
        things_only: `metainfo` names the things alone, for a model of objects. Their numbers then are 0, 1, 2 and so
            on, those of stuff come after; `SegmentsToObjects(thing_classes=...)` makes stuff background.
        drop_empty: Train without images that have nothing but void and crowds (with `things_only`, and stuff).
        min_size: Train without images that have a side below this many pixels.
        options: Of mmengine's `BaseDataset`: `data_root`, put before `ann_file` and the folders; `metainfo`, whose
            `classes` restricts or orders the classes, and whose other entries are added to the data set's own;
            `pipeline`, `indices`, `test_mode` … `filter_cfg` is refused: `drop_empty` and `min_size` do its work.

    Raises:
        FileNotFoundError: `ann_file` is missing.
        ValueError: The file is broken, or does not say which classes are things; see `read_coco`.
    """

    finds_classes_by_name: ClassVar[bool] = True  # `metainfo.classes` decides the numbers
    _metainfo: dict  # mmengine keeps there what its property `metainfo` gives

    def __init__(
        self,
        ann_file: str,
        *,
        data_prefix: Mapping[str, str],
        thing_classes: Sequence[str] | None = None,
        things_first: bool = True,
        things_only: bool = False,
        drop_empty: bool = False,
        min_size: int = 0,
        **options: object,
    ) -> None:
        self.thing_classes = thing_classes
        self.things_first = things_first
        self.things_only = things_only
        self.drop_empty = drop_empty
        self.min_size = min_size
        super().__init__(ann_file, data_prefix=dict(data_prefix), **options)

    def load_data_list(self) -> list[dict]:
        """One entry per annotated image; `segments_info` lists (id, class, is thing, is crowd)."""
        refuse_filter(self.filter_cfg, self.ann_file)
        file = read_coco(self.ann_file)
        things = self._thing_names(file)
        names = list(self._metainfo.get("classes") or file.class_names())
        if self.things_only or (self.things_first and "classes" not in self._metainfo):
            names.sort(key=lambda name: name not in things)
        classes = class_of_category(file, names)
        self._set_metainfo(file, names, things)
        _check_entries(file)
        data_list, outside, merged, ordinary = [], [], [], []
        for annotation in file.annotations:
            image = file.images[annotation["image_id"]]
            place = f"{file.path}, image {image['file_name']}"
            segments = []
            for info in _listed_segments(annotation, file, place):
                category = self._category(info, classes, file)
                if category is None:
                    outside.append(info["id"])
                is_thing = category is not None and names[category] in things
                crowd = read_flag(info, "iscrowd", place)
                label = IGNORE_INDEX if category is None else category
                segments.append((int(info["id"]), label, is_thing, crowd and is_thing))
                if crowd and category is not None and not is_thing:
                    ordinary.append(info["id"])
            _check_ids(segments, place)
            stuff = Counter(category for _, category, is_thing, _ in segments if not is_thing)
            merged += [f"{names[c]} of {image['file_name']}" for c, n in stuff.items() if n > 1 and c != IGNORE_INDEX]
            data_list.append(self._sample(image, _mask_name(annotation, image, place), segments))
        require_images(data_list, file, need="with an entry in `annotations`")
        annotated = {annotation["image_id"] for annotation in file.annotations}
        bare = [image["file_name"] for i, image in file.images.items() if i not in annotated]
        report(file.path, "images left out: no entry in annotations", bare)
        report(file.path, "stuff classes listed as several segments of an image, merged into one", merged)
        report(file.path, "segments of stuff with iscrowd=1, which is for things and changes nothing here", ordinary)
        report(file.path, "segments are void: their categories are not in metainfo.classes", outside)
        return data_list

    def filter_data(self) -> list[dict]:
        """The samples to train on; all of them in `test_mode`."""
        if self.test_mode:
            return self.data_list
        is_empty = [
            all(
                category == IGNORE_INDEX or crowd or (self.things_only and not is_thing)
                for _, category, is_thing, crowd in sample["segments_info"]
            )
            for sample in self.data_list
        ]
        return keep_useful(
            self.data_list, path=self.ann_file, is_empty=is_empty, drop_empty=self.drop_empty, min_size=self.min_size
        )

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes of a sample's segments, as `mmengine.ClassBalancedDataset` asks for them.

        Void, crowds, and stuff where the classes are things alone, have none.
        """
        return [
            category
            for _, category, is_thing, crowd in self.get_data_info(idx)["segments_info"]
            if category != IGNORE_INDEX and not crowd and (is_thing or not self.things_only)
        ]

    def _thing_names(self, file: CocoFile) -> set[str]:
        names = file.class_names()
        if self.thing_classes is not None:
            unknown = [name for name in self.thing_classes if name not in names]
            if unknown:
                raise InvalidValueError(
                    f"{file.path}: expected the names of categories as thing_classes, got {unknown}. It has: {names}."
                )
            return set(self.thing_classes)
        silent = [name for name, entry in zip(names, file.categories.values(), strict=True) if "isthing" not in entry]
        if silent:
            raise InvalidValueError(
                f"{file.path}, categories: expected isthing (1 for countable things, 0 for stuff) in each, got "
                f"{silent[:8]} without it. Add it to the file, or name the things in the dataset config: "
                "thing_classes=[...]."
            )
        place = f"{file.path}, categories"
        return {str(entry["name"]) for entry in file.categories.values() if read_flag(entry, "isthing", place)}

    def _set_metainfo(self, file: CocoFile, names: Sequence[str], things: set[str]) -> None:
        if self.things_only:
            names = [name for name in names if name in things]
        if len(names) > IGNORE_INDEX:
            raise InvalidValueError(
                f"{file.path}: expected at most {IGNORE_INDEX} classes, because {IGNORE_INDEX} is void in label "
                "maps, got "
                f"{len(names)}. Restrict them with metainfo=dict(classes=[...])."
            )
        self._metainfo = describe_classes(file, names, things=things, given=self._metainfo)

    def _sample(self, image: Mapping, mask_name: str, segments: list[tuple[int, int, bool, bool]]) -> dict:
        return dict(
            img_path=join_path(self.data_prefix["img_path"], image["file_name"]),
            seg_map_path=join_path(self.data_prefix["seg_map_path"], mask_name),
            img_id=image["id"],
            height=image["height"],
            width=image["width"],
            segments_info=segments,
            seg_fields=[],
            reduce_zero_label=False,
        )

    @staticmethod
    def _category(info: object, classes: Mapping[int | str, int], file: CocoFile) -> int | None:
        require_keys(info, ("id", "category_id"), place=f"{file.path}, segments_info")
        assert isinstance(info, Mapping)
        if type(info["id"]) is not int:
            raise InvalidValueError(
                f"{file.path}, segments_info: expected an integer as id, got {str(info['id'])[:60]!r}. Number the "
                "segments anew, in the PNG as well."
            )
        return find_class(classes, info, file)


def _check_entries(file: CocoFile) -> None:
    numbers = Counter(annotation["image_id"] for annotation in file.annotations)
    repeated = [i for i, number in numbers.items() if number > 1][:8]
    if repeated:
        raise InvalidValueError(
            f"{file.path}, annotations: expected one entry for each image, got several for the images {repeated}. Put "
            "all segments of an image into one entry."
        )


def _listed_segments(annotation: Mapping, file: CocoFile, place: str) -> list:
    require_keys(annotation, ("segments_info",), place=f"{file.path}, annotations")
    infos = annotation["segments_info"]
    if not isinstance(infos, list):
        raise InvalidValueError(
            f"{place}: expected segments_info as a list, got {str(infos)[:60]}. Write one entry for each segment."
        )
    return infos


def _mask_name(annotation: Mapping, image: Mapping, place: str) -> str:
    """The name of an image's PNG: the annotation's, or that of the image with another suffix."""
    name = annotation.get("file_name") or str(PurePath(image["file_name"]).with_suffix(".png"))
    if not is_text(name):
        raise InvalidValueError(
            f"{place}: expected the name of a PNG as file_name of its annotation, got {str(name)[:60]}. Correct or "
            "remove it."
        )
    return name


def _check_ids(segments: Sequence[tuple[int, int, bool, bool]], place: str) -> None:
    numbers = Counter(segment[0] for segment in segments)
    wrong = [i for i, number in numbers.items() if number > 1 or not 0 < i < 256**3]
    if wrong:
        raise InvalidValueError(
            f"{place}: expected each segment id once and in 1…{256**3 - 1} (0 is void), got {sorted(wrong)[:8]}. "
            "Number the segments anew, in the PNG as well."
        )
