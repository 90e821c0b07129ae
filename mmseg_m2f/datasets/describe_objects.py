"""Objects of our pipelines as mmdet's own models read them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmseg_m2f.core.postprocess import tight_boxes
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.structures import IGNORE_INDEX


@TRANSFORMS.register_module()
class DescribeObjects(BaseTransform):
    """Objects in the form that mmdet's own models load and report; belongs right before `mmdet.PackDetInputs`.

    Where `gt_masks` is a tensor (G H W, of `SegmentsToObjects`), `instances` lists the objects with tight box,
    run-length mask, label and ignore flag, and `ori_shape` becomes the masks' size: `mmdet.LoadAnnotations` makes
    boxes and masks of mmdet's classes out of that. `img_id` and `scale_factor` are set where nothing has set them.

    Args:
        class_order: the data's classes in the order of the model; labels and label map then hold indices into it.
    """

    def __init__(self, class_order: Sequence[int] | None = None) -> None:
        self.model_labels = None
        if class_order is not None:
            self.model_labels = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.uint8)
            self.model_labels[list(class_order)] = np.arange(len(class_order))

    def transform(self, results: dict) -> dict:
        """The sample with `instances`."""
        results.setdefault("img_id", results.get("sample_idx", 0))
        results.setdefault("scale_factor", (1.0, 1.0))
        if isinstance(results.get("gt_masks"), torch.Tensor):
            if self.model_labels is not None:
                results["gt_bboxes_labels"] = self.model_labels[results["gt_bboxes_labels"]].astype(np.int64)
                results["gt_seg_map"] = self.model_labels[results["gt_seg_map"]]
            results["instances"] = _instances(results)
            results["ori_shape"] = tuple(results["gt_masks"].shape[1:])
        return results


def _instances(results: Mapping) -> list[dict[str, object]]:
    from pycocotools import mask as run_lengths  # comes with mmdet, without which no model finds objects

    masks = results["gt_masks"]
    codes = run_lengths.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8)))
    parts = (codes, tight_boxes(masks).tolist(), results["gt_bboxes_labels"], results["gt_ignore_flags"])
    return [
        dict(
            bbox=box,
            bbox_label=int(label),
            ignore_flag=int(ignored),
            mask=dict(size=code["size"], counts=code["counts"].decode()),
        )
        for code, box, label, ignored in zip(*parts, strict=True)
    ]
