"""Where masks are compared, in matching and in the losses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.points import Taps, find_taps, pick_uncertain, sample_points, sample_rows
from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.targets import TargetBatch, is_known, known_to, read_paired_segments, read_segments
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.kernels import point_sampling as kernels
from mmseg_m2f.layers.matrix_products import linear
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import BACKGROUND, MaskPrediction, MaskReadings, Prediction


@TASK_UTILS.register_module()
class PointSampling:
    """Random points, in the losses mostly uncertain ones (PointRend, arXiv 1912.08193, 3.1; 2112.01527, 3.3).

    Matching reads uniform points, one draw per layer and image shared by all queries and segments. The losses read
    points of their own for each pair: of `num_points`, the share `importance` are the most uncertain of
    `oversample * num_points` uniform candidates that are known, the others are uniform.

    Raises:
        ValueError: `importance` is not between 0 and 1, or there are fewer candidates than are to be chosen.
    """

    def __init__(self, num_points: int = 12544, *, oversample: float = 3.0, importance: float = 0.75) -> None:
        if not 0 <= importance <= min(oversample, 1):
            raise InvalidValueError(
                f"PointSampling: expected importance in [0, 1] and not above oversample, got importance={importance}, "
                f"oversample={oversample}. Published are 0.75 and 3."
            )
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample)
        self.num_uncertain = int(num_points * importance)

    def places_in_matching(self, prediction: Prediction) -> int:
        return self.num_points

    def places_in_loss(self, targets: TargetBatch) -> int:
        return self.num_candidates

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, image: int) -> MaskReadings:
        maps = targets.framed_maps
        like = predictions[0].class_logits
        points = torch.rand(len(predictions), self.num_points, 2, device=like.device).to(like.dtype)
        images = torch.full((len(predictions),), image, device=like.device)
        masks, known = read_segments(maps, points, images, targets.num_segments[image])
        return MaskReadings(torch.stack(_logits_at(predictions, image, points)), masks, known)

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        labels = targets.labels[images, segments]
        with torch.no_grad():
            candidates = self._draw(logits, self.num_candidates)
            uncertain = _pick_uncertain(logits, candidates, self.num_uncertain, targets, images, labels)
            points = torch.cat([uncertain, self._draw(logits, self.num_points - self.num_uncertain)], 1)
            read = kernels.read_pairs if kernels.is_available(logits) else read_paired_segments
            masks, known = read(targets.framed_maps, points, images, segments, labels)
        return MaskReadings(sample_points(logits.unsqueeze(1), points).squeeze(1), masks, known)

    @staticmethod
    def _draw(like: Float[Tensor, "N _ _"], count: int) -> Float[Tensor, "N P 2"]:
        return torch.rand(len(like), count, 2, device=like.device).to(like.dtype)


def _pick_uncertain(
    logits: Float[Tensor, "N _ _"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    targets: TargetBatch,
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Float[Tensor, "N P 2"]:
    if kernels.is_available(logits):
        return kernels.pick_uncertain(
            logits, candidates, num_uncertain, framed_maps=targets.framed_maps, images=images, labels=labels
        )
    usable = is_known(targets.framed_maps, candidates, images, labels)
    candidate_logits = sample_points(logits.unsqueeze(1), candidates).squeeze(1)
    return pick_uncertain(candidate_logits, candidates, num_uncertain, usable=usable)


def _logits_at(
    predictions: Sequence[Prediction], image: int, points: Float[Tensor, "L P 2"]
) -> list[Float[Tensor, "Q P"]]:
    """Mask logits of all queries of an image at points of each layer; features are read before they are multiplied."""
    logits, features, size, taps = [], None, None, None
    for layer, prediction in enumerate(predictions):
        if not isinstance(prediction, MaskPrediction):
            maps = _all_logits(prediction, image).unsqueeze(0)
            logits.append(sample_points(maps, points[layer : layer + 1]).squeeze(0))
            continue
        if features is not prediction.mask_features:  # most decoders have the same for all layers
            features = prediction.mask_features
            table = features[image].flatten(1).mT.contiguous()
        if taps is None or size != features.shape[-2:]:
            size = features.shape[-2:]
            taps = find_taps((size[0], size[1]), points)
        readings = sample_rows(table, Taps(taps.pixels[layer], taps.shares[layer]))
        logits.append(linear(prediction.mask_embeddings[image], readings))
    return logits


def _all_logits(prediction: Prediction, image: int) -> Float[Tensor, "Q _ _"]:
    num_queries = prediction.class_logits.shape[1]
    return prediction.mask_logits_of(image, torch.arange(num_queries, device=prediction.class_logits.device))


@TASK_UTILS.register_module()
class FullMaskSampling:
    """Every pixel (arXiv 2107.06278, section 3.2).

    Matching compares at the resolution of the mask logits, where the segments are reduced to the nearest pixel; the
    losses compare on the full canvas, to which the logits are enlarged bilinearly.
    """

    def places_in_matching(self, prediction: Prediction) -> int:
        none = torch.zeros(0, dtype=torch.long, device=prediction.class_logits.device)
        return prediction.mask_logits_of(0, none).shape[1:].numel()

    def places_in_loss(self, targets: TargetBatch) -> int:
        return targets.segment_maps.shape[-2:].numel()

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, image: int) -> MaskReadings:
        logits = torch.stack([_all_logits(prediction, image) for prediction in predictions])
        # Segment indices are small integers, which float32 holds exactly.
        sheets = targets.segment_maps[image : image + 1].float()
        ids = F.interpolate(sheets, logits.shape[-2:], mode="nearest").long().flatten(2).squeeze(0)  # S P
        segments = torch.arange(targets.num_segments[image], device=ids.device)
        masks = (ids == segments[:, None, None]).any(1).to(logits.dtype)
        known = (ids[0] >= BACKGROUND).to(logits.dtype)
        num_layers = len(predictions)
        return MaskReadings(logits.flatten(2), masks.expand(num_layers, -1, -1), known.expand(num_layers, -1))

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        ids = targets.segment_maps.flatten(2)[images]  # N S P
        size = (targets.segment_maps.shape[-2], targets.segment_maps.shape[-1])
        enlarged = resize_maps(logits.unsqueeze(1), size).flatten(1)
        masks = (ids == segments[:, None, None]).any(1)
        known = known_to(targets.labels[images, segments], ids[:, 0])
        return MaskReadings(enlarged, masks.to(logits.dtype), known.to(logits.dtype))
