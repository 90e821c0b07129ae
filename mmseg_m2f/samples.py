"""Reading targets from data samples and writing predictions into them.

Works on the fields that mmseg's and mmdet's samples share, and imports neither library.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmseg_m2f.core.boxes import to_centres
from mmseg_m2f.core.confidence import Certainty
from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.targets import (
    boxes_of_segment_maps,
    frame,
    segments_of_label_maps,
    segments_of_masks,
    stack_targets,
)
from mmseg_m2f.core.transfer import upload
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, MaskTarget, TargetBatch


def read_targets(
    samples: Sequence[BaseDataElement], num_classes: int, *, ignore_index: int = 255, with_boxes: bool = False
) -> TargetBatch:
    """The semantic segments of a batch: one per class that the `gt_sem_seg` of an image holds, in order of the classes.

    Takes a fixed number of operators on the device, and uploads nothing.

    Args:
        with_boxes: also give the boxes around the segments, as fractions of the canvas.

    Raises:
        ValueError: a label is neither a class nor the ignore index; names the file and the label.
    """
    classes = [sorted(present_classes(sample, num_classes, ignore_index=ignore_index)) for sample in samples]
    label_maps = torch.stack([sample.gt_sem_seg.data for sample in samples]).squeeze(1).long()
    labels, segment_maps = segments_of_label_maps(
        label_maps,
        max(map(len, classes)),
        num_labels=max(num_classes, ignore_index + 1),
        ignore_index=ignore_index,
    )
    names = [sample_name(sample) for sample in samples]
    boxes = boxes_of_segment_maps(segment_maps, labels.shape[1]) if with_boxes else None
    return TargetBatch(labels, frame(segment_maps), [len(each) for each in classes], names, boxes, classes)


def present_classes(sample: BaseDataElement, num_classes: int, *, ignore_index: int | None = 255) -> list[int]:
    """The classes that the `gt_sem_seg` of a sample holds.

    `present_classes` in its metainfo (see `datasets.ListClasses`) spares the host from waiting for the device.

    Raises:
        ValueError: a label is neither a class nor the ignore index; names the file and the label.
    """
    present = sample.metainfo.get("present_classes")
    if present is None:  # the host has to wait for the device
        present = sample.gt_sem_seg.data.unique().tolist()
    classes = [label for label in present if label != ignore_index]
    wrong = [label for label in classes if not 0 <= label < num_classes]
    if wrong:
        file = sample.metainfo.get("seg_map_path") or sample_name(sample)
        or_ignored = "" if ignore_index is None else f" or {ignore_index} (ignored)"
        raise InvalidValueError(
            f"{file}: expected labels 0…{num_classes - 1}{or_ignored}, got {wrong}. "
            f"Fix the file, map labels with the dataset's label_map or reduce_zero_label, or set "
            f"decode_head.num_classes."
        )
    return classes


def read_segments_targets(
    samples: Sequence[BaseDataElement],
    is_thing: Bool[Tensor, "K"],
    *,
    with_boxes: bool = False,
    box_frame: str = "image",
) -> TargetBatch:
    """The segments of a batch; see `read_segments_target`.

    Where the data worker made `gt_segments`, an image costs three operators, which put it onto the canvas of the batch,
    and nothing is uploaded or read back.

    Args:
        with_boxes: also give the boxes.
        box_frame: what these are fractions of: the "image" without padding, or the padded "canvas" of the batch, which
            costs one upload.

    Raises:
        ValueError: a label is not a class; names the image and the label.
    """
    if not all("gt_segments" in sample for sample in samples):
        batch = stack_targets([read_segments_target(sample, is_thing, with_boxes=with_boxes) for sample in samples])
        return _in_frame(batch, samples, box_frame)
    for sample in samples:
        _check_labels(sample.metainfo["segment_labels"], len(is_thing), sample)
    classes = [sample.metainfo["segment_labels"] for sample in samples]
    counts = [len(each) for each in classes]
    segments = [sample.gt_segments for sample in samples]
    most = max(counts)
    labels = [F.pad(each.labels, (0, most - count)) for each, count in zip(segments, counts, strict=True)]
    num_slices = max(len(each.segment_map) for each in segments)
    maps = [_on_canvas(each.segment_map, _canvas(s), num_slices) for each, s in zip(segments, samples, strict=True)]
    boxes = None
    if all(each.boxes is not None for each in segments):
        padded = [F.pad(each.boxes, (0, 0, 0, most - count)) for each, count in zip(segments, counts, strict=True)]
        boxes = torch.stack(padded)
    batch = TargetBatch(
        torch.stack(labels), frame(torch.stack(maps)), counts, [sample_name(s) for s in samples], boxes, classes
    )
    return _in_frame(batch, samples, box_frame)


def read_segments_target(
    sample: BaseDataElement, is_thing: Bool[Tensor, "K"], *, ignore_index: int = 255, with_boxes: bool = False
) -> MaskTarget:
    """The things of `gt_instances` and, if the sample has a `gt_sem_seg`, the stuff in it (mmdet's layout).

    With `gt_sem_seg`, what no segment covers is void (the ignore label, padding) or a crowd of its class. Without it,
    the outside of all objects is background, `ignored_instances` are crowds, and padding (beyond `img_shape`) is void.
    Objects that a crop emptied are dropped. Objects without masks, for box losses alone, have a map that is void
    everywhere.

    `gt_segments` (see `datasets.CompactSegments`) is taken as it is, and spares the host from waiting for the device.

    Args:
        with_boxes: also give the boxes: the objects' own, and tight ones for stuff.

    Raises:
        ValueError: a label is not a class; names the image and the label.
    """
    if "gt_segments" in sample:
        return _from_compact(sample, len(is_thing))
    instances = sample.gt_instances
    device = instances.labels.device
    labels = instances.labels
    boxes = _boxes(instances) if with_boxes else None
    if "masks" not in instances:
        _check_labels(labels.tolist(), len(is_thing), sample)
        nowhere = labels.new_full((1, 1, 1), VOID).expand(1, *_canvas(sample))
        return MaskTarget(labels, nowhere, sample_name(sample), _relative(boxes, sample))
    canvas = sample.metainfo.get("batch_input_shape")
    masks = _pad(dense_masks(instances, device), canvas)
    visible = masks.flatten(1).any(1)
    labels, masks = labels[visible], masks[visible]
    boxes = None if boxes is None else boxes[visible]
    _check_labels(labels.tolist(), len(is_thing), sample)
    if "gt_sem_seg" in sample:
        semantic = _pad(sample.gt_sem_seg.sem_seg.long(), canvas, value=ignore_index).squeeze(0)
        present = semantic.unique()
        present = present[present != ignore_index]
        _check_labels(present.tolist(), len(is_thing), sample)
        stuff = present[~is_thing.to(device)[present]]
        stuff_masks = semantic == stuff[:, None, None]
        labels, masks = torch.cat([labels, stuff]), torch.cat([masks, stuff_masks])
        boxes = None if boxes is None else torch.cat([boxes, tight_boxes(stuff_masks)])
        # Things that no mask covers: crowds, or objects that were left out.
        outside = torch.where(semantic == ignore_index, VOID, CROWD - semantic)
    else:
        outside = _outside_objects(sample, (masks.shape[-2], masks.shape[-1]), canvas, device)
    segment_map = segments_of_masks(masks)
    segment_map[0] = segment_map[0].where(masks.any(0), outside)
    return MaskTarget(labels, segment_map, sample_name(sample), _relative(boxes, sample))


def _outside_objects(
    sample: BaseDataElement, size: tuple[int, int], canvas: tuple[int, int] | None, device: torch.device
) -> Int[Tensor, "H W"]:
    """Background, crowds of their class, and void beyond the image, where stuff is not labelled."""
    outside = torch.full(size, VOID, device=device)
    height, width = sample.metainfo.get("img_shape", size)[:2]
    outside[:height, :width] = BACKGROUND
    if "ignored_instances" in sample and "masks" in sample.ignored_instances:
        crowds = sample.ignored_instances
        for crowd, label in zip(_pad(dense_masks(crowds, device), canvas), _crowd_labels(crowds), strict=True):
            outside[crowd] = label
    return outside


def _from_compact(sample: BaseDataElement, num_classes: int) -> MaskTarget:
    """The segments that the data worker listed, on the canvas of the batch."""
    segments = sample.gt_segments
    _check_labels(sample.metainfo["segment_labels"], num_classes, sample)
    segment_map = _on_canvas(segments.segment_map, _canvas(sample), len(segments.segment_map))
    return MaskTarget(segments.labels, segment_map.long(), sample_name(sample), segments.boxes)


def _on_canvas(segment_map: Int[Tensor, "S _ _"], canvas: tuple[int, int], num_slices: int) -> Int[Tensor, "S2 H W"]:
    """A segment map with void where the canvas is larger, in all of its slices, old and new.

    Beyond the first slice void means nothing: validity is read from the first one alone.
    """
    slices, height, width = segment_map.shape
    missing = (0, canvas[1] - width, 0, canvas[0] - height, 0, num_slices - slices)
    return F.pad(segment_map, missing, value=VOID)


def _crowd_labels(crowds: BaseDataElement) -> list[int] | Int[Tensor, "_"]:
    """The value of each crowd in a segment map: void to its own class, or to all where it has none."""
    return CROWD - crowds.labels if "labels" in crowds else [VOID] * len(crowds.masks)


def valid_pixels(
    samples: Sequence[BaseDataElement], canvas: tuple[int, int], like: Tensor
) -> Bool[Tensor, "B H W"] | None:
    """Which pixels of a padded batch lie on the images (`img_shape`); None where no image is padded."""
    shapes = [tuple(sample.metainfo.get("img_shape", canvas)[:2]) for sample in samples]
    if all(shape == canvas for shape in shapes):
        return None
    by_shape = {}
    for height, width in set(shapes):
        by_shape[height, width] = torch.zeros(canvas, dtype=torch.bool, device=like.device)
        by_shape[height, width][:height, :width].fill_(True)
    return torch.stack([by_shape[shape] for shape in shapes])


def _boxes(instances: BaseDataElement) -> Float[Tensor, "G 4"]:
    """x1 y1 x2 y2 in pixels: the annotation's, or tight ones where it has none."""
    if "bboxes" not in instances:
        return tight_boxes(dense_masks(instances, instances.labels.device))
    return getattr(instances.bboxes, "tensor", instances.bboxes).float()  # mmdet wraps its boxes


def _relative(boxes: Float[Tensor, "G 4"] | None, sample: BaseDataElement) -> Float[Tensor, "G 4"] | None:
    """Pixel corners to centre and size, as fractions of the image without padding."""
    if boxes is None:
        return None
    height, width = sample.metainfo["img_shape"][:2]
    return to_centres(boxes) / boxes.new_tensor([width, height, width, height])


def _in_frame(targets: TargetBatch, samples: Sequence[BaseDataElement], box_frame: str) -> TargetBatch:
    """The same with boxes, which are fractions of the images, as fractions of what is asked for."""
    if targets.boxes is None or box_frame == "image":
        return targets
    shares = []
    for sample in samples:
        canvas, (height, width) = _canvas(sample), sample.metainfo["img_shape"][:2]
        shares.append([width / canvas[1], height / canvas[0]] * 2)
    scale = upload(torch.tensor(shares), targets.boxes.device)
    return replace(targets, boxes=targets.boxes * scale.unsqueeze(1))


def _pad(maps: Shaped[Tensor, "G _ _"], canvas: tuple[int, int] | None, *, value: int = 0) -> Shaped[Tensor, "G H W"]:
    """The maps on the canvas of their batch; mmdet's preprocessor may leave them as they are."""
    if canvas is None:
        return maps
    return F.pad(maps, (0, canvas[1] - maps.shape[2], 0, canvas[0] - maps.shape[1]), value=value)


def _canvas(sample: BaseDataElement) -> tuple[int, int]:
    height, width = sample.metainfo.get("batch_input_shape") or sample.metainfo["img_shape"][:2]
    return height, width


def _check_labels(labels: Iterable[int], num_classes: int, sample: BaseDataElement) -> None:
    wrong = sorted({label for label in labels if not 0 <= label < num_classes})
    if wrong:
        raise InvalidValueError(
            f"{sample_name(sample)}: expected labels 0…{num_classes - 1}, got {wrong}. Fix the annotation or set "
            "decode_head.num_classes."
        )


def dense_masks(instances: BaseDataElement, device: torch.device) -> Bool[Tensor, "G H W"]:
    """The masks as a tensor, from a tensor or mmdet's mask structures."""
    masks = instances.masks
    if isinstance(masks, Tensor):
        return masks.to(device).bool()
    return masks.to_tensor(dtype=torch.bool, device=device)


def sample_name(sample: BaseDataElement) -> str:
    """What to call a sample in a message: its image's path, if it has one."""
    return str(sample.metainfo.get("img_path", "an unnamed image"))


def write_semantic(
    sample: BaseDataElement, labels: Int[Tensor, "H W"], scores: Float[Tensor, "K H W"] | None = None
) -> None:
    """Put a label map, and if given the class scores (in [0, Q], not logits), into mmseg's fields."""
    sample.set_data({"pred_sem_seg": PixelData(data=labels.unsqueeze(0))})
    if scores is not None:
        sample.set_data({"seg_logits": PixelData(data=scores)})


def write_certainty(sample: BaseDataElement, certainty: Certainty) -> None:
    """Put the certainty of a label map (H W) into `pred_certainty`: `confidence` and `unknown`, 1 H W each."""
    maps = {name: values.unsqueeze(0) for name, values in certainty._asdict().items()}
    sample.set_data({"pred_certainty": PixelData(**maps)})


def write_instances(sample: BaseDataElement, found: Instances) -> None:
    """Put detected objects into mmdet's `pred_instances`; `masks` and `mask_probs` only where there are some."""
    fields = dict(bboxes=found.boxes, labels=found.labels, scores=found.scores)
    fields |= {
        name: value for name, value in (("masks", found.masks), ("mask_probs", found.mask_probs)) if value is not None
    }
    sample.pred_instances = InstanceData(**fields)


def write_panoptic(sample: BaseDataElement, panoptic: Int[Tensor, "H W"]) -> None:
    """Put a panoptic map (class + 1000 · instance number) into mmdet's `pred_panoptic_seg`."""
    sample.pred_panoptic_seg = PixelData(sem_seg=panoptic.unsqueeze(0))
