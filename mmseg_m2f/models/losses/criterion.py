"""Losses of matched pairs in every supervised layer (arXiv 2112.01527, section 3.3; 2005.12872, section 3.1).

Deviations from the official release and mmdet, both undone by `reference="mmdet"`:
- void pixels (ignore label, padding, crowd) are left out of the mask costs and losses instead of being trained
  as background;
- the mask and box losses are divided by the number of ground-truth segments over all ranks (the official rule), not by
  mmdet's number of matched pairs, in which, for masks, an empty image counts as one.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from mmengine import dist
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.core.targets import TargetBatch
from mmseg_m2f.registry import MODELS, TASK_UTILS
from mmseg_m2f.structures import BACKGROUND, VOID, Assignment, MaskTarget, Prediction, boxes_of


@MODELS.register_module()
class MaskCriterion(nn.Module):
    """Matches every layer's predictions with the segments and adds up class, mask and box losses.

    Args:
        assigner: decides which query answers for which segment.
        loss_cls, loss_mask, loss_dice, loss_bbox, loss_iou: the losses; each knows its weight. Masks are compared in
            the layers that have them: in all, or in DETR's last.
        sampling: where masks are compared, in matching and in the losses.
        reference: "mmdet" restores its numbers, including the order of random draws, for comparisons.
    """

    def __init__(
        self,
        assigner: ConfigDict | dict,
        *,
        loss_cls: ConfigDict | dict,
        loss_mask: ConfigDict | dict | None = None,
        loss_dice: ConfigDict | dict | None = None,
        loss_bbox: ConfigDict | dict | None = None,
        loss_iou: ConfigDict | dict | None = None,
        sampling: ConfigDict | dict | None = None,
        reference: str | None = None,
    ) -> None:
        super().__init__()
        if reference not in (None, "mmdet"):
            raise ValueError(f"MaskCriterion: reference must be None or 'mmdet', got {reference!r}.")
        mask_losses = dict(loss_mask=loss_mask, loss_dice=loss_dice)
        box_losses = dict(loss_bbox=loss_bbox, loss_iou=loss_iou)
        if sampling is None and any(mask_losses.values()):
            raise ValueError(
                "MaskCriterion: loss_mask and loss_dice compare masks, but sampling is None. Set "
                "sampling=dict(type='mmseg_m2f.PointSampling') or FullMaskSampling."
            )
        self.sampling = None if sampling is None else TASK_UTILS.build(sampling)
        self.reference = reference
        self.assigner = TASK_UTILS.build(assigner, default_args=dict(sampling=self.sampling))
        self.loss_cls = MODELS.build(loss_cls)
        self.mask_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in mask_losses.items() if loss})
        self.box_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in box_losses.items() if loss})

    def forward(self, predictions: Sequence[Prediction], targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """Losses under mmdet's names: the last layer's `loss_*`, the others' `d0.loss_*`, `d1.loss_*` ….

        `surplus_segments` counts the segments that found no query because there are too few; it is logged,
        not trained on.

        Raises:
            ValueError: a loss looks at masks or boxes that the decoder does not predict.
        """
        if self.mask_losses and not predictions[-1].has_masks:
            raise ValueError(
                "MaskCriterion: loss_mask and loss_dice need masks, but the decoder predicts none. Give "
                "decode_head.query_decoder a mask_head, or take the two losses out."
            )
        if self.reference:
            targets = [_without_void(target) for target in targets]
        # mmdet matches and samples layer by layer; only then are its random numbers met again.
        batches = [[p] for p in predictions] if self.reference else [list(predictions)]
        per_layer = [layer for batch in batches for layer in self._losses(batch, targets)]
        prefixes = [f"d{layer}." for layer in range(len(predictions) - 1)] + [""]
        named = {
            f"{prefix}{name}": value
            for prefix, layer in zip(prefixes, per_layer, strict=True)
            for name, value in layer.items()
        }
        num_queries = predictions[0].class_logits.shape[1]
        surplus = sum(max(target.num_segments - num_queries, 0) for target in targets)
        return {**named, "surplus_segments": predictions[0].class_logits.new_tensor(float(surplus))}

    def _losses(
        self, predictions: list[Prediction], targets: Sequence[MaskTarget]
    ) -> list[dict[str, Float[Tensor, ""]]]:
        pairs = self.assigner(predictions, targets)
        batch = TargetBatch(targets)
        class_losses = self._class_losses(predictions, batch, pairs)
        layers: list[dict[str, Tensor]] = [dict(loss_cls=loss) for loss in class_losses]
        sizes = [sum(layer) for layer in pairs.counts]
        per_layer = zip(pairs.images.split(sizes), pairs.queries.split(sizes), pairs.segments.split(sizes), strict=True)
        num_masks, num_boxes = self._num_pairs(predictions[0], targets)
        with torch.autocast(class_losses.device.type, enabled=False):
            for index, (images, queries, segments) in enumerate(per_layer):
                prediction, losses = predictions[index], layers[index]
                if self.box_losses:
                    found = boxes_of(prediction).float()[images, queries]
                    true = batch.boxes[images, segments]
                    losses |= {name: loss(found, true, num_boxes) for name, loss in self.box_losses.items()}
                if self.sampling is not None and self.mask_losses and prediction.has_masks:
                    logits = prediction.float().mask_logits_of(queries, pairs.counts[index]).float()
                    readings = self.sampling.for_loss(logits, batch.segment_maps, images, segments)
                    losses |= {name: loss(*readings, num_masks) for name, loss in self.mask_losses.items()}
        return layers

    def _class_losses(
        self, predictions: list[Prediction], targets: TargetBatch, pairs: Assignment
    ) -> Float[Tensor, "L"]:
        logits = torch.stack([p.class_logits for p in predictions])  # L B Q K1
        classes = targets.labels.new_full(logits.shape[:-1], logits.shape[-1] - 1)
        classes[pairs.layers, pairs.images, pairs.queries] = targets.labels[pairs.images, pairs.segments]
        return self.loss_cls(logits.flatten(1, 2), classes.flatten(1))

    def _num_pairs(self, like: Prediction, targets: Sequence[MaskTarget]) -> Float[Tensor, "2"]:
        """Masks and boxes per rank that their losses are divided by, at least 1."""
        num_queries = like.class_logits.shape[1]
        if self.reference:
            matched = [min(target.num_segments, num_queries) for target in targets]
            counts = (sum(max(count, 1) for count in matched), sum(matched))
        else:
            counts = (sum(target.num_segments for target in targets),) * 2
        total = like.class_logits.new_tensor(counts, dtype=torch.float32)
        dist.all_reduce(total, "mean")
        return total.clamp(min=1)


def _without_void(target: MaskTarget) -> MaskTarget:
    return replace(target, segment_map=target.segment_map.masked_fill(target.segment_map == VOID, BACKGROUND))
