"""Samples in mmdet's layout for metrics of objects, and boundary regions straight from their definition."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

Object = tuple[int, np.ndarray]  # class, mask
Detection = tuple[int, float, np.ndarray]  # class, score, mask


def object_sample(
    detections: list[Detection],
    objects: list[Object],
    crowds: list[Object] = (),
    *,
    size: tuple[int, int],
    path: str = "a/b.png",
) -> dict:
    element = DetDataSample(metainfo=dict(img_path=path, img_shape=(1, 1)))
    element.pred_instances = InstanceData(
        labels=torch.tensor([d[0] for d in detections], dtype=torch.long),
        scores=torch.tensor([d[1] for d in detections], dtype=torch.float32),
        masks=torch.from_numpy(stack([d[2] for d in detections], size)),
    )
    for name, group in (("gt_instances", objects), ("ignored_instances", crowds)):
        masks = BitmapMasks(stack([mask for _, mask in group], size).astype(np.uint8), *size)
        labels = torch.tensor([label for label, _ in group], dtype=torch.long)
        setattr(element, name, InstanceData(labels=labels, masks=masks))
    return element.to_dict()


def stack(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return np.stack([*masks, np.zeros(size, bool)])[: len(masks)]


def bar(start: int, stop: int, *, length: int = 20) -> np.ndarray:
    """1 × length: pixels in a row, with IoUs that are easy to read off."""
    mask = np.zeros((1, length), bool)
    mask[:, start:stop] = True
    return mask


def rectangle(top: int, left: int, height: int, width: int, *, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def looped_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixel by pixel: in the mask, and a pixel outside the mask or the image lies in the square around it."""
    region = np.zeros_like(mask)
    height, length = mask.shape
    for y, x in zip(*mask.nonzero(), strict=True):
        for dy in range(-width, width + 1):
            for dx in range(-width, width + 1):
                inside = 0 <= y + dy < height and 0 <= x + dx < length
                region[y, x] |= not inside or not mask[y + dy, x + dx]
    return region
