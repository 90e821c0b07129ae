"""Objects in COCO's format: polygons or run lengths in a JSON file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import ClassVar

from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path

from mmseg_m2f.datasets.coco_files import (
    class_of_category,
    find_class,
    keep_useful,
    palette_of,
    read_coco,
    report,
    require_keys,
)
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import DATASETS


@DATASETS.register_module()
class CocoInstance(BaseDataset):
    """Images with objects, whose masks `mmdet.LoadAnnotations` draws.

    Classes are the file's categories in the file's order, or those that `metainfo.classes` lists, in that order.
    `area` is not read; where `bbox` is missing, it is that of the polygons.
    Crowds are ignored objects. What is left out goes to the log: objects of other categories, and objects without a
    polygon of three points or more.

    Args:
        ann_file: The JSON file.
        data_root: Put before `ann_file` and the folders.
        data_prefix: `img_path`, the folder of images; with `seg_map_path`, each sample has a semantic label map as
            well: the file there with the image's name and the suffix `.png`.
        metainfo: `classes` restricts or orders the classes; anything else is added to the dataset's own.
        drop_empty: Train without images that have no object but crowds.
        min_size: Train without images that have a side below this many pixels.

    Raises:
        FileNotFoundError: `ann_file` is missing.
        ValueError: The file is broken (see `read_coco`), or a mask is not of the image's size.
    """

    finds_classes_by_name: ClassVar[bool] = True  # `metainfo.classes` decides the numbers
    _metainfo: dict  # mmengine keeps there what its property `metainfo` gives

    def __init__(
        self,
        ann_file: str,
        *,
        data_root: str = "",
        data_prefix: Mapping[str, str],
        metainfo: Mapping | None = None,
        drop_empty: bool = False,
        min_size: int = 0,
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence[Mapping | Callable[[dict], dict | None]] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.drop_empty = drop_empty
        self.min_size = min_size
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            indices=indices,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """One entry per image; `instances` has what `mmdet.LoadAnnotations` reads."""
        file = read_coco(self.ann_file)
        names = tuple(self._metainfo.get("classes") or file.class_names())
        classes = class_of_category(file, names)
        palette = palette_of(file, names)
        self._metainfo = {
            **({} if palette is None else dict(palette=palette)),
            **self._metainfo,
            "classes": names,
            "thing_ids": tuple(range(len(names))),
            "stuff_ids": (),
        }
        instances: dict[int, list[dict]] = {image_id: [] for image_id in file.images}
        outside, shapeless = [], []
        for annotation in file.annotations:
            require_keys(annotation, ("category_id", "segmentation"), place=f"{file.path}, annotations")
            category = find_class(classes, annotation, file)
            image = file.images[annotation["image_id"]]
            place = f"{file.path}, image {image['file_name']}, annotation {annotation.get('id')}"
            mask = _read_mask(annotation["segmentation"], image, place)
            if category is None:
                outside.append(annotation.get("id"))
            elif mask is None:
                shapeless.append(annotation.get("id"))
            else:
                box, crowd = _read_box(annotation, mask, place), bool(annotation.get("iscrowd", 0))
                instances[image["id"]].append(dict(bbox=box, bbox_label=category, mask=mask, ignore_flag=int(crowd)))
        report(file.path, "objects left out: their categories are not in metainfo.classes", outside)
        report(file.path, "objects left out: no polygon of three points or more", shapeless)
        return [self._sample(image, instances[image_id]) for image_id, image in file.images.items()]

    def filter_data(self) -> list[dict]:
        """The samples to train on; all of them in `test_mode`."""
        if self.test_mode:
            return self.data_list
        is_empty = [all(instance["ignore_flag"] for instance in sample["instances"]) for sample in self.data_list]
        return keep_useful(
            self.data_list, path=self.ann_file, is_empty=is_empty, drop_empty=self.drop_empty, min_size=self.min_size
        )

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes of a sample's objects, as `mmengine.ClassBalancedDataset` asks for them; crowds have none."""
        return [i["bbox_label"] for i in self.get_data_info(idx)["instances"] if not i["ignore_flag"]]

    def _sample(self, image: Mapping, instances: list[dict]) -> dict:
        sample = dict(
            img_path=join_path(self.data_prefix["img_path"], image["file_name"]),
            img_id=image["id"],
            height=image["height"],
            width=image["width"],
            instances=instances,
            seg_fields=[],
        )
        if "seg_map_path" in self.data_prefix:
            name = str(PurePath(image["file_name"]).with_suffix(".png"))
            sample["seg_map_path"] = join_path(self.data_prefix["seg_map_path"], name)
        return sample


def _read_mask(mask: object, image: Mapping, place: str) -> list | Mapping | None:
    """Polygons or run lengths; None where no polygon has an area."""
    if isinstance(mask, Mapping):
        require_keys(mask, ("size", "counts"), place=f"{place}, segmentation")
        if list(mask["size"]) != [image["height"], image["width"]]:
            raise InvalidValueError(
                f"{place}: expected run lengths of the image's size (height, width) "
                f"{[image['height'], image['width']]}, got {list(mask['size'])}. Encode the mask anew from one of "
                "that size, or correct height and width of the image."
            )
        return mask
    if not isinstance(mask, list) or any(not isinstance(part, list) or len(part) % 2 for part in mask):
        raise InvalidValueError(
            f"{place}: expected segmentation as a list of polygons [[x1, y1, x2, y2, ...], ...] or run lengths, got "
            f"{str(mask)[:60]}. Write each polygon as a list of its own, with as many x as y."
        )
    return [part for part in mask if len(part) >= 6] or None


def _read_box(annotation: Mapping, mask: list | Mapping, place: str) -> list:
    """Left, top, right, bottom, of the annotation or around its polygons."""
    x, y, width, height = annotation.get("bbox") or (0, 0, 0, 0)
    if min(width, height) > 0:
        return [x, y, x + width, y + height]
    if isinstance(mask, Mapping):
        raise InvalidValueError(
            f"{place}: expected bbox=[left, top, width, height] beside run lengths, got {annotation.get('bbox')}. "
            "Add the box."
        )
    xs, ys = ([value for part in mask for value in part[axis::2]] for axis in (0, 1))
    return [min(xs), min(ys), max(xs), max(ys)]
