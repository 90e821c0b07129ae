"""Losses of matched pairs in every supervised layer (arXiv 2112.01527, section 3.3).

Deviations from the official release and mmdet, both undone by `reference="mmdet"`:
- void pixels (ignore label, padding, crowd) are left out of the mask costs and losses instead of being trained
  as background;
- the mask losses are divided by the number of ground-truth segments over all ranks (the official rule), not by
  mmdet's number of matched pairs in which an empty image counts as one.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from mmengine import dist
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmseg_m2f.core.targets import stack_segment_maps
from mmseg_m2f.registry import MODELS, TASK_UTILS
from mmseg_m2f.structures import BACKGROUND, VOID, Assignment, MaskPrediction, MaskTarget


@MODELS.register_module()
class MaskCriterion(nn.Module):
    """Matches every layer's predictions with the segments and adds up class and mask losses.

    Args:
        assigner: decides which query answers for which segment.
        loss_cls, loss_mask, loss_dice: the losses; each knows its weight.
        sampling: where masks are compared, in matching and in the losses.
        reference: "mmdet" restores its numbers, including the order of random draws, for comparisons.
    """

    def __init__(
        self,
        assigner: ConfigDict | dict,
        *,
        loss_cls: ConfigDict | dict,
        loss_mask: ConfigDict | dict,
        loss_dice: ConfigDict | dict,
        sampling: ConfigDict | dict,
        reference: str | None = None,
    ) -> None:
        super().__init__()
        if reference not in (None, "mmdet"):
            raise ValueError(f"MaskCriterion: reference must be None or 'mmdet', got {reference!r}.")
        self.sampling = TASK_UTILS.build(sampling)
        self.reference = reference
        self.assigner = TASK_UTILS.build(assigner, default_args=dict(sampling=self.sampling))
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)

    def forward(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """Losses under mmdet's names: the last layer's `loss_*`, the others' `d0.loss_*`, `d1.loss_*` ….

        `surplus_segments` counts the segments that found no query because there are too few; it is logged,
        not trained on.
        """
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
        self, predictions: list[MaskPrediction], targets: Sequence[MaskTarget]
    ) -> list[dict[str, Float[Tensor, ""]]]:
        pairs = self.assigner(predictions, targets)
        num_masks = self._num_masks(predictions[0], targets)
        segment_maps = stack_segment_maps([target.segment_map for target in targets])
        class_losses = self._class_losses(predictions, targets, pairs)
        sizes = [sum(layer) for layer in pairs.counts]
        layers = []
        for layer, (images, queries, segments) in enumerate(
            zip(
                pairs.images.split(sizes),
                pairs.queries.split(sizes),
                pairs.segments.split(sizes),
                strict=True,
            )
        ):
            logits = _paired_logits(predictions[layer], queries, pairs.counts[layer])
            with torch.autocast(logits.device.type, enabled=False):
                readings = self.sampling.for_loss(logits, segment_maps, images, segments)
            layers.append(
                dict(
                    loss_cls=class_losses[layer],
                    loss_mask=self.loss_mask(*readings, num_masks),
                    loss_dice=self.loss_dice(*readings, num_masks),
                )
            )
        return layers

    def _class_losses(
        self, predictions: list[MaskPrediction], targets: Sequence[MaskTarget], pairs: Assignment
    ) -> Float[Tensor, "L"]:
        logits = torch.stack([p.class_logits for p in predictions])  # L B Q K1
        labels = pad_sequence([target.labels for target in targets], batch_first=True)
        classes = labels.new_full(logits.shape[:-1], logits.shape[-1] - 1)
        classes[pairs.layers, pairs.images, pairs.queries] = labels[pairs.images, pairs.segments]
        return self.loss_cls(logits.flatten(1, 2), classes.flatten(1))

    def _num_masks(self, like: MaskPrediction, targets: Sequence[MaskTarget]) -> Float[Tensor, ""]:
        """Masks per rank that the mask losses are divided by, at least 1."""
        num_queries = like.class_logits.shape[1]
        if self.reference:
            count = sum(max(min(target.num_segments, num_queries), 1) for target in targets)
        else:
            count = sum(target.num_segments for target in targets)
        total = like.class_logits.new_tensor(float(count), dtype=torch.float32)
        dist.all_reduce(total, "mean")
        return total.clamp(min=1)


def _without_void(target: MaskTarget) -> MaskTarget:
    return replace(target, segment_map=target.segment_map.masked_fill(target.segment_map == VOID, BACKGROUND))


def _paired_logits(prediction: MaskPrediction, queries: Int[Tensor, "N"], counts: list[int]) -> Float[Tensor, "N H W"]:
    """Mask logits of the matched queries alone, in float32."""
    features = prediction.mask_features.float()
    with torch.autocast(features.device.type, enabled=False):
        maps = [
            prediction.mask_embeddings[image, chosen].float() @ features[image].flatten(1)
            for image, chosen in enumerate(queries.split(counts))
        ]
    return torch.cat(maps).unflatten(-1, features.shape[-2:])
