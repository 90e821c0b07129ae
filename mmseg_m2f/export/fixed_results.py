"""From an image as it is read to results, as one graph of fixed shapes: normalise, pad, predict, crop, decide.

The results are those of `MaskSegmentor.predict` and `MaskDetector.predict` for images that are not resized. What has no
fixed shape becomes one: there are always k objects, the best first, and those beyond the found ones have score 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mmseg_m2f.core.boxes import to_corners
from mmseg_m2f.core.postprocess import semantic_scores, tight_boxes
from mmseg_m2f.core.selection import append_unrecognised, best_pairs, confident_queries, segment_ids
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.wrappers import Logits, is_mask_classifier, reads_valid, size_multiple
from mmseg_m2f.models.normalisation import Normalisation


class Results(nn.Module):
    """Images as they are read, to results: `labels` B H W, `panoptic` B H W and objects, as far as the model predicts.

    Objects are `object_scores` B k, `object_labels` B k, `object_boxes` B k 4 (x1 y1 x2 y2 in pixels) and
    `object_masks` B k H W, where the model predicts masks.

    Args:
        model: `MaskSegmentor`, `MaskDetector` or a segmentor of mmseg, in evaluation mode.

    Raises:
        ValueError: the config asks for something that has no fixed shape: DETR's panoptic rule, suppression of masks,
            padding to one size, kept scores or probabilities, or windows.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        check_expressible(model)
        self.network = Logits(model)
        self.reads_valid = reads_valid(model, multiple=size_multiple(model), channels=len(normalisation.mean))
        self.divisor, self.pad_value = normalisation.size_divisor, normalisation.pad_value
        self.to_rgb = normalisation.to_rgb
        for name in ("mean", "std"):
            values = getattr(normalisation, name)
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "B C H W"]) -> dict[str, Tensor]:
        """The outputs of a full file by name; images as read, in the channel order of the model's data."""
        height, width = images.shape[-2:]
        found = self.network(*self._prepare(images))
        if "scores" in found:
            return dict(labels=_best_classes(found["scores"][:, :, :height, :width], cast(Any, self.network.model)))
        canvas = self._padded(height), self._padded(width)
        classes, masks = found["class_logits"].float(), found.get("mask_logits")
        if masks is not None:
            masks = F.interpolate(masks.float(), canvas, mode="bilinear")[:, :, :height, :width]
        model = cast(Any, self.network.model)
        if not hasattr(model, "is_thing"):
            assert masks is not None
            return dict(labels=semantic_scores(classes, masks).argmax(1))
        results = {}
        cfg = model.test_cfg
        if cfg.semantic:
            assert masks is not None
            results["labels"] = semantic_scores(classes, masks).argmax(1)
        if cfg.panoptic:
            assert masks is not None
            results["panoptic"] = panoptic_map(
                classes,
                masks,
                model.is_thing,
                object_threshold=cfg.object_threshold,
                overlap_threshold=cfg.overlap_threshold,
                keep_low_pixels=cfg.keep_low_pixels,
            )
        if cfg.instance:
            count = cfg.max_per_image
            if "boxes" in found:
                objects = best_boxes(classes, found["boxes"], masks, model.is_thing, (height, width), count)
            else:
                assert masks is not None
                objects = best_masks(
                    classes,
                    masks,
                    model.is_thing,
                    max_per_image=_count_of_pairs(model, classes, count),
                    things_first=cfg.things_first,
                    one_class_per_query=cfg.one_class_per_query,
                )
            results |= ordered(objects, cfg.score_threshold)
        return results

    def _prepare(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised and padded images, and which pixels are no padding if the model asks."""
        height, width = images.shape[-2:]
        pixels = images.float()
        if self.to_rgb:
            pixels = pixels.flip(1)
        pixels = (pixels - self.mean) / self.std
        below, right = self._padded(height) - height, self._padded(width) - width
        if self.divisor > 1:
            pixels = F.pad(pixels, (0, right, 0, below), value=self.pad_value)
        if not self.reads_valid:
            return (pixels,)
        valid = torch.ones_like(images[:, 0], dtype=torch.bool)
        if self.divisor > 1:
            valid = F.pad(valid.float(), (0, right, 0, below)) > 0.5
        return pixels, valid

    def _padded(self, length: int) -> int:
        """The next multiple of the divisor, written so that exporters know that it is one.

        ONNX rounds quotients of integers toward 0, so that none here is negative.
        """
        return (length + self.divisor - 1) // self.divisor * self.divisor


def panoptic_map(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q H W"],
    is_thing: Bool[Tensor, "K"],
    *,
    object_threshold: float,
    overlap_threshold: float,
    keep_low_pixels: bool,
) -> Int[Tensor, "B H W"]:
    """`core.results.panoptic_maps` for mask logits at the size of the result, with all queries in one tensor."""
    scores, labels, confident = confident_queries(class_logits, object_threshold)
    num_queries = scores.shape[1]
    probs = mask_logits.sigmoid()
    behind = (confident.to(scores.dtype) - 1)[..., None, None]
    winner = (behind + scores[..., None, None] * probs).argmax(1)
    certain = probs >= 0.5
    numbers = torch.arange(num_queries, device=winner.device)[:, None, None]
    wins = winner.unsqueeze(1) == numbers  # B Q H W
    won, own = wins.sum((2, 3)), certain.sum((2, 3))
    if not keep_low_pixels:
        recognised = (wins & certain).any(1)
        winner = torch.where(recognised, winner, num_queries)
    ids = segment_ids(labels, is_thing, won=won, own=own, overlap_threshold=overlap_threshold, is_confident=confident)
    table = append_unrecognised(ids, len(is_thing))
    return table.gather(1, winner.flatten(1)).unflatten(1, winner.shape[1:])


class FixedObjects(NamedTuple):
    """k objects of each image, in no particular order; score 0 for those that do not count."""

    scores: Float[Tensor, "B k"]
    labels: Int[Tensor, "B k"]
    boxes: Float[Tensor, "B k 4"]
    masks: Bool[Tensor, "B k H W"] | None


def best_masks(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q H W"],
    is_thing: Bool[Tensor, "K"],
    *,
    max_per_image: int,
    things_first: bool,
    one_class_per_query: bool,
) -> FixedObjects:
    """`core.results.top_instances` for mask logits at the size of the result."""
    best, labels, queries, counts = best_pairs(
        class_logits,
        is_thing,
        max_per_image=max_per_image,
        things_first=things_first,
        one_class_per_query=one_class_per_query,
    )
    logits = _take_queries(mask_logits, queries)
    masks = logits > 0
    inside = (logits.sigmoid() * masks).sum((2, 3), dtype=torch.float64).float()
    scores = torch.where(counts, best * (inside / (masks.sum((2, 3)) + 1e-6)), 0.0)
    boxes = tight_boxes(masks.flatten(0, 1)).unflatten(0, labels.shape)
    return FixedObjects(scores, labels, boxes, masks)


def best_boxes(
    class_logits: Float[Tensor, "B Q K1"],
    boxes: Float[Tensor, "B Q 4"],
    mask_logits: Float[Tensor, "B Q H W"] | None,
    is_thing: Bool[Tensor, "K"],
    size: tuple[int, int],
    max_per_image: int,
) -> FixedObjects:
    """`core.postprocess.top_boxes` of each image."""
    scores, labels = class_logits.softmax(-1)[..., :-1].max(-1)
    ranked = torch.where(is_thing[labels], scores, -1.0)
    best, queries = ranked.topk(min(max_per_image, ranked.shape[1]), dim=1)
    height, width = size
    corners = to_corners(_take_boxes(boxes, queries))
    across, down = corners[..., 0::2] * width, corners[..., 1::2] * height
    corners = torch.stack([_between(across, width), _between(down, height)], -1).flatten(2)
    masks = None if mask_logits is None else _take_queries(mask_logits, queries) > 0
    return FixedObjects(best.clamp(min=0), labels.gather(1, queries), corners, masks)


def ordered(objects: FixedObjects, score_threshold: float) -> dict[str, Tensor]:
    """The outputs of a full file for objects: the best first, those below the threshold all zeros."""
    scores = torch.where(objects.scores >= score_threshold, objects.scores, 0.0)
    scores, order = scores.topk(scores.shape[1], dim=1)
    counts = scores > 0
    found = dict(
        object_scores=scores,
        object_labels=objects.labels.gather(1, order) * counts,
        object_boxes=_take_boxes(objects.boxes, order) * counts.unsqueeze(-1),
    )
    if objects.masks is not None:
        found["object_masks"] = _take_queries(objects.masks, order) & counts[..., None, None]
    return found


def check_expressible(model: nn.Module) -> None:
    """Refuse what has no fixed shape.

    Raises:
        ValueError: see `Results`.
    """
    cfg: Any = cast(Any, model).test_cfg or {}
    reasons = []
    if cfg.get("mode") == "slide":
        reasons.append("windows (test_cfg.mode='slide'), whose number depends on the size")
    for key in ("return_scores", "return_queries"):
        if cfg.get(key):
            reasons.append(f"what views are joined by (test_cfg.{key}), which is no result")
    if cfg.get("soft_masks"):
        reasons.append("mask probabilities (test_cfg.soft_masks), which the file does not give")
    if (getattr(getattr(model, "data_preprocessor", None), "test_cfg", None) or {}).get("size"):
        reasons.append("padding to one size (model.data_preprocessor.test_cfg.size), not to multiples (size_divisor)")
    if cfg.get("temperature") is not None or cfg.get("score_temperature") is not None:
        reasons.append("confidences (test_cfg.temperature and score_temperature), which the file does not give")
    activation = getattr(getattr(model, "decode_head", None), "class_activation", "softmax")
    if activation != "softmax":
        reasons.append(f"class probabilities by a {activation}, which full files do not compute")
    if hasattr(model, "is_thing"):
        if cfg.panoptic and cfg.panoptic_rule == "detr":
            reasons.append("DETR's panoptic rule (test_cfg.panoptic_rule='detr'), which repeats until nothing changes")
        if cfg.instance and cfg.mask_nms_threshold is not None:
            reasons.append("suppression of masks (test_cfg.mask_nms_threshold), which has no fixed number of objects")
    elif not is_mask_classifier(model) and type(model).__name__ != "EncoderDecoder":
        reasons.append(f"a model of type {type(model).__name__}")
    if reasons:
        raise InvalidValueError(
            "model.test_cfg: expected results of a fixed shape for --output full, got "
            f"{'; '.join(reasons)}. Change the "
            "config, or export with --output logits and keep this step outside of the file."
        )


def check_no_views(pipeline: Sequence[Mapping]) -> None:
    """Refuse test pipelines that flip, whose views a file with one input and one result cannot join.

    Raises:
        ValueError: A transform flips, or makes several views.
    """
    names = [str(getattr(each["type"], "__name__", each["type"])).rpartition(".")[2] for each in pipeline]
    flips = [name for name in names if "Flip" in name or name == "TestTimeAug"]
    if flips:
        raise InvalidValueError(
            f"test_dataloader.dataset.pipeline: expected no flips for --output full, got {', '.join(flips)}. Remove "
            "it, or export with --output logits and average the views outside of the file."
        )


def _between(x: Tensor, most: int) -> Tensor:
    return torch.minimum(x.clamp(min=0), x.new_ones(()) * most)


def _take_boxes(boxes: Tensor, queries: Tensor) -> Tensor:
    """`torch.take_along_dim`, which would fix the number of images in a program."""
    return boxes.gather(1, queries.unsqueeze(-1).expand(-1, -1, boxes.shape[-1]))


def _take_queries(mask_logits: Tensor, queries: Tensor) -> Tensor:
    images = torch.arange(queries.shape[0], device=queries.device)[:, None]
    return mask_logits[images, queries]


def _count_of_pairs(model: Any, class_logits: Tensor, max_per_image: int) -> int:  # noqa: ANN401
    if not model.test_cfg.things_first:
        return max_per_image
    per_query = min(model.num_things, 1) if model.test_cfg.one_class_per_query else model.num_things
    return min(max_per_image, per_query * class_logits.shape[1])


def _best_classes(scores: Tensor, model: Any) -> Tensor:  # noqa: ANN401
    """mmseg's rule: the best class, or with one output the threshold of its head."""
    if scores.shape[1] > 1:
        return scores.argmax(1)
    return (scores.sigmoid() > model.decode_head.threshold).long().squeeze(1)
