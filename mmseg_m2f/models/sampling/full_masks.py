"""Masks compared at every pixel (MaskFormer, arXiv 2107.06278, section 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.targets import valid_for
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import BACKGROUND, MaskPrediction, MaskReadings, Prediction, TargetBatch


@TASK_UTILS.register_module()
class FullMaskSampling:
    """Every pixel.

    Matching compares at the resolution of the mask logits, where the segments are reduced to the nearest pixel; the
    losses compare on the full canvas, to which the logits are enlarged bilinearly.
    """

    def size_in_matching(self, prediction: Prediction, targets: TargetBatch) -> int:
        """Mask logits of all queries, or masks of all segments if there are more, at every cell.

        Where the decoder has no mask features to tell the number of cells, at every pixel of the canvas.
        """
        maps = prediction.mask_features if isinstance(prediction, MaskPrediction) else targets.framed_maps
        return maps.shape[-2:].numel() * max(prediction.class_logits.shape[1], targets.labels.shape[1])

    def size_in_loss(self, targets: TargetBatch) -> int:
        """The pixels of the canvas."""
        return targets.segment_maps.shape[-2:].numel()

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice) -> MaskReadings:
        """Logits `B L Q P`, masks `B L G P` and validity `B L P` at all cells of the mask logits."""
        logits = all_mask_logits(predictions, images)
        # Segment indices are small integers, which float32 holds exactly.
        maps = targets.segment_maps[images].float()
        ids = F.interpolate(maps, logits.shape[-2:], mode="nearest").long().flatten(2).unsqueeze(1)  # B 1 S P
        segments = torch.arange(targets.labels.shape[1], device=ids.device)
        masks = (ids == segments[:, None, None]).any(2).to(logits.dtype)
        validity = (ids[:, :, 0] >= BACKGROUND).to(logits.dtype)
        num_layers = len(predictions)
        return MaskReadings(
            logits.flatten(3),
            masks.unsqueeze(1).expand(-1, num_layers, -1, -1),
            validity.expand(-1, num_layers, -1),
        )

    def sums_for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice) -> None:
        """No kernel serves all pixels."""
        del predictions, targets, images

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        """Logits, masks and validity `N P` of matched pairs at all pixels of the canvas."""
        ids = targets.segment_maps[images].flatten(2)  # N S P
        size = (targets.segment_maps.shape[-2], targets.segment_maps.shape[-1])
        enlarged = resize_maps(logits.unsqueeze(1), size).flatten(1)
        masks = (ids == segments[:, None, None]).any(1)
        validity = valid_for(targets.labels[images, segments], ids[:, 0])
        return MaskReadings(enlarged, masks.to(logits.dtype), validity.to(logits.dtype))


def all_mask_logits(predictions: Sequence[Prediction], images: slice) -> Float[Tensor, "B L Q H W"]:
    """Mask logits of all queries of some images, layer by layer."""
    layers = []
    for prediction in predictions:
        if isinstance(prediction, MaskPrediction):
            layers.append(prediction.of_images(images).mask_logits())
            continue
        batch, num_queries = prediction.class_logits.shape[:2]
        numbers = torch.arange(batch, device=prediction.class_logits.device)[images]
        queries = torch.arange(num_queries, device=numbers.device).repeat(len(numbers))
        chosen = prediction.mask_logits_of(numbers.repeat_interleave(num_queries), queries)
        layers.append(chosen.unflatten(0, (len(numbers), num_queries)))
    return torch.stack(layers, 1)
