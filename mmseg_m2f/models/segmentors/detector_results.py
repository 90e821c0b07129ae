"""From `MaskDetector`'s last layer to instances, panoptic map and label map of each image, as `test_cfg` says."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmseg_m2f.core.boxes import to_corners
from mmseg_m2f.core.confidence import Certainty, certainty_maps, check_temperature, image_certainty, temper_scores
from mmseg_m2f.core.postprocess import Instances, detr_panoptic_map, resize_maps, top_boxes
from mmseg_m2f.core.query_merging import QueryProbs
from mmseg_m2f.core.results import panoptic_maps, top_instances
from mmseg_m2f.core.selection import class_votes, vote_logits
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.label_maps import label_maps
from mmseg_m2f.models.equal_sizes import take_images
from mmseg_m2f.models.segmentors.sliding import check_sliding
from mmseg_m2f.samples import write_certainty, write_instances, write_panoptic

_TEST_CFG = dict(
    panoptic=True,
    instance=True,
    semantic=False,
    panoptic_rule="mask2former",
    object_threshold=0.8,
    overlap_threshold=0.8,
    keep_low_pixels=False,
    min_area=4,
    merge_stuff=False,
    max_per_image=100,
    things_first=True,
    score_threshold=0.0,
    one_class_per_query=False,
    mask_nms_threshold=None,
    soft_masks=False,
    max_memory_mb=None,
    mode="whole",
    crop_size=None,
    stride=None,
    scale=1.0,
    blend="mean",
    min_iou=0.5,
    max_objects=1000,
    keep_batch_padding=False,
    return_queries=False,
    layers=None,
    queries=None,
    temperature=None,
    score_temperature=None,
)
_PANOPTIC_KEYS = dict(
    mask2former=("object_threshold", "overlap_threshold", "keep_low_pixels"),
    detr=("object_threshold", "min_area", "merge_stuff"),
)
_INSTANCE_KEYS = (
    "max_per_image",
    "things_first",
    "score_threshold",
    "one_class_per_query",
    "mask_nms_threshold",
    "soft_masks",
)
_BOX_KEYS = ("max_per_image", "score_threshold", "soft_masks")


class DetectorResult(NamedTuple):
    """What is found in one image; None where `test_cfg` does not ask for it."""

    instances: Instances | None = None
    panoptic: Int[Tensor, "H W"] | None = None
    """class + 1000 · instance number; K where nothing was recognised."""
    labels: Int[Tensor, "H W"] | None = None
    certainty: Certainty | None = None
    """of the label map, with `test_cfg.temperature`."""

    def write(self, sample: BaseDataElement, *, score_temperature: float | None = None) -> None:
        """Fill `pred_instances`, `pred_panoptic_seg`, `pred_sem_seg` and `pred_certainty` of a sample.

        Args:
            score_temperature: also give the `confidences` of the instances, see `core.confidence.temper_scores`.
        """
        if self.instances is not None:
            write_instances(sample, self.instances)
            if score_temperature is not None:
                sample.pred_instances.confidences = temper_scores(self.instances.scores, score_temperature)
        if self.certainty is not None:
            write_certainty(sample, self.certainty)
        if self.panoptic is not None:
            write_panoptic(sample, self.panoptic)
        if self.labels is not None:
            sample.pred_sem_seg = PixelData(sem_seg=self.labels.unsqueeze(0))


class QueryOutputs(NamedTuple):
    """The last layer's outputs for images of one size; `masks` are mask logits at any resolution."""

    class_logits: Float[Tensor, "B Q K1"]
    masks: Float[Tensor, "B Q h w"] | None = None
    boxes: Float[Tensor, "B Q 4"] | None = None
    class_activation: str = "softmax"
    """What makes class logits probabilities, see `core.selection.class_probs_of`."""

    def of(self, images: Sequence[int]) -> "QueryOutputs":
        """Those of some images, in ascending order."""
        logits, masks, boxes = (None if part is None else take_images(part, images) for part in self[:3])
        assert logits is not None
        return QueryOutputs(logits, masks, boxes, self.class_activation)

    def votes(self, *, object_threshold: float = 0.0) -> Float[Tensor, "B Q K1"]:
        """Class logits with "no object" last; see `core.selection.vote_logits`."""
        return vote_logits(self.class_logits, self.class_activation, object_threshold=object_threshold)

    def required_masks(self) -> Float[Tensor, "B Q h w"]:
        """The masks.

        Raises:
            ValueError: the decoder predicts boxes alone.
        """
        if self.masks is None:
            raise InvalidValueError(
                "MaskDetector: model.test_cfg asks for panoptic or semantic results or for windows, but the decoder "
                "predicts boxes alone. Set panoptic=False, semantic=False and mode='whole', or give "
                "decode_head.query_decoder a mask_head."
            )
        return self.masks


def detector_results(
    outputs: QueryOutputs, resizing: Resizing, is_thing: Bool[Tensor, "K"], *, num_things: int, cfg: ConfigDict
) -> list[DetectorResult]:
    """The result of each image, at the size that the resizing leads to.

    Args:
        num_things: how many classes are things.
        cfg: see `checked_test_cfg`.
    """
    nothing = [None] * len(outputs.class_logits)
    bound = dict(max_memory_mb=cfg.max_memory_mb)
    instances: Sequence[Instances | None] = nothing
    by_sigmoid = outputs.class_activation == "sigmoid"
    if cfg.instance and outputs.boxes is not None and not by_sigmoid:
        instances = _instances_of_boxes(outputs, resizing, is_thing, cfg)
    elif cfg.instance:
        corners = None if outputs.boxes is None else _corners_on_canvas(outputs.boxes, resizing)
        instances = _instances_of_masks(outputs, corners, resizing, is_thing, cfg, num_things=num_things)
    panoptic = _panoptic_maps(outputs, resizing, is_thing, cfg) if cfg.panoptic else nothing
    labels: Sequence[Int[Tensor, "H W"] | None] = nothing
    certainty: Sequence[Certainty | None] = nothing
    if cfg.semantic:
        votes, masks = outputs.votes(), outputs.required_masks()
        maps = label_maps(votes, masks, resizing, **bound)
        labels = list(maps)
        if cfg.temperature is not None:
            found = certainty_maps(votes, masks, maps, resizing, temperature=cfg.temperature, **bound)
            certainty = [Certainty(*each) for each in zip(*found, strict=True)]
    return [DetectorResult(*parts) for parts in zip(instances, panoptic, labels, certainty, strict=True)]


def results_of_probs(
    merged: QueryProbs, is_thing: Bool[Tensor, "K"], *, class_activation: str, num_things: int, cfg: ConfigDict
) -> DetectorResult:
    """The result of one image from probabilities at its size.

    Args:
        class_activation: of the decoder; its class logits are computed from the probabilities.
        num_things: how many classes are things.
        cfg: see `checked_test_cfg`.
    """
    size = (merged.mask_probs.shape[-2], merged.mask_probs.shape[-1])
    resizing = Resizing(size, size, size)
    probs = merged.class_probs
    logits = probs.log() if class_activation == "softmax" else probs[:, :-1].logit()
    outputs = QueryOutputs(logits[None], merged.mask_probs[None], class_activation=class_activation)
    instances = panoptic = labels = certainty = None
    if cfg.instance:
        corners = None if merged.boxes is None else merged.boxes[None]
        (instances,) = _instances_of_masks(
            outputs, corners, resizing, is_thing, cfg, num_things=num_things, from_probs=True
        )
    if cfg.panoptic:
        (panoptic,) = _panoptic_maps(outputs, resizing, is_thing, cfg, from_probs=True)
    if cfg.semantic:  # in float64, so that no order of adding up decides
        votes = class_votes(probs, class_activation).T.double()
        scores = (votes @ merged.mask_probs.flatten(1).double()).unflatten(1, size)
        labels = scores.argmax(0)
        certainty = certainty_of(scores, labels, cfg)
    return DetectorResult(instances, panoptic, labels, certainty)


def certainty_of(scores: Float[Tensor, "K H W"], labels: Int[Tensor, "H W"], cfg: ConfigDict) -> Certainty | None:
    """The certainty of a label map, if `test_cfg` has a temperature."""
    if cfg.temperature is None:
        return None
    return image_certainty(scores, labels, cfg.temperature)


def query_probs(outputs: QueryOutputs, image: int, resizing: Resizing) -> QueryProbs:
    """Probabilities and boxes of all queries of an image, at the size that the resizing leads to.

    Of sigmoids, "no object" has the probability that the best class lacks.

    Raises:
        ValueError: the decoder predicts boxes alone, or has results by DETR's rules, which read logits.
    """
    by_sigmoid = outputs.class_activation == "sigmoid"
    if outputs.boxes is not None and not by_sigmoid:
        raise InvalidValueError(
            "MaskDetector: expected masks, with boxes only where classes are sigmoids, where probabilities of queries "
            "are averaged over views or calibrated; got boxes and a softmax, whose results follow DETR's rules. Leave "
            "--tta out, or set window_size; for tools/calibrate.py set model.test_cfg.semantic=False."
        )
    masks = _enlarge(outputs.required_masks()[image].float(), resizing, resizing.size).sigmoid()
    logits = outputs.class_logits[image].float()
    if not by_sigmoid:
        return QueryProbs(logits.softmax(-1), masks)
    probs = logits.sigmoid()
    boxes = None if outputs.boxes is None else _corners_on_canvas(outputs.boxes, resizing)[image]
    return QueryProbs(torch.cat([probs, 1 - probs.amax(-1, keepdim=True)], -1), masks, boxes)


def checked_test_cfg(test_cfg: ConfigDict | dict | None) -> ConfigDict:
    """All keys of `MaskDetector.test_cfg`, with their defaults.

    Raises:
        ValueError: an unknown key, or values that do not go together.
    """
    unknown = set(test_cfg or {}) - set(_TEST_CFG)
    if unknown:
        raise InvalidValueError(f"model.test_cfg: expected keys {sorted(_TEST_CFG)}, got {sorted(unknown)} as well.")
    checked = ConfigDict({**_TEST_CFG, **(test_cfg or {})})
    if checked.panoptic_rule not in _PANOPTIC_KEYS:
        raise InvalidValueError(
            f"model.test_cfg.panoptic_rule: expected one of {list(_PANOPTIC_KEYS)}, got {checked.panoptic_rule!r}."
        )
    check_sliding(checked)
    for key in ("temperature", "score_temperature"):
        if checked[key] is not None:
            check_temperature(checked[key], where=f"model.test_cfg.{key}")
    if checked.mode == "slide" and checked.soft_masks:
        raise InvalidValueError(
            "model.test_cfg: soft_masks=True keeps mask probabilities, which are not joined over windows. Expected "
            "soft_masks=False with mode='slide', or mode='whole'."
        )
    if not 0 < checked.min_iou <= 1:
        raise InvalidValueError(
            f"model.test_cfg.min_iou: expected an IoU in (0, 1] from which on objects of two windows or views are "
            f"parts of one, got {checked.min_iou}. 0.5 is the default."
        )
    return checked


def _instances_of_boxes(
    outputs: QueryOutputs, resizing: Resizing, is_thing: Bool[Tensor, "K"], cfg: ConfigDict
) -> list[Instances]:
    options = {key: cfg[key] for key in _BOX_KEYS}
    assert outputs.boxes is not None
    found = []
    for image, (logits, corners) in enumerate(zip(outputs.class_logits, outputs.boxes, strict=True)):
        full = None if outputs.masks is None else _enlarge(outputs.masks[image], resizing, resizing.size)
        found.append(top_boxes(logits, corners, is_thing, size=resizing.size, mask_logits=full, **options))
    return found


def _instances_of_masks(
    outputs: QueryOutputs,
    boxes: Float[Tensor, "B Q 4"] | None,
    resizing: Resizing,
    is_thing: Bool[Tensor, "K"],
    cfg: ConfigDict,
    *,
    num_things: int,
    from_probs: bool = False,
) -> list[Instances]:
    """The best pairs of query and thing class; boxes are x1 y1 x2 y2 in pixels of the result, or tight ones."""
    return top_instances(
        outputs.class_logits,
        outputs.required_masks(),
        is_thing,
        resizing,
        num_things=num_things,
        class_activation=outputs.class_activation,
        boxes=boxes,
        from_probs=from_probs,
        max_memory_mb=cfg.max_memory_mb,
        **{key: cfg[key] for key in _INSTANCE_KEYS},
    )


def _panoptic_maps(
    outputs: QueryOutputs, resizing: Resizing, is_thing: Bool[Tensor, "K"], cfg: ConfigDict, *, from_probs: bool = False
) -> Sequence[Int[Tensor, "H W"]]:
    masks = outputs.required_masks()
    options = {key: cfg[key] for key in _PANOPTIC_KEYS[cfg.panoptic_rule]}
    if cfg.panoptic_rule == "detr":
        return [
            detr_panoptic_map(logits, _enlarge(mask, resizing, resizing.crop), is_thing, size=resizing.size, **options)
            for logits, mask in zip(outputs.class_logits, masks, strict=True)
        ]
    options["max_memory_mb"] = cfg.max_memory_mb
    votes = outputs.votes(object_threshold=cfg.object_threshold)
    if outputs.class_activation == "sigmoid":
        options["object_threshold"] = 0.0  # the votes have passed it
    return list(panoptic_maps(votes, masks, is_thing, resizing, from_probs=from_probs, **options))


def _corners_on_canvas(boxes: Float[Tensor, "B Q 4"], resizing: Resizing) -> Float[Tensor, "B Q 4"]:
    """x1 y1 x2 y2 in pixels of the result, not cut to it, from boxes as fractions of the canvas."""
    canvas, crop, size = resizing
    height, width = (canvas[axis] * size[axis] / crop[axis] for axis in (0, 1))
    corners = to_corners(boxes.float())
    return torch.stack([corners[..., 0::2] * width, corners[..., 1::2] * height], -1).flatten(-2)


def _enlarge(masks: Float[Tensor, "Q _ _"], resizing: Resizing, size: tuple[int, int]) -> Float[Tensor, "Q H W"]:
    """The mask logits of the image, cut out of the canvas, at a size."""
    height, width = resizing.crop
    cropped = resize_maps(masks.unsqueeze(0), resizing.canvas)[:, :, :height, :width]
    return resize_maps(cropped, size).squeeze(0)
