"""Losses of matched pairs in every supervised layer (arXiv 2112.01527, section 3.3).

Deviations from the official release and mmdet, both undone by `reference="mmdet"`:
- void pixels (ignore label, padding, crowd) are left out of the mask costs and losses instead of being trained
  as background;
- the mask losses are divided by the number of ground-truth segments over all ranks (the official rule), not by
  mmdet's number of matched pairs in which an empty image counts as one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from mmengine import dist
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmseg_m2f.core.points import PointSampling, pick_uncertain, sample_points
from mmseg_m2f.core.targets import is_known, read_paired_segments
from mmseg_m2f.registry import MODELS, TASK_UTILS
from mmseg_m2f.structures import BACKGROUND, VOID, Assignment, MaskPrediction, MaskTarget


@MODELS.register_module()
class MaskCriterion(nn.Module):
    """Matches every layer's predictions with the segments and adds up class and mask losses.

    Args:
        assigner: decides which query answers for which segment.
        loss_cls, loss_mask, loss_dice: the losses; each knows its weight.
        points: how the points of the mask losses are chosen.
        reference: "mmdet" restores its numbers, including the order of random draws, for comparisons.
    """

    def __init__(
        self,
        assigner: ConfigDict | dict,
        *,
        loss_cls: ConfigDict | dict,
        loss_mask: ConfigDict | dict,
        loss_dice: ConfigDict | dict,
        points: PointSampling | ConfigDict | dict | None = None,
        reference: str | None = None,
    ) -> None:
        super().__init__()
        if reference not in (None, "mmdet"):
            raise ValueError(f"MaskCriterion: reference must be None or 'mmdet', got {reference!r}.")
        self.points = points if isinstance(points, PointSampling) else PointSampling(**(points or {}))
        self.reference = reference
        self.assigner = TASK_UTILS.build(
            dict(num_points=self.points.num_points, exclude_void=reference is None) | dict(assigner)
        )
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)

    def forward(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """Losses under mmdet's names: the last layer's `loss_*`, the others' `d0.loss_*`, `d1.loss_*` ….

        `surplus_segments` counts the segments that found no query because there are too few; it is logged,
        not trained on.
        """
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
        segment_maps = torch.stack([target.segment_map for target in targets])
        if self.reference:
            segment_maps = segment_maps.masked_fill(segment_maps == VOID, BACKGROUND)
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
            readings = self._read_points(logits, segment_maps, images, segments)
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

    def _read_points(
        self,
        logits: Float[Tensor, "N H W"],
        segment_maps: Int[Tensor, "B H1 W1"],
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"], Float[Tensor, "N P"]]:
        """Logits, masks and knowledge at the uncertain and random points of each pair."""
        num_pairs, plan = len(logits), self.points
        maps = logits.unsqueeze(1)
        with torch.no_grad():
            candidates = torch.rand(num_pairs, plan.num_candidates, 2, device=logits.device).to(logits.dtype)
            candidate_logits = sample_points(maps, candidates).squeeze(1)
            usable = None
            if not self.reference:
                usable = is_known(segment_maps, candidates, images)
            uncertain = pick_uncertain(candidate_logits, candidates, plan.num_uncertain, usable=usable)
            uniform = torch.rand(num_pairs, plan.num_points - plan.num_uncertain, 2, device=logits.device)
            points = torch.cat([uncertain, uniform.to(logits.dtype)], 1)
            masks, known = read_paired_segments(segment_maps, points, images, segments)
        return sample_points(maps, points).squeeze(1), masks, known

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


def _paired_logits(prediction: MaskPrediction, queries: Int[Tensor, "N"], counts: list[int]) -> Float[Tensor, "N H W"]:
    """Mask logits of the matched queries alone, in float32."""
    features = prediction.mask_features.float()
    with torch.autocast(features.device.type, enabled=False):
        maps = [
            prediction.mask_embeddings[image, chosen].float() @ features[image].flatten(1)
            for image, chosen in enumerate(queries.split(counts))
        ]
    return torch.cat(maps).unflatten(-1, features.shape[-2:])
