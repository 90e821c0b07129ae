"""Objects and stuff of a segment map, under the names that mmdet's transforms use."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmseg_m2f.registry import TRANSFORMS

_VOID = 255


@TRANSFORMS.register_module()
class SegmentsToObjects(BaseTransform):
    """Splits a segment map into the masks of things and a semantic map; belongs right before `mmdet.PackDetInputs`.

    Reads `gt_seg_map` (H W, index into `segments`, 255 void) and `segments`. Adds `gt_masks` (tensor G H W, one per
    thing that is still visible), `gt_bboxes_labels` (G) and `gt_ignore_flags`; `gt_seg_map` becomes the semantic map
    with void 255.
    """

    def transform(self, results: dict) -> dict:
        segment_map, segments = results["gt_seg_map"], results["segments"]
        categories = np.full(_VOID + 1, _VOID, dtype=np.int64)
        categories[: len(segments)] = [segment.category for segment in segments]
        present = np.unique(segment_map)
        things = [index for index in present[present < len(segments)] if segments[index].is_thing]
        masks = segment_map == np.asarray(things, dtype=segment_map.dtype)[:, None, None]
        results["gt_masks"] = torch.from_numpy(masks)
        results["gt_bboxes_labels"] = categories[things].reshape(-1)
        results["gt_ignore_flags"] = np.zeros(len(things), dtype=bool)
        results["gt_seg_map"] = categories[segment_map]
        return results
