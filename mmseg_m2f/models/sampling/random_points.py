"""Masks compared at random points (PointRend, arXiv 1912.08193, 3.1; Mask2Former, arXiv 2112.01527, 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.points import Taps, find_taps, pick_uncertain, sample_points, sample_rows
from mmseg_m2f.core.targets import is_valid, read_paired_segments, read_segments
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.kernels import point_sampling as kernels
from mmseg_m2f.layers.matrix_products import batched_products
from mmseg_m2f.models.sampling.full_masks import all_mask_logits
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import MaskPrediction, MaskReadings, Prediction, TargetBatch, share_mask_features

#: Features of points.
_CHUNK = ChunkBudget(cpu=2**22, gpu=2**26)


@TASK_UTILS.register_module()
class PointSampling:
    """Random points, in the losses mostly uncertain ones.

    Matching reads uniform points, one draw per layer and image shared by all queries and segments. The losses read
    points of their own for each pair: of `num_points`, the share `importance` are the most uncertain (logits nearest to
    0) of `oversample * num_points` uniform candidates that are not void, the others are uniform.

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

    def size_in_matching(self, prediction: Prediction, targets: TargetBatch) -> int:
        """Mask logits of all queries, or masks of all segments if there are more, at every point."""
        return self.num_points * max(prediction.class_logits.shape[1], targets.labels.shape[1])

    def size_in_loss(self, targets: TargetBatch) -> int:
        """The candidates."""
        return self.num_candidates

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice) -> MaskReadings:
        """Logits `B L Q P`, masks `B L G P` and validity `B L P` at points drawn for each image and layer in turn."""
        like = predictions[0].class_logits[images]
        points = torch.rand(len(like), len(predictions), self.num_points, 2, device=like.device).to(like.dtype)
        numbers = torch.arange(len(targets.num_segments), device=like.device)[images]
        rows = numbers.unsqueeze(1).expand(points.shape[:2]).flatten()
        masks, validity = read_segments(targets.framed_maps, points.flatten(0, 1), rows, targets.labels.shape[1])
        logits = _logits_at(predictions, images, points)
        return MaskReadings(logits, masks.unflatten(0, points.shape[:2]), validity.unflatten(0, points.shape[:2]))

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        """Logits, masks and validity `N P` of matched pairs, each at points of its own."""
        labels = targets.labels[images, segments]
        with torch.no_grad():
            candidates = self._draw(logits, self.num_candidates)
            uncertain = _pick_uncertain(logits, candidates, self.num_uncertain, targets.framed_maps, images, labels)
            points = torch.cat([uncertain, self._draw(logits, self.num_points - self.num_uncertain)], 1)
            read = kernels.read_pairs if kernels.is_available(logits) else read_paired_segments
            masks, validity = read(targets.framed_maps, points, images, segments, labels)
        return MaskReadings(sample_points(logits.unsqueeze(1), points).squeeze(1), masks, validity)

    @staticmethod
    def _draw(like: Float[Tensor, "N _ _"], count: int) -> Float[Tensor, "N P 2"]:
        return torch.rand(len(like), count, 2, device=like.device).to(like.dtype)


def _pick_uncertain(
    logits: Float[Tensor, "N _ _"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    framed_maps: Int[Tensor, "B Z H2 W2"],
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Float[Tensor, "N P 2"]:
    if kernels.is_available(logits):
        return kernels.pick_uncertain(
            logits, candidates, num_uncertain, framed_maps=framed_maps, images=images, labels=labels
        )
    usable = is_valid(framed_maps, candidates, images, labels)
    candidate_logits = sample_points(logits.unsqueeze(1), candidates).squeeze(1)
    return pick_uncertain(candidate_logits, candidates, num_uncertain, usable=usable)


def _logits_at(
    predictions: Sequence[Prediction], images: slice, points: Float[Tensor, "B L P 2"]
) -> Float[Tensor, "B L Q P"]:
    """Mask logits of all queries of some images at the points of each layer."""
    if share_mask_features(predictions):
        return _products_at(predictions, images, points)
    layers = [_layer_at(each, images, points[:, [layer]]) for layer, each in enumerate(predictions)]
    return torch.cat(layers, 1)


def _layer_at(prediction: Prediction, images: slice, points: Float[Tensor, "B 1 P 2"]) -> Float[Tensor, "B 1 Q P"]:
    if isinstance(prediction, MaskPrediction):
        return _products_at([prediction], images, points)
    return sample_points(all_mask_logits([prediction], images).squeeze(1), points.squeeze(1)).unsqueeze(1)


def _products_at(
    predictions: Sequence[MaskPrediction], images: slice, points: Float[Tensor, "B L P 2"]
) -> Float[Tensor, "B L Q P"]:
    """The same for layers that share mask features, which are read at the points before they are multiplied."""
    features = predictions[0].mask_features[images]
    height, width = features.shape[-2:]
    taps = find_taps((height, width), points)
    # One table for all images: their pixels are rows, one image after the other.
    table = features.flatten(2).mT.contiguous().flatten(0, 1)
    first = torch.arange(len(features), device=features.device) * (height * width)
    pixels, shares = (taps.pixels + first.view(-1, 1, 1, 1)).flatten(0, 1), taps.shares.flatten(0, 1)
    embeddings = torch.stack([each.mask_embeddings[images] for each in predictions], 1).flatten(0, 1)
    products = []
    # Features at points take more room than what is computed from them.
    chunk_size = _CHUNK.fitting(pixels.shape[1] * table.shape[1], table.device)
    for start in range(0, len(pixels), chunk_size):
        rows = slice(start, start + chunk_size)
        readings = sample_rows(table, Taps(pixels[rows].flatten(0, 1), shares[rows].flatten(0, 1)))
        products.append(batched_products(embeddings[rows], readings.view(-1, points.shape[2], table.shape[1])))
    return torch.cat(products).unflatten(0, points.shape[:2])
