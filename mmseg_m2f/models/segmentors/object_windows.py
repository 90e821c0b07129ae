"""`MaskDetector` by windows: what is found through each, put together by the rules of `core.window_objects`.

An image may be seen in several views: at several scales, and mirrored. They become one result by the rules of
`core.view_merging`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from mmengine.config import ConfigDict
from torch import Tensor

from mmseg_m2f.core.postprocess import Instances, resize_maps, semantic_scores
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.core.view_merging import (
    mean_scores,
    merge_objects,
    merge_panoptic,
    mirror_objects,
    objects_found,
    suppress_duplicates,
)
from mmseg_m2f.core.window_objects import FoundObjects, JoinedObject, found_objects, join_objects, join_panoptic
from mmseg_m2f.core.windows import Window, WindowGrid, gaussian_weights, window_grid
from mmseg_m2f.models.segmentors.detector_results import DetectorResult, QueryOutputs, certainty_of

_WINDOWS_AT_ONCE = 4  # on a device; one by one on a CPU
_LIKELY = 0.5  # objects that score as much are missed

Predict = Callable[[Float[Tensor, "B C H W"], Bool[Tensor, "B H W"] | None], QueryOutputs]
Finish = Callable[[QueryOutputs, Resizing], list[DetectorResult]]


def windows_of(canvas: tuple[int, int], shape: tuple[int, int], cfg: ConfigDict) -> WindowGrid:
    """The windows of an image of some shape in the upper left corner of a canvas.

    Padding is left out, except where the image is smaller than a window.
    """
    size = (
        max(shape[0], min(cfg.crop_size[0], canvas[0])),
        max(shape[1], min(cfg.crop_size[1], canvas[1])),
    )
    return window_grid(size, cfg.crop_size, cfg.stride)


class ImageView(NamedTuple):
    """What is found in one view of an image through its windows; None where `test_cfg` does not ask for it."""

    size: tuple[int, int]
    """Height and width of the result."""
    objects: list[JoinedObject] | None
    """The highest score first; without duplicates if `mask_nms_threshold` is set."""
    panoptic: Int[np.ndarray, "H W"] | None
    scores: Float[Tensor, "K H W"] | None
    """Class scores, means over the windows."""

    def unflipped(self, metainfo: dict) -> "ImageView":
        """What the image shows, if the view is a mirror image."""
        if not metainfo.get("flip"):
            return self
        direction = metainfo["flip_direction"]
        axes = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))[direction]
        return ImageView(
            self.size,
            None if self.objects is None else mirror_objects(self.objects, self.size, direction),
            None if self.panoptic is None else np.flip(self.panoptic, axes),
            None if self.scores is None else self.scores.flip(axes),
        )


def view_by_windows(
    image: Float[Tensor, "1 C H W"],
    *,
    shape: tuple[int, int],
    size: tuple[int, int],
    num_classes: int,
    cfg: ConfigDict,
    predict: Predict,
    finish: Finish,
) -> ImageView:
    """What is found in an image through its windows.

    Args:
        shape: of the image, in the upper left corner of the canvas.
        size: of the result.
        predict: runs the network on windows; the second argument marks the pixels of the image, None if all are.
        finish: makes results of what it gives; label maps are not asked for.
    """
    grid = windows_of((image.shape[-2], image.shape[-1]), shape, cfg)
    seen = grid.clipped(shape)  # without padding
    placed = seen.resized(size)
    found: list[FoundObjects] = []
    maps: list[Int[np.ndarray, "_ _"]] = []
    scores = _ScoreSum(grid.size, cfg.blend) if cfg.semantic else None
    for windows, outputs, resizing, places in _passes(image, grid, seen, placed, predict):
        for result, place in zip(finish(outputs, resizing), places, strict=True):
            if result.instances is not None:
                found.append(found_objects(result.instances, place))
            if result.panoptic is not None:
                maps.append(result.panoptic.cpu().numpy())
        if scores is not None:
            scores.add(outputs, windows)
    panoptic = objects = None
    if cfg.panoptic:
        panoptic = join_panoptic(placed, maps, num_classes=num_classes, min_iou=cfg.min_iou)
    if cfg.instance:
        objects = _best(join_objects(placed, found, min_iou=cfg.min_iou), size, cfg)
    return ImageView(size, objects, panoptic, None if scores is None else scores.mean(shape, size))


def result_of_views(
    views: Sequence[ImageView], *, num_classes: int, cfg: ConfigDict, device: torch.device
) -> DetectorResult:
    """One result of all views of an image; instances are on the host, maps on the device."""
    first = views[0]
    instances = panoptic = labels = certainty = None
    if first.objects is not None:
        objects = first.objects
        if len(views) > 1:
            found = [objects_found(view.objects or []) for view in views]
            merged = merge_objects(found, first.size, min_iou=cfg.min_iou)
            objects = _best([each for each in merged if each.score >= cfg.score_threshold], first.size, cfg)
        instances = _dense(objects, first.size)
    if first.panoptic is not None:
        joined = first.panoptic
        if len(views) > 1:
            maps = [view.panoptic for view in views if view.panoptic is not None]
            joined = merge_panoptic(maps, num_classes=num_classes, min_iou=cfg.min_iou)
        panoptic = torch.from_numpy(np.ascontiguousarray(joined)).to(device)
    if first.scores is not None:
        scores = mean_scores([view.scores for view in views if view.scores is not None])
        labels = scores.argmax(0)
        certainty = certainty_of(scores, labels, cfg)
    return DetectorResult(instances, panoptic, labels, certainty)


def _passes(
    image: Float[Tensor, "1 C H W"], grid: WindowGrid, seen: WindowGrid, placed: WindowGrid, predict: Predict
) -> Iterator[tuple[list[Window], QueryOutputs, Resizing, list[Window]]]:
    """Neighbouring windows of one size in image and result, with what the network gives for them, in grid order."""
    at_once = 1 if image.device.type == "cpu" else _WINDOWS_AT_ONCE
    waiting: list[tuple[Window, Window]] = []
    resizing: Resizing | None = None
    for window, visible, place in zip(grid, seen, placed, strict=True):
        own = Resizing(_extent(window), _extent(visible), _extent(place))
        if waiting and (own != resizing or len(waiting) == at_once):
            yield _pass(image, waiting, resizing, predict)
            waiting = []
        resizing = own
        waiting.append((window, place))
    assert resizing is not None
    yield _pass(image, waiting, resizing, predict)


def _pass(
    image: Float[Tensor, "1 C H W"],
    windows: Sequence[tuple[Window, Window]],
    resizing: Resizing | None,
    predict: Predict,
) -> tuple[list[Window], QueryOutputs, Resizing, list[Window]]:
    assert resizing is not None
    crops = torch.cat([image[..., window.rows, window.columns] for window, _ in windows])
    valid = None
    if resizing.crop != resizing.canvas:
        valid = torch.zeros(len(crops), *resizing.canvas, dtype=torch.bool, device=image.device)
        valid[:, : resizing.crop[0], : resizing.crop[1]] = True
    outputs = predict(crops, valid)
    outputs.required_masks()
    return [window for window, _ in windows], outputs, resizing, [place for _, place in windows]


class _ScoreSum:
    """Class scores of an image, summed over its windows."""

    def __init__(self, size: tuple[int, int], blend: str) -> None:
        self.size, self.blend = size, blend
        self.total: Tensor | None = None

    def add(self, outputs: QueryOutputs, windows: Sequence[Window]) -> None:
        for image, window in enumerate(windows):
            masks = resize_maps(outputs.required_masks()[image : image + 1], _extent(window))
            scores = semantic_scores(outputs.votes()[image : image + 1], masks).squeeze(0)
            if self.total is None:
                self.total = scores.new_zeros(len(scores), *self.size)
                self.weights = scores.new_zeros(self.size)
            ones = scores.new_ones(_extent(window))
            weights = ones if self.blend == "mean" else gaussian_weights(_extent(window), like=ones)
            self.total[:, window.rows, window.columns] += scores * weights
            self.weights[window.rows, window.columns] += weights

    def mean(self, shape: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "K H W"]:
        assert self.total is not None
        mean = (self.total / self.weights)[:, : shape[0], : shape[1]]
        return resize_maps(mean.unsqueeze(0), size).squeeze(0)


def _extent(window: Window) -> tuple[int, int]:
    return window.rows.stop - window.rows.start, window.columns.stop - window.columns.start


def _best(objects: Sequence[JoinedObject], size: tuple[int, int], cfg: ConfigDict) -> list[JoinedObject]:
    """The first `max_objects` objects, the highest score first, without duplicates if `test_cfg` has a threshold."""
    count = cfg.max_objects
    if len(objects) > count and objects[count].score >= _LIKELY:
        likely = sum(each.score >= _LIKELY for each in objects)
        warnings.warn(
            f"MaskDetector found {likely} objects with scores of {_LIKELY} and more in an image and keeps {count}. Set "
            "model.test_cfg.max_objects higher to keep more.",
            stacklevel=2,
        )
    if cfg.mask_nms_threshold is None:
        return [*objects[:count]]
    return suppress_duplicates(objects[:count], size, cfg.mask_nms_threshold)


def _dense(objects: Sequence[JoinedObject], size: tuple[int, int]) -> Instances:
    """The objects as tensors on the host."""
    masks = torch.zeros(len(objects), *size, dtype=torch.bool)
    for mask, each in zip(masks, objects, strict=True):
        top, left, bottom, right = each.box
        mask[top:bottom, left:right] = torch.from_numpy(each.crop)
    boxes = torch.tensor([[each.box[1], each.box[0], each.box[3], each.box[2]] for each in objects]).reshape(-1, 4)
    scores = torch.tensor([each.score for each in objects])
    return Instances(scores, torch.tensor([each.label for each in objects], dtype=torch.long), boxes.float(), masks)
