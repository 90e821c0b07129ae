"""Orders of classes that differ between the layouts, as rows of the class layer."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

ClassOrder = Literal["ade20k-panoptic"]

#: ADE20K's 150 semantic classes that panoptic segmentation counts as stuff.
# fmt: off
_ADE20K_STUFF = (
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59,
    60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
)
# fmt: on
_CLASS_LAYER = "decode_head.query_decoder.cls_embed."


def things_first(order: ClassOrder) -> list[int]:
    """Indices that take the authors' order, which is that of the semantic classes, to mmdet's: things, then stuff."""
    num_classes, stuff = {"ade20k-panoptic": (150, _ADE20K_STUFF)}[order]
    return [*(i for i in range(num_classes) if i not in stuff), *stuff]


def reorder_classes(weights: Mapping[str, Tensor], order: ClassOrder, *, to_things_first: bool) -> dict[str, Tensor]:
    """Our weights with the rows of the class layer in the other order; "no object" stays last.

    Raises:
        ValueError: the class layer has another number of rows.
    """
    index = things_first(order)
    rows = torch.tensor([*index, len(index)])
    if not to_things_first:
        rows = rows.argsort()
    reordered = dict(weights)
    for name in weights:
        if name.startswith(_CLASS_LAYER):
            if len(weights[name]) != len(rows):
                raise ValueError(
                    f"The class layer has {len(weights[name])} rows, but {order} has {len(index)} classes and "
                    '"no object". Expected a checkpoint of that data set; leave out the permutation for others.'
                )
            reordered[name] = weights[name][rows]
    return reordered
