"""Losses of matched pairs in every supervised layer (arXiv 2112.01527, section 3.3; 2005.12872, section 3.1).

Deviations from the official release and mmdet, both undone by `reference="mmdet"`:
- void pixels (ignore label, padding) have weight 0 in the mask costs and losses instead of being trained as background
  (`void_is_background=True` undoes this alone); crowds are void in the costs, and in the losses of segments of their
  class, which may be part of them;
- the mask and box losses are divided by the number of ground-truth segments over all ranks (the official rule), not by
  mmdet's number of matched pairs, in which, for masks, an empty image counts as one.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from mmengine import dist
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.query_similarity import query_similarity
from mmseg_m2f.core.targets import required_boxes, stack_targets
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.losses.criterion_losses import ClassLoss
from mmseg_m2f.models.losses.map_losses import Rows, map_losses, product_losses
from mmseg_m2f.registry import MODELS, TASK_UTILS
from mmseg_m2f.structures import (
    Assignment,
    MaskPrediction,
    MaskReadings,
    MaskSampling,
    MaskTarget,
    Prediction,
    TargetBatch,
    TrainingPredictions,
    boxes_of,
    share_mask_features,
)

#: Points at which matched masks are read, candidates included.
_CHUNK = ChunkBudget(cpu=2**22, gpu=2**24)


@MODELS.register_module()
class MaskCriterion(nn.Module):
    """Matches every layer's predictions with the segments and adds up class, mask and box losses.

    Args:
        assigner: decides which query is matched with which segment.
        loss_cls, loss_mask, loss_dice, loss_bbox, loss_iou: the losses; each knows its weight. Masks are compared in
            the layers that have them: in all, or in DETR's last alone.
        loss_orthogonality: keeps mask embeddings apart, see `QueryOrthogonalityLoss`; not part of any published recipe.
        sampling: at which points masks are compared, in matching and in the losses.
        void_is_background: train pixels of the ignore label, padding and crowds as outside every mask.
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
        loss_orthogonality: ConfigDict | dict | None = None,
        sampling: ConfigDict | dict | None = None,
        void_is_background: bool = False,
        reference: str | None = None,
    ) -> None:
        super().__init__()
        if reference not in (None, "mmdet"):
            raise InvalidValueError(f"MaskCriterion: reference must be None or 'mmdet', got {reference!r}.")
        mask_losses = dict(loss_mask=loss_mask, loss_dice=loss_dice)
        box_losses = dict(loss_bbox=loss_bbox, loss_iou=loss_iou)
        if sampling is None and any(mask_losses.values()):
            raise InvalidValueError(
                "MaskCriterion: loss_mask and loss_dice compare masks, but sampling is None. Set "
                "sampling=dict(type='mmseg_m2f.PointSampling') or FullMaskSampling."
            )
        self.sampling = None if sampling is None else TASK_UTILS.build(sampling)
        self.reference = reference
        self.void_is_background = void_is_background or reference is not None
        self.assigner = TASK_UTILS.build(assigner, default_args=dict(sampling=self.sampling))
        self.loss_cls = MODELS.build(loss_cls)
        if reference is not None and isinstance(self.loss_cls, ClassLoss):
            self.loss_cls.per_rank = True
        self.loss_orthogonality = None if loss_orthogonality is None else MODELS.build(loss_orthogonality)
        self.mask_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in mask_losses.items() if loss})
        self.box_losses = nn.ModuleDict({name: MODELS.build(loss) for name, loss in box_losses.items() if loss})

    def forward(
        self,
        predictions: Sequence[Prediction] | TrainingPredictions,
        targets: TargetBatch | Sequence[MaskTarget],
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses under mmdet's names: the last layer's `loss_*`, the others' `d0.loss_*`, `d1.loss_*` ….

        Those of the cells that became queries are `enc_loss_*`. Those of noisy copies of the segments are `dn_loss_*`
        and `d0.dn_loss_*` …; copies are not matched, and their losses are divided by their number.

        Logged, not trained on: `surplus_segments` counts the segments that found no query because there are too few;
        `query_similarity` is the mean absolute cosine between the last layer's mask embeddings of an image, where
        there are any.

        Raises:
            ValueError: a loss looks at masks or boxes that the decoder does not predict.
        """
        if not isinstance(predictions, TrainingPredictions):
            predictions = TrainingPredictions(list(predictions))
        layers, encoder, denoising = predictions
        if self.mask_losses and not layers[-1].has_masks:
            raise InvalidValueError(
                "MaskCriterion: loss_mask and loss_dice need masks, but the decoder predicts none. Give "
                "decode_head.query_decoder a mask_head, or take the two losses out."
            )
        matched = [*layers] if encoder is None else [encoder, *layers]
        batch = stack_targets(targets)
        if self.void_is_background:
            batch = batch.with_void_as_background()
        if self.reference:
            # mmdet matches and samples layer by layer; its random numbers depend on this order.
            parts = [self._losses([prediction], batch) for prediction in matched]
            per_layer = {name: torch.cat([part[name] for part in parts if name in part]) for name in parts[-1]}
        else:
            per_layer = self._losses(matched, batch)
        num_queries = layers[0].class_logits.shape[1]
        surplus = sum(max(count - num_queries, 0) for count in batch.num_segments)
        prefixes = [f"d{layer}." for layer in range(len(layers) - 1)] + [""]
        named = _named(per_layer, [*["enc_"][: len(matched) - len(layers)], *prefixes])
        if denoising is not None:
            noisy = self._compare(denoising.predictions, batch, denoising.assignment, copies=max(denoising.groups, 1))
            named |= _named({f"dn_{name}": values for name, values in noisy.items()}, prefixes)
        named["surplus_segments"] = layers[0].class_logits.new_full((), surplus, dtype=torch.float32)
        if isinstance(layers[-1], MaskPrediction):
            named["query_similarity"] = query_similarity(layers[-1].mask_embeddings.detach())
        return named

    def _losses(self, predictions: list[Prediction], targets: TargetBatch) -> dict[str, Float[Tensor, "_"]]:
        """Each loss in every layer that has it: all of them, or the last few."""
        pairs = self.assigner(predictions, targets, image_by_image=self.reference is not None)
        losses = self._compare(predictions, targets, pairs)
        if self.loss_orthogonality is not None:
            losses["loss_orthogonality"] = self._orthogonality_losses(predictions, pairs)
        return losses

    def _compare(
        self, predictions: Sequence[Prediction], targets: TargetBatch, pairs: Assignment, *, copies: int = 1
    ) -> dict[str, Float[Tensor, "_"]]:
        """Each loss of given pairs, in every layer that has it; `copies` queries may be paired with each segment."""
        predictions = list(predictions)
        num_masks, num_boxes = self._num_pairs(predictions[0], targets.num_segments) * copies
        losses = dict(loss_cls=self._class_losses(predictions, targets, pairs, num_boxes))
        with torch.autocast(losses["loss_cls"].device.type, enabled=False):
            if self.box_losses:
                values = self._box_losses(predictions, targets, pairs)
                losses |= _per_layer(self.box_losses, values / num_boxes, pairs.layers, len(predictions))
            if self.mask_losses and predictions[-1].has_masks:
                values, layers = self._mask_losses(predictions, targets, pairs)
                per_layer = _per_layer(self.mask_losses, values / num_masks, layers, len(predictions))
                without = sum(not prediction.has_masks for prediction in predictions)  # the first layers
                losses |= {name: value[without:] for name, value in per_layer.items()}
        return losses

    def _class_losses(
        self, predictions: list[Prediction], targets: TargetBatch, pairs: Assignment, num_segments: Float[Tensor, ""]
    ) -> Float[Tensor, "L"]:
        logits = torch.stack([p.class_logits for p in predictions])  # L B Q K1
        classes = targets.labels.new_full(logits.shape[:-1], logits.shape[-1] - self.loss_cls.num_other_outputs)
        classes[pairs.layers, pairs.images, pairs.queries] = targets.labels[pairs.images, pairs.segments]
        return self.loss_cls(logits.flatten(1, 2), classes.flatten(1), num_segments)

    def _orthogonality_losses(self, predictions: list[Prediction], pairs: Assignment) -> Float[Tensor, "L"]:
        embeddings = torch.stack([_mask_embeddings(prediction) for prediction in predictions])
        matched = torch.zeros(embeddings.shape[:-1], dtype=torch.bool, device=embeddings.device)
        matched[pairs.layers, pairs.images, pairs.queries] = True
        assert self.loss_orthogonality is not None
        return self.loss_orthogonality(embeddings, matched)

    def _box_losses(
        self, predictions: list[Prediction], targets: TargetBatch, pairs: Assignment
    ) -> Float[Tensor, "V N"]:
        boxes = torch.stack([boxes_of(prediction).float() for prediction in predictions])
        found = boxes[pairs.layers, pairs.images, pairs.queries]
        true = required_boxes(targets)[pairs.images, pairs.segments]
        return torch.stack([loss(found, true) for loss in self.box_losses.values()])

    def _mask_losses(
        self, predictions: list[Prediction], targets: TargetBatch, pairs: Assignment
    ) -> tuple[Float[Tensor, "V N"], Int[Tensor, "N"]]:
        """Values of the mask losses of all pairs whose layer has masks, and the layers of those pairs."""
        assert self.sampling is not None
        losses = list(self.mask_losses.values())
        chunk = _CHUNK.fitting(self.sampling.size_in_loss(targets), targets.labels.device)
        if self.reference:  # one draw for all images
            chunk = max(len(pairs.layers), len(pairs.counts) * max(map(sum, pairs.counts)), 1)
        values, layers = [], []
        for layer, own in _groups(predictions, pairs):
            read = partial(_read, self.sampling, targets, own.images, own.segments)
            first = predictions[layer]
            if isinstance(first, MaskPrediction):
                stacked = torch.stack([_mask_embeddings(predictions[layer + i]) for i in range(len(own.counts[0]))])
                embeddings = stacked[own.layers - layer, own.images, own.queries].float()
                counts = [sum(count) for count in own.counts]
                found = product_losses(
                    embeddings, first.mask_features, own.images, read, losses, counts=counts, chunk=chunk
                )
            else:
                maps = first.float().mask_logits_of(own.images, own.queries).float()
                found = map_losses(maps, read, losses, chunk=chunk)
            values.append(found)
            layers.append(own.layers)
        return torch.cat(values, 1), torch.cat(layers)

    def _num_pairs(self, like: Prediction, num_segments: Sequence[int]) -> Float[Tensor, "2"]:
        """Masks and boxes per rank that their losses are divided by, at least 1."""
        num_queries = like.class_logits.shape[1]
        if self.reference:
            matched = [min(count, num_queries) for count in num_segments]
            counts = (sum(max(count, 1) for count in matched), sum(matched))
        else:
            counts = (sum(num_segments),) * 2
        # Filled on the device: nothing is uploaded.
        total = torch.stack([like.class_logits.new_full((), count, dtype=torch.float32) for count in counts])
        dist.all_reduce(total, "mean")
        return total.clamp(min=1)


def _mask_embeddings(prediction: Prediction) -> Float[Tensor, "B Q C"]:
    if not isinstance(prediction, MaskPrediction):
        raise InvalidValueError(
            "MaskCriterion: loss_orthogonality compares mask embeddings, but the decoder predicts boxes. Take the loss "
            "out of decode_head.criterion."
        )
    return prediction.mask_embeddings


def _read(
    sampling: MaskSampling,
    targets: TargetBatch,
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
    maps: Float[Tensor, "n H W"],
    rows: Rows,
) -> MaskReadings:
    return sampling.for_loss(maps, targets, images[rows], segments[rows])


def _groups(predictions: list[Prediction], pairs: Assignment) -> Iterator[tuple[int, Assignment]]:
    """The first layer and the pairs of all layers together, or of each in turn where they share no mask features.

    Layers without masks are left out; `counts` are those of the layers of the group.
    """
    if share_mask_features(predictions):
        yield 0, pairs
        return
    order = pairs.layers.argsort(stable=True)
    first = 0
    for layer, prediction in enumerate(predictions):
        counts = [[count[layer]] for count in pairs.counts]
        rows = order[first : first + sum(count for (count,) in counts)]
        first += len(rows)
        if prediction.has_masks:
            layers, images, queries, segments = (column[rows] for column in pairs[:4])
            yield layer, Assignment(layers, images, queries, segments, counts)


def _per_layer(
    names: Iterable[str], values: Float[Tensor, "V N"], layers: Int[Tensor, "N"], num_layers: int
) -> dict[str, Float[Tensor, "L"]]:
    """Sums of each row of values over the pairs of each layer."""
    sums = values.new_zeros(len(values), num_layers).index_add(1, layers, values)
    return dict(zip(names, sums, strict=True))


def _named(per_layer: dict[str, Float[Tensor, "_"]], prefixes: Sequence[str]) -> dict[str, Float[Tensor, ""]]:
    """Each layer's with its prefix; losses that fewer layers have are those of the last ones."""
    named: dict[str, Tensor] = {}
    for name, values in per_layer.items():
        for prefix, value in zip(prefixes[len(prefixes) - len(values) :], values.unbind(), strict=True):
            named[f"{prefix}{name}"] = value
    return named
