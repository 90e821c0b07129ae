"""Replaces the mask of each object by one segment map per image, in the data worker."""

import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.samples import read_segments_target

_NUM_CLASSES = 2**15  # more than any data set has: the model, which knows its own, checks labels when it reads them


@TRANSFORMS.register_module()
class CompactSegments(BaseTransform):
    """Turns the masks of a packed sample of mmdet into one map of segments; belongs right after mmdet's packing.

    The sample gets `gt_segments` with `segment_map` (S H W, int16), `labels` and `boxes`, as `MaskTarget` describes
    them, and loses the dense masks and the label map that they were made of. So a training step neither moves a mask
    per object to the device nor waits for the device to learn how many segments an image has. For training alone:
    metrics need the masks.

    A label map needs `stuff_classes` in the sample's metainfo: `SegmentsToObjects` finds them, and
    `mmdet.PackDetInputs` takes them along if its `meta_keys` name them.

    Raises:
        ValueError: a label map without `stuff_classes`; names the image.
    """

    def transform(self, results: dict) -> dict:
        sample = results["data_samples"]
        is_thing = torch.ones(_NUM_CLASSES, dtype=torch.bool)
        if "gt_sem_seg" in sample:
            is_thing[list(_stuff_classes(sample))] = False
        target = read_segments_target(sample, is_thing, with_boxes=True)
        sample.gt_segments = BaseDataElement(
            labels=target.labels, segment_map=target.segment_map.short(), boxes=target.boxes
        )
        sample.set_metainfo(dict(segment_labels=tuple(target.labels.tolist())))
        for dense in ("gt_sem_seg", "ignored_instances"):
            if dense in sample:
                delattr(sample, dense)
        del sample.gt_instances.masks
        return results


def _stuff_classes(sample: BaseDataElement) -> tuple[int, ...]:
    if "stuff_classes" not in sample.metainfo:
        raise InvalidValueError(
            f"{sample.metainfo.get('img_path')}: CompactSegments expected the stuff classes of the labels, got none. "
            "Put mmseg_m2f.SegmentsToObjects before the packing and stuff_classes into the meta_keys of "
            "mmdet.PackDetInputs, or leave CompactSegments out."
        )
    return sample.metainfo["stuff_classes"]
