"""Masks compared at random points (PointRend, arXiv 1912.08193, 3.1; Mask2Former, arXiv 2112.01527, 3.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.points import Taps, find_taps, sample_points, sample_rows
from mmseg_m2f.core.targets import read_segments
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers import point_reading
from mmseg_m2f.layers.matrix_products import batched_products
from mmseg_m2f.models.sampling.full_masks import all_mask_logits
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import (
    MaskPrediction,
    MaskReadings,
    MaskSums,
    Prediction,
    TargetBatch,
    share_mask_features,
)

#: Features of points.
_CHUNK = ChunkBudget(cpu=2**23, gpu=2**26)


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
        """Mask logits of all queries, or masks of all segments if there are more, at every point; or points alone."""
        if isinstance(prediction, MaskPrediction) and point_reading.has_gpu_kernel(prediction.mask_features):
            return self.num_points * 2
        return self.num_points * max(prediction.class_logits.shape[1], targets.labels.shape[1])

    def size_in_loss(self, targets: TargetBatch) -> int:
        """The candidates."""
        return self.num_candidates

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice) -> MaskReadings:
        """Logits `B L Q P`, masks `B L G P` and validity `B L P` at points drawn for each image and layer in turn."""
        points, rows = self._draw_for_matching(predictions, images)
        masks, validity = read_segments(targets.framed_maps, points.flatten(0, 1), rows, targets.labels.shape[1])
        logits = _logits_at(predictions, images, points)
        return MaskReadings(logits, masks.unflatten(0, points.shape[:2]), validity.unflatten(0, points.shape[:2]))

    def sums_for_matching(
        self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice
    ) -> MaskSums | None:
        """Sums over such points by a GPU's kernel; None where there is none, or layers share no mask features."""
        if not share_mask_features(predictions) or not point_reading.has_gpu_kernel(predictions[0].mask_features):
            return None
        points, rows = self._draw_for_matching(predictions, images)
        embeddings = torch.stack([each.mask_embeddings[images] for each in predictions], 1)
        sums = point_reading.mask_sums(
            embeddings.flatten(0, 1),
            predictions[0].mask_features,
            points.flatten(0, 1),
            rows,
            targets.framed_maps,
            targets.labels.shape[1],
        )
        return MaskSums(*(part.unflatten(0, points.shape[:2]) for part in sums))

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
            uncertain = point_reading.pick_uncertain(
                logits,
                self._draw(logits, self.num_candidates),  # the largest tensor: freed before the losses
                self.num_uncertain,
                framed_maps=targets.framed_maps,
                images=images,
                labels=labels,
            )
            points = torch.cat([uncertain, self._draw(logits, self.num_points - self.num_uncertain)], 1)
            masks, validity = point_reading.read_pairs(targets.framed_maps, points, images, segments, labels)
        return MaskReadings(sample_points(logits.unsqueeze(1), points).squeeze(1), masks, validity)

    def _draw_for_matching(
        self, predictions: Sequence[Prediction] | Sequence[MaskPrediction], images: slice
    ) -> tuple[Float[Tensor, "B L P 2"], Int[Tensor, "N"]]:
        """Points of each layer of some images, and the number of the image of each of the N = B L rows."""
        like = predictions[0].class_logits
        numbers = torch.arange(len(like), device=like.device)[images]
        points = torch.rand(len(numbers), len(predictions), self.num_points, 2, device=like.device).to(like.dtype)
        return points, numbers.unsqueeze(1).expand(points.shape[:2]).flatten()

    @staticmethod
    def _draw(like: Float[Tensor, "N _ _"], count: int) -> Float[Tensor, "N P 2"]:
        return torch.rand(len(like), count, 2, device=like.device).to(like.dtype)


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
        del readings  # larger than what is computed from it
    return torch.cat(products).unflatten(0, points.shape[:2])
