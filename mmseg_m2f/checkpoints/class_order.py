"""Orders of classes that differ between the layouts, as rows of the class layer."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

ClassOrder = Literal["ade20k-panoptic", "coco-detection"]

#: ADE20K's 150 semantic classes that panoptic segmentation counts as stuff.
# fmt: off
_ADE20K_STUFF = (
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59,
    60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
)
#: COCO's category ids below 91 that no object has; DETR's class layer has rows for them.
_COCO_UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# fmt: on
_CLASS_LAYER = "decode_head.query_decoder.cls_embed."


def openmmlab_rows(order: ClassOrder) -> list[int]:
    """Rows of the authors' class layer in the order of OpenMMLab's, "no object" last.

    ADE20K: things, then stuff. COCO detection: the 80 categories that exist.
    """
    if order == "ade20k-panoptic":
        return [*(i for i in range(150) if i not in _ADE20K_STUFF), *_ADE20K_STUFF, 150]
    return [i for i in range(92) if i not in _COCO_UNUSED]


def unused_rows(order: ClassOrder) -> list[int]:
    """Rows that only the authors' class layer has."""
    return list(_COCO_UNUSED) if order == "coco-detection" else []


def is_class_layer(name: str) -> bool:
    """Whether a name of ours is the class layer's."""
    return name.startswith(_CLASS_LAYER)


def reorder_classes(weights: Mapping[str, Tensor], order: ClassOrder, *, to_openmmlab: bool) -> dict[str, Tensor]:
    """Our weights with the rows of the class layer as OpenMMLab has them, or as the authors have them.

    Raises:
        ValueError: the class layer has another number of rows, or the authors' has rows that ours cannot fill.
    """
    index = openmmlab_rows(order)
    unused = unused_rows(order)
    if unused and not to_openmmlab:
        raise InvalidValueError(
            f"{order} takes {len(index)} of the authors' {len(index) + len(unused)} rows of the class layer; the "
            "others are not known here. Expected a conversion to OpenMMLab; leave out the permutation."
        )
    rows = torch.tensor(index)
    if not to_openmmlab:
        rows = rows.argsort()
    reordered = dict(weights)
    for name in filter(is_class_layer, weights):
        if len(weights[name]) != len(index) + len(unused):
            raise InvalidValueError(
                f"The class layer has {len(weights[name])} rows, but {order} has {len(index) + len(unused) - 1} "
                'classes and "no object". Expected a checkpoint of that data set; leave out the permutation for others.'
            )
        reordered[name] = weights[name][rows]
    return reordered
