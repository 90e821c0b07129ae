"""Objects in COCO's format: polygons or run lengths in a JSON file."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import ClassVar

from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path

from mmseg_m2f.datasets.coco_files import (
    class_of_category,
    describe_classes,
    find_class,
    keep_useful,
    read_coco,
    read_flag,
    refuse_filter,
    report,
    require_images,
    require_keys,
)
from mmseg_m2f.datasets.coco_masks import Box, check_mask
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import DATASETS

_LARGEST = 1e9  # of a coordinate: nothing beyond is in pixels, nor is NaN


@DATASETS.register_module()
class CocoInstance(BaseDataset):
    """Images with objects, whose masks `mmdet.LoadAnnotations` draws.

    Classes are the file's categories in the file's order, or those that `metainfo.classes` lists, in that order.
    `area` is not read; a `bbox` that is missing, or differs from the box around the mask by more than a pixel, is
    replaced by that one.
    Crowds are ignored objects. What is left out goes to the log: objects of other categories, and objects without a
    polygon of three points or more.

    Args:
        ann_file: The JSON file.
        data_prefix: `img_path`, the folder of images; with `seg_map_path`, each sample has a semantic label map as
            well: the file there with the image's name and the suffix `.png`.
        drop_empty: Train without images that have no object but crowds.
        min_size: Train without images that have a side below this many pixels.
        options: Of mmengine's `BaseDataset`: `data_root`, put before `ann_file` and the folders; `metainfo`, whose
            `classes` restricts or orders the classes, and whose other entries are added to the data set's own;
            `pipeline`, `indices`, `test_mode` … `filter_cfg` is refused: `drop_empty` and `min_size` do its work.

    Raises:
        FileNotFoundError: `ann_file` is missing.
        ValueError: The file is broken (see `read_coco`), or a mask is none of the image (see `check_mask`).
    """

    finds_classes_by_name: ClassVar[bool] = True  # `metainfo.classes` decides the numbers
    _metainfo: dict  # mmengine keeps there what its property `metainfo` gives

    def __init__(
        self,
        ann_file: str,
        *,
        data_prefix: Mapping[str, str],
        drop_empty: bool = False,
        min_size: int = 0,
        **options: object,
    ) -> None:
        self.drop_empty = drop_empty
        self.min_size = min_size
        super().__init__(ann_file, data_prefix=dict(data_prefix), **options)

    def load_data_list(self) -> list[dict]:
        """One entry per image; `instances` has what `mmdet.LoadAnnotations` reads."""
        refuse_filter(self.filter_cfg, self.ann_file)
        file = read_coco(self.ann_file)
        names = tuple(self._metainfo.get("classes") or file.class_names())
        classes = class_of_category(file, names)
        require_images(file.images, file, need="in `images`")
        self._metainfo = describe_classes(file, names, things=set(names), given=self._metainfo)
        instances: dict[int | str, list[dict]] = {image_id: [] for image_id in file.images}
        outside, shapeless, misplaced = [], [], []
        for annotation in file.annotations:
            require_keys(annotation, ("category_id", "segmentation"), place=f"{file.path}, annotations")
            category = find_class(classes, annotation, file)
            image = file.images[annotation["image_id"]]
            place = f"{file.path}, image {image['file_name']}, annotation {annotation.get('id')}"
            found = check_mask(annotation["segmentation"], (image["height"], image["width"]), place)
            crowd = read_flag(annotation, "iscrowd", place)
            if category is None:
                outside.append(annotation.get("id"))
            elif found is None:
                shapeless.append(annotation.get("id"))
            else:
                mask, mask_box = found
                box, is_own = _read_box(annotation, mask_box, place)
                if not is_own:
                    misplaced.append(annotation.get("id"))
                instances[image["id"]].append(dict(bbox=[*box], bbox_label=category, mask=mask, ignore_flag=int(crowd)))
        report(file.path, "objects left out: their categories are not in metainfo.classes", outside)
        report(file.path, "objects left out: no polygon of three points or more", shapeless)
        report(file.path, "boxes replaced by those around the masks, which lie elsewhere", misplaced)
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


def _read_box(annotation: Mapping, mask_box: Box, place: str) -> tuple[Box, bool]:
    """Left, top, right, bottom, and whether they are those of the annotation.

    A box that is missing, or differs from the one around the mask by more than a pixel, is replaced by it: crops and
    filters go by boxes, and would drop or keep the wrong objects.
    """
    box = annotation.get("bbox")
    if box is None:
        return mask_box, True
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(type(v) in (int, float) and abs(v) < _LARGEST for v in box)
    ):
        raise InvalidValueError(
            f"{place}: expected bbox=[left, top, width, height] in pixels, got {str(box)[:60]}. Correct or remove it; "
            "it is then taken from the mask."
        )
    left, top, width, height = map(float, box)
    corners = (left, top, left + width, top + height)
    if min(width, height) > 0 and max(abs(a - b) for a, b in zip(corners, mask_box, strict=True)) <= 1:
        return corners, True
    return mask_box, not any(box)
