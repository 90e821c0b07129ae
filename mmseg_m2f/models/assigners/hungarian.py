"""Bipartite matching of queries and segments (arXiv 2005.12872, section 3.1; at points: 2112.01527, 3.3)."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from mmengine.config import ConfigDict
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.matching import solve_assignment
from mmseg_m2f.core.transfer import download, upload
from mmseg_m2f.errors import InvalidValueError, NonFiniteError
from mmseg_m2f.models.assigners.match_costs import MatchInputs
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import Assignment, MaskSampling, Prediction, TargetBatch, in_float32

#: Logits of queries and masks of segments at points.
_CHUNK = ChunkBudget(cpu=2**23, gpu=2**26)


@TASK_UTILS.register_module()
class HungarianAssigner:
    """The cheapest one-to-one pairing in every layer and image, by the sum of the match costs.

    Costs of all layers and images are computed together, as many at a time as a chunk of fixed size holds, travel to
    the host in one copy, and the pairs return in one. An image with more segments than queries keeps the cheapest Q
    pairs; its other segments stay unmatched, and a warning is logged once.

    Args:
        match_costs: the costs to add up.
        sampling: at which points masks are compared; the criterion passes its own, or None if it compares none.

    Raises:
        ValueError: there is no cost.
    """

    def __init__(
        self,
        match_costs: Sequence[ConfigDict | dict],
        *,
        sampling: MaskSampling | None,
    ) -> None:
        if not match_costs:
            raise InvalidValueError(
                "HungarianAssigner: match_costs: expected at least one cost, got none: every query would fit every "
                "segment. Name some, for instance mmseg_m2f.ClassCost."
            )
        self.match_costs = [TASK_UTILS.build(cost) for cost in match_costs]
        self.sampling = sampling
        self._warned = False

    @torch.no_grad()
    def __call__(
        self, predictions: Sequence[Prediction], targets: TargetBatch, *, image_by_image: bool = False
    ) -> Assignment:
        """Pair queries with segments.

        Args:
            image_by_image: draw random points for one image after the other, see `structures.Assigner`.

        Raises:
            NonFiniteError: a cost is not finite; the message names the image and the layer. With several processes, of
                which each waits for the others, such costs count as 0; the loss is then not finite.
        """
        self._warn_about_surplus(predictions[0].class_logits.shape[1], targets)
        with torch.autocast(predictions[0].class_logits.device.type, enabled=False):
            costs = self._costs(in_float32(predictions), targets, image_by_image=image_by_image)
        return _solve(costs, targets)

    def _costs(
        self, predictions: Sequence[Prediction], targets: TargetBatch, *, image_by_image: bool
    ) -> Float[Tensor, "B L Q G"]:
        """Costs of all layers and images, with those of padding after an image's own segments."""
        num_images, num_layers = len(targets.num_segments), len(predictions)
        size = predictions[0].class_logits.shape[1] * targets.labels.shape[1]
        if self.sampling is not None and predictions[0].has_masks:
            size = self.sampling.size_in_matching(predictions[0], targets)
        layers_per_chunk = _CHUNK.fitting(size, targets.labels.device)  # layers of images
        chunk_size = 1 if image_by_image else max(layers_per_chunk // num_layers, 1)
        return torch.cat(
            [
                self._image_costs(predictions, targets, slice(first, first + chunk_size), layers_per_chunk)
                for first in range(0, num_images, chunk_size)
            ]
        )

    def _image_costs(
        self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice, num_layers: int
    ) -> Float[Tensor, "B L Q G"]:
        """Costs of some images, `num_layers` layers at a time."""
        parts = []
        for first in range(0, len(predictions), num_layers):
            inputs = MatchInputs(predictions[first : first + num_layers], targets, images, self.sampling)
            parts.append(torch.stack([cost(inputs) for cost in self.match_costs]).sum(0))
        return torch.cat(parts, 1)

    def _warn_about_surplus(self, num_queries: int, targets: TargetBatch) -> None:
        for name, count in zip(targets.names, targets.num_segments, strict=True):
            if count > num_queries and not self._warned:
                self._warned = True
                print_log(
                    f"{name or 'An image'} has {count} segments, but the decoder has only "
                    f"{num_queries} queries: the surplus is not trained on (counted as `surplus_segments` in the "
                    f"log; this warning appears once). Raise decode_head.query_decoder.num_queries to at least "
                    f"{count}.",
                    logger="current",
                    level=logging.WARNING,
                )


def _solve(costs: Float[Tensor, "B L Q G"], targets: TargetBatch) -> Assignment:
    """Read the costs back, solve every layer and image on the host, and upload the pairs."""
    columns: list[list[np.ndarray]] = [[], [], [], []]
    counts: list[list[int]] = []
    for image, (image_costs, count) in enumerate(zip(download(costs).numpy(), targets.num_segments, strict=True)):
        counts.append([])
        for layer, layer_costs in enumerate(image_costs[..., :count]):
            if not np.isfinite(layer_costs).all():
                layer_costs = _replace_non_finite(layer_costs, layer, targets.names[image])
            queries, segments = solve_assignment(layer_costs)
            counts[-1].append(len(queries))
            found = (np.full_like(queries, layer), np.full_like(queries, image), queries, segments)
            for column, values in zip(columns, found, strict=True):
                column.append(values)
    pairs = torch.from_numpy(np.stack([np.concatenate(column) for column in columns]).astype(np.int64))
    uploaded = upload(pairs, costs.device)
    return Assignment(uploaded[0], uploaded[1], uploaded[2], uploaded[3], counts)


def _replace_non_finite(costs: Float[np.ndarray, "Q G"], layer: int, name: str) -> Float[np.ndarray, "Q G"]:
    """Raise, or pair anyhow where other processes wait for this one: the loss is then not finite, which all see."""
    if get_world_size() > 1:
        return np.nan_to_num(costs, nan=0.0, posinf=0.0, neginf=0.0)
    raise NonFiniteError(
        f"Matching cost of {name or 'an image'}, supervised layer {layer} (0 is before the first decoder "
        f"layer): expected finite values, got {np.count_nonzero(~np.isfinite(costs))} of {costs.size} NaN or "
        "infinite. The prediction itself is no longer finite: look for a diverging loss before this "
        "iteration, lower the learning rate, check the image for NaN, or train without --amp."
    )
