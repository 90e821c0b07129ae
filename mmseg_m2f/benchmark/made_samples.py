"""Data samples of label maps, as the pipelines of semantic and of instance segmentation would pack them."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmseg_m2f.core.postprocess import tight_boxes
from mmseg_m2f.datasets.compact_segments import CompactSegments


def make_samples(label_maps: Int[Tensor, "B H W"] | Tensor) -> list[BaseDataElement]:
    """Samples whose labels are the given maps, of images without padding."""
    return [
        BaseDataElement(gt_sem_seg=PixelData(data=label_map.unsqueeze(0)), metainfo=_sizes(label_map))
        for label_map in label_maps
    ]


def make_object_samples(label_maps: Int[Tensor, "B H W"], classes: Sequence[Sequence[int]]) -> list[BaseDataElement]:
    """Samples whose objects are the classes of the given maps, on the maps' device.

    They hold what data workers prepare: mmdet's `gt_instances` with `labels` and `bboxes` (x1 y1 x2 y2 in pixels, the
    last row and column included), and for this package's detectors the `gt_segments` of `datasets.CompactSegments`.

    Args:
        classes: of each map; its objects stand in this order.
    """
    samples = []
    for label_map, present in zip(label_maps, classes, strict=True):
        labels = torch.tensor(present, device=label_map.device)
        masks = label_map == labels[:, None, None]
        instances = InstanceData(labels=labels, bboxes=tight_boxes(masks), masks=masks)
        sample = BaseDataElement(gt_instances=instances, metainfo=_sizes(label_map))
        samples.append(CompactSegments().transform(dict(data_samples=sample))["data_samples"])
    return samples


def _sizes(label_map: Tensor) -> dict[str, tuple[int, int]]:
    height, width = label_map.shape
    return dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (height, width))
