"""Detected and true objects of one image, and the IoU of each pair."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from mmengine.evaluator import BaseMetric

from mmseg_m2f.core.cropped_masks import CroppedMasks, crop_masks
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.boundary import boundary_regions
from mmseg_m2f.evaluation.sample_fields import (
    check_sizes,
    class_names,
    describe_sample,
    has_parts,
    read_field,
    read_masks,
)


class DetectedObjects(NamedTuple):
    """Objects a model found; `boxes` are top, left, bottom and right in pixels, where the sample has them."""

    labels: Int[np.ndarray, "N"]
    scores: Float[np.ndarray, "N"]
    masks: CroppedMasks
    boxes: Float[np.ndarray, "N 4"] | None = None


class TrueObjects(NamedTuple):
    """Objects of the annotation, then its crowds."""

    labels: Int[np.ndarray, "G"]
    is_crowd: Bool[np.ndarray, "G"]
    masks: CroppedMasks


def read_objects(sample: Mapping, num_classes: int, *, where: str) -> tuple[DetectedObjects, TrueObjects]:
    """The objects of a sample in mmdet's layout.

    It needs `pred_instances` (`labels` and `scores`: N, `masks`: N H W) and `gt_instances` (`labels`: G, `masks`:
    G H W, a tensor or mmdet's). `ignored_instances`, if they have masks, are crowds and need `labels` too.

    Args:
        where: How messages begin.

    Raises:
        ValueError: A field is missing, prediction and truth differ in size, or a class is out of range.
    """
    predicted = read_field(sample, "pred_instances", ("labels", "scores", "masks"), where=where)
    objects = read_field(sample, "gt_instances", ("labels", "masks"), where=where)
    parts = [(objects.labels, read_masks(objects))]
    if has_parts(sample, "ignored_instances", ("masks",)):
        crowds = read_field(sample, "ignored_instances", ("labels", "masks"), where=where)
        parts.append((crowds.labels, read_masks(crowds)))
    masks = crop_masks(torch.cat([masks.cpu() for _, masks in parts]).numpy())
    is_crowd = np.arange(len(masks)) >= len(objects.labels)
    true = TrueObjects(torch.cat([labels.cpu() for labels, _ in parts]).long().numpy(), is_crowd, masks)
    detected = DetectedObjects(
        predicted.labels.long().cpu().numpy(),
        predicted.scores.double().cpu().numpy(),
        crop_masks(read_masks(predicted).cpu().numpy()),
        predicted.bboxes.double().cpu().numpy()[:, [1, 0, 3, 2]] if "bboxes" in predicted else None,
    )
    check_sizes(detected.masks.size, true.masks.size, where=where)
    _check_classes(detected.labels, num_classes, what="predicted objects", where=where)
    _check_classes(true.labels, num_classes, what="true objects", where=where)
    return detected, true


def read_all_objects(metric: BaseMetric, samples: Sequence[Mapping]) -> Iterator[tuple[DetectedObjects, TrueObjects]]:
    """What `read_objects` reads from each sample of a metric's batch.

    Raises:
        ValueError: As `read_objects` does, and where the data set has no classes. The message names metric and sample.
    """
    num_classes = len(class_names(metric))
    for sample in samples:
        yield read_objects(sample, num_classes, where=describe_sample(metric, sample))


def object_ious(detected: DetectedObjects, true: TrueObjects, *, boundary: bool = False) -> Float[np.ndarray, "N G"]:
    """IoU of each detected with each true object; for a crowd the share of the detected one that lies in it.

    Zero for objects of different classes and for masks without pixels.

    Args:
        boundary: Give the smaller of mask IoU and Boundary IoU (arXiv 2103.16562, section 5), crowds excepted.
    """
    same_class = detected.labels[:, None] == true.labels
    ious = _mask_ious(detected.masks, true.masks, same_class=same_class, is_crowd=true.is_crowd)
    if not boundary:
        return ious
    regions = (boundary_regions(objects.masks) for objects in (detected, true))
    near_edges = _mask_ious(*regions, same_class=same_class, is_crowd=true.is_crowd)
    return np.where(true.is_crowd, ious, np.minimum(ious, near_edges))


def box_ious(boxes: Float[np.ndarray, "N 4"], detected: DetectedObjects, true: TrueObjects) -> Float[np.ndarray, "N G"]:
    """IoU of the box of each detected object with the box around each true one; for a crowd the share of the former.

    Zero for objects of different classes.
    """
    true_boxes = true.masks.boxes
    sides = np.minimum(boxes[:, None, 2:], true_boxes[:, 2:]) - np.maximum(boxes[:, None, :2], true_boxes[:, :2])
    common = sides.clip(min=0).prod(-1) * (detected.labels[:, None] == true.labels)
    union = box_areas(boxes)[:, None] + np.where(true.is_crowd, 0, box_areas(true_boxes) - common)
    return np.divide(common, union, out=np.zeros(common.shape), where=common > 0)


def box_areas(boxes: Float[np.ndarray, "N 4"] | Int[np.ndarray, "N 4"]) -> Float[np.ndarray, "N"]:
    """Areas of boxes given as top, left, bottom and right."""
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(-1).astype(float)


def _check_classes(labels: Int[np.ndarray, "_"], num_classes: int, *, what: str, where: str) -> None:
    wrong = sorted({*labels.tolist()} - {*range(num_classes)})
    if wrong:
        raise InvalidValueError(
            f"{where}: expected {what} of classes 0…{num_classes - 1}, got {wrong}. Check the dataset's classes, the "
            "annotation and the head's num_classes."
        )


def _mask_ious(
    detected: CroppedMasks,
    true: CroppedMasks,
    *,
    same_class: Bool[np.ndarray, "N G"],
    is_crowd: Bool[np.ndarray, "G"],
) -> Float[np.ndarray, "N G"]:
    common = detected.shared_pixels(true, same_class)
    union = detected.areas()[:, None] + np.where(is_crowd, 0, true.areas() - common)
    return np.divide(common, union, out=np.zeros(common.shape), where=common > 0)
