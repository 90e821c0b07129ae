"""Data samples, mmseg's or mmdet's, to predictions as arrays."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from numpy.typing import NDArray

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET, tight_boxes
from mmseg_m2f.predictions.image_result import ImageResult, Objects
from mmseg_m2f.samples import dense_masks
from mmseg_m2f.structures import IGNORE_INDEX


def read_result(sample: BaseDataElement) -> ImageResult | None:
    """`pred_panoptic_seg`, `pred_instances` and `pred_sem_seg`, as far as the sample has them; None without any.

    With `pred_certainty`, and `confidences` of `pred_instances`, if there are any.
    """
    semantic = _read_semantic(sample, "pred_sem_seg")
    panoptic = _read_map(sample, "pred_panoptic_seg")
    objects = _read_objects(sample.get("pred_instances"))
    result = _image_result(sample, semantic, panoptic, objects)
    if result is None or "pred_certainty" not in sample:
        return result
    certainty = sample.pred_certainty
    confidence, unknown = (values[0].cpu().numpy() for values in (certainty.confidence, certainty.unknown))
    return result._replace(confidence=confidence, unknown=unknown)


def read_truth(sample: BaseDataElement, num_classes: int) -> ImageResult | None:
    """The annotation in the form of a perfect prediction; None without any.

    The panoptic map shows the objects of `gt_instances` in front of `gt_sem_seg`; an object that others cover keeps
    what they leave of it, the first being in front.
    """
    semantic = _read_semantic(sample, "gt_sem_seg")
    objects = _read_objects(sample.get("gt_instances"))
    panoptic = None
    if objects is not None and objects.masks is not None:
        panoptic = np.full(objects.masks.shape[1:], num_classes)
        if semantic is not None:
            panoptic = np.minimum(semantic, num_classes)
        for index in reversed(range(len(objects.labels))):
            panoptic[objects.masks[index]] = objects.labels[index] + INSTANCE_OFFSET * (index + 1)
    return _image_result(sample, semantic, panoptic, objects)


def _image_result(
    sample: BaseDataElement,
    semantic: NDArray[np.int64] | None,
    panoptic: NDArray[np.int64] | None,
    objects: Objects | None,
) -> ImageResult | None:
    sizes = [labels.shape for labels in (panoptic, semantic) if labels is not None]
    if objects is not None:
        sizes.append(sample.metainfo["ori_shape"][:2] if objects.masks is None else objects.masks.shape[1:])
    if not sizes:
        return None
    height, width = sizes[0]
    return ImageResult((int(height), int(width)), semantic, panoptic, objects)


def _read_semantic(sample: BaseDataElement, key: str) -> NDArray[np.int64] | None:
    labels = _read_map(sample, key)
    return None if labels is None else np.where(labels < 0, IGNORE_INDEX, labels)


def _read_map(sample: BaseDataElement, key: str) -> NDArray[np.int64] | None:
    """H W label map; mmseg calls it `data`, mmdet `sem_seg`."""
    if key not in sample:
        return None
    pixels = sample.get(key)
    labels = pixels.sem_seg if "sem_seg" in pixels else pixels.data
    return (labels[0] if labels.ndim == 3 else labels).cpu().numpy().astype(np.int64)


def _read_objects(instances: InstanceData | None) -> Objects | None:
    """The objects with the highest score first; None where the sample says nothing about objects."""
    if instances is None or "labels" not in instances or not {"masks", "bboxes"} & set(instances.keys()):
        return None
    masks = dense_masks(instances, torch.device("cpu")) if "masks" in instances else None
    boxes = tight_boxes(masks) if masks is not None and "bboxes" not in instances else instances.bboxes.cpu()
    labels = instances.labels.cpu().numpy().astype(np.int64)
    scores = instances.scores.cpu().float().numpy() if "scores" in instances else np.ones(len(labels), np.float32)
    confidences = instances.confidences.cpu().float().numpy() if "confidences" in instances else None
    order = np.argsort(-scores, kind="stable")
    return Objects(
        labels[order],
        scores[order],
        boxes.float().numpy()[order],
        None if masks is None else masks.numpy()[order],
        None if confidences is None else confidences[order],
    )
