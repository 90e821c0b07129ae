"""Queries of a trained model over its test set: matched with the truth, and judged layer by layer."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.analysis.query_statistics import QueryStatistics, partners_by_layer
from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.config.options import Options
from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.selection import vote_logits
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.engine.launch import evaluate
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.label_maps import label_maps
from mmseg_m2f.models.decode_heads.mask_head import MaskHead
from mmseg_m2f.models.network import run_network
from mmseg_m2f.models.segmentors.detector_results import QueryOutputs, detector_results
from mmseg_m2f.models.segmentors.mask_detector import MaskDetector
from mmseg_m2f.models.segmentors.own_canvas import own_canvas
from mmseg_m2f.registry import METRICS
from mmseg_m2f.runtime import is_exported
from mmseg_m2f.samples import read_segments_target, read_targets, valid_pixels, write_semantic
from mmseg_m2f.structures import VOID, MaskTarget, Prediction, predicted_boxes

_Shell: TypeAlias = Any  # a shell of mmseg or mmdet around a MaskHead
_SEED = 0  # of the random points at which masks are compared


@dataclass
class QueryAnalysis:
    """What `analyse_queries` finds.

    Attributes:
        classes: names of the K classes.
        layers: for each supervised layer the metrics of the test evaluator; empty where a layer has no masks.
        metrics: of the whole model, as `tools/test.py` gives them.
    """

    classes: Sequence[str]
    statistics: QueryStatistics
    layers: list[dict[str, float]] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)


def analyse_queries(
    config: str | os.PathLike[str], checkpoint: str, options: Options | None = None, *, work_dir: str | None = None
) -> QueryAnalysis:
    """Run the test loop, match all layers' queries with the truth as training does, and judge each layer's results.

    Images are looked at whole, one after the other.

    Raises:
        FileNotFoundError: config, checkpoint or data are missing.
        ValueError: the model has no queries, no assigner, or is tested through windows.
    """
    if is_exported(checkpoint):
        raise InvalidValueError(
            f"{checkpoint}: expected a .pth file, got an exported one, which has the last layer alone."
        )
    check_checkpoint(checkpoint)
    visitor = _QueryVisitor()
    metrics = evaluate(config, checkpoint, options, work_dir=work_dir, hooks=[visitor])
    return visitor.result(metrics)


class _QueryVisitor(Hook):
    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.statistics: QueryStatistics | None = None
        self.classes: Sequence[str] = ()
        self.judges: list[list[BaseMetric]] = []
        self._evaluators: list[Mapping] = []
        self._dataset_meta: Mapping[str, Any] = {}

    def before_test_epoch(self, runner: Runner) -> None:
        """Refuse models without queries; take up what judges them."""
        model = _unwrapped(runner)
        _check_model(model)
        self._dataset_meta = getattr(runner.test_dataloader.dataset, "metainfo", None) or {}
        self.classes = list(self._dataset_meta.get("classes") or ())
        evaluator = runner.cfg.test_evaluator
        self._evaluators = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Look at the images of a batch once more, at all layers."""
        model = _unwrapped(runner)
        assert data_batch is not None
        batch = model.data_preprocessor(data_batch, False)
        with torch.no_grad():
            for inputs, sample, output in zip(batch["inputs"], batch["data_samples"], outputs or (), strict=True):
                self._look(model, inputs, sample, output)

    def result(self, metrics: Mapping[str, float]) -> QueryAnalysis:
        """After the loop."""
        assert self.statistics is not None
        number = self.statistics.num_images
        layers = [
            {name: value for judge in judges for name, value in judge.evaluate(number).items()} if judges else {}
            for judges in self.judges
        ]
        return QueryAnalysis(self.classes, self.statistics, layers, metrics)

    def _look(
        self,
        model: _Shell,
        inputs: Float[Tensor, "C H W"],
        sample: BaseDataElement,
        output: BaseDataElement,
    ) -> None:
        shape = _shape(sample, (inputs.shape[-2], inputs.shape[-1]))
        canvas = own_canvas(shape, model.data_preprocessor)
        images = inputs[None, :, : canvas[0], : canvas[1]]
        images = F.pad(images, (0, canvas[1] - images.shape[-1], 0, canvas[0] - images.shape[-2]))
        valid = None
        if isinstance(model, MaskDetector):
            whole = BaseDataElement(metainfo=dict(img_shape=shape))
            valid = valid_pixels([whole], canvas, images)
        predictions, _ = run_network(model, images, valid)
        size = tuple(output.metainfo["ori_shape"][:2])
        resizing = Resizing(canvas, shape, (int(size[0]), int(size[1])))
        self._judge(model, predictions, resizing, output)
        self._match(model, predictions, resizing, output)

    def _judge(
        self,
        model: _Shell,
        predictions: Sequence[Prediction],
        resizing: Resizing,
        output: BaseDataElement,
    ) -> None:
        if not self.judges:
            with_masks = [each.has_masks or _boxes_suffice(model) for each in predictions]
            self.judges = [[METRICS.build(each) for each in self._evaluators] if ok else [] for ok in with_masks]
            for judge in (judge for judges in self.judges for judge in judges):
                judge.dataset_meta = self._dataset_meta
        for judges, prediction in zip(self.judges, predictions, strict=True):
            if judges:
                judged = copy.copy(output)
                _write_result(model, prediction, resizing, judged)
                for judge in judges:
                    judge.process(None, [judged.to_dict()])

    def _match(
        self,
        model: _Shell,
        predictions: Sequence[Prediction],
        resizing: Resizing,
        output: BaseDataElement,
    ) -> None:
        last = predictions[-1]
        if self.statistics is None:
            _, num_queries, num_logits = last.class_logits.shape
            self.statistics = QueryStatistics.empty(num_queries, num_logits - 1, len(predictions))
        target = _target(model, output, resizing, last.class_logits.device)
        partners = [np.full(0, -1)] * len(predictions)
        if target.num_segments:
            with torch.random.fork_rng():
                torch.manual_seed(_SEED)
                found = model.decode_head.criterion.assigner(predictions, stack_targets([target]))
            pairs = torch.stack([found.layers, found.queries, found.segments]).cpu().numpy()
            partners = partners_by_layer(pairs, num_layers=len(predictions), num_segments=target.num_segments)
        masks = None
        if last.has_masks:
            logits = resize_maps(last.mask_logits(), resizing.canvas)[0]
            masks = logits[:, : resizing.crop[0], : resizing.crop[1]] > 0
        self.statistics.add_image(last.class_logits[0], masks, partners=partners, labels=target.labels.cpu().numpy())


def _unwrapped(runner: Runner) -> _Shell:
    return getattr(runner.model, "module", runner.model)


def _check_model(model: nn.Module) -> None:
    head = getattr(model, "decode_head", None)
    if not isinstance(head, MaskHead):
        raise InvalidValueError(
            f"model.decode_head: expected a MaskHead, whose queries can be looked at, got {type(head).__name__}. "
            "Per-pixel heads have none; `errors` and `confusion` take them."
        )
    if not hasattr(head.criterion, "assigner"):
        raise InvalidValueError(
            "model.decode_head.criterion: expected one with an assigner, which says what queries are matched with, got "
            f"{type(head.criterion).__name__}."
        )
    if model.test_cfg.mode != "whole":
        raise InvalidValueError(
            "model.test_cfg.mode is 'slide'; expected 'whole', because queries look at one window each. Add "
            "--cfg-options model.test_cfg.mode=whole."
        )


def _boxes_suffice(model: nn.Module) -> bool:
    cfg: _Shell = model.test_cfg
    return isinstance(model, MaskDetector) and not cfg.panoptic and not cfg.semantic and not _has_mask_head(model)


def _has_mask_head(model: _Shell) -> bool:
    return getattr(model.decode_head.query_decoder, "mask_head", None) is not None


def _shape(sample: BaseDataElement, canvas: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the image on its canvas, without padding."""
    padding = sample.metainfo.get("img_padding_size") or sample.metainfo.get("padding_size")
    if padding is not None:
        return canvas[0] - int(padding[3]), canvas[1] - int(padding[1])
    height, width = sample.metainfo.get("img_shape", canvas)[:2]
    return min(int(height), canvas[0]), min(int(width), canvas[1])


def _write_result(model: _Shell, prediction: Prediction, resizing: Resizing, sample: BaseDataElement) -> None:
    """What the model would give if this were its last layer."""
    masks = prediction.mask_logits() if prediction.has_masks else None
    if isinstance(model, MaskDetector):
        activation = model.decode_head.class_activation
        outputs = QueryOutputs(prediction.class_logits, masks, predicted_boxes(prediction), activation)
        (result,) = detector_results(outputs, resizing, model.is_thing, num_things=model.num_things, cfg=model.test_cfg)
        result.write(sample)
        return
    assert masks is not None
    votes = vote_logits(prediction.class_logits, model.decode_head.class_activation)
    (labels,) = label_maps(votes, masks, resizing, resize_scores=True)
    write_semantic(sample, labels)


def _target(model: _Shell, sample: BaseDataElement, resizing: Resizing, device: torch.device) -> MaskTarget:
    """The true segments on a canvas of the annotation's resolution.

    Masks are compared at points whose coordinates are fractions of the canvas, so resolutions need not be equal.
    """
    truth = copy.copy(sample).to(device)
    if isinstance(model, MaskDetector):
        truth = _truth_alone(truth, resizing.size)
        target = read_segments_target(truth, model.is_thing, with_boxes=model.decode_head.reads_boxes)
        if target.boxes is not None and model.decode_head.box_frame == "canvas":
            shares = [resizing.crop[axis] / resizing.canvas[axis] for axis in (1, 0)] * 2
            target = replace(target, boxes=target.boxes * target.boxes.new_tensor(shares))
    else:
        batch = read_targets([truth], model.decode_head.num_classes, ignore_index=model.ignore_index)
        target = MaskTarget(batch.labels[0], batch.segment_maps[0].long(), batch.names[0])
    height, width = (
        round(side * canvas / crop)
        for side, canvas, crop in zip(resizing.size, resizing.canvas, resizing.crop, strict=True)
    )
    missing = (0, width - target.segment_map.shape[-1], 0, height - target.segment_map.shape[-2])
    return MaskTarget(target.labels, F.pad(target.segment_map, missing, value=VOID), target.name, target.boxes)


def _truth_alone(sample: BaseDataElement, size: tuple[int, int]) -> BaseDataElement:
    """The annotation of a sample; its own sizes are those of the resized image."""
    element = BaseDataElement(metainfo=dict(img_path=sample.metainfo.get("img_path"), img_shape=size))
    for name in ("gt_instances", "gt_sem_seg", "ignored_instances"):
        if name in sample and len(sample.get(name).keys()):
            setattr(element, name, sample.get(name))
    return element
