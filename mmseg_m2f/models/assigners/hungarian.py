"""Bipartite matching of queries and segments (arXiv 2005.12872, section 3.1; at points: 2112.01527, 3.3)."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor

from mmseg_m2f.core.matching import solve_assignment
from mmseg_m2f.core.targets import MaskSampling, TargetBatch
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.assigners.match_costs import MatchInputs
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import Assignment, MaskTarget, Prediction, in_float32

#: Mask logits that are compared at a time: layers of one image, as many as fit.
_MAX_READINGS = 2**23


@TASK_UTILS.register_module()
class HungarianAssigner:
    """The cheapest one-to-one pairing in every layer and image, by the sum of the match costs.

    The costs of all layers and images travel to the host in one copy and the pairs return in one. An image
    with more segments than queries keeps the cheapest Q; the others go unmatched, which is said once.

    Args:
        match_costs: the costs to add up.
        sampling: where masks are compared; the criterion passes its own, or None if it compares none.
    """

    def __init__(
        self,
        match_costs: Sequence[ConfigDict | dict],
        *,
        sampling: MaskSampling | None,
    ) -> None:
        self.match_costs = [TASK_UTILS.build(cost) for cost in match_costs]
        self.sampling = sampling
        self._warned = False

    @torch.no_grad()
    def __call__(self, predictions: Sequence[Prediction], targets: TargetBatch) -> Assignment:
        """Pair queries with segments.

        Raises:
            ValueError: a cost is not finite; the message names the image and the layer.
        """
        num_queries = predictions[0].class_logits.shape[1]
        self._warn_about_surplus(num_queries, targets.targets)
        with torch.autocast(predictions[0].class_logits.device.type, enabled=False):
            in_float = in_float32(predictions)
            costs = [self._image_costs(in_float, targets, image) for image in range(len(targets.targets))]
        return _solve(costs, targets.targets)

    def _image_costs(
        self, predictions: Sequence[Prediction], targets: TargetBatch, image: int
    ) -> Float[Tensor, "L Q G"]:
        places = 1
        if self.sampling is not None and predictions[0].has_masks:
            places = self.sampling.places_in_matching(predictions[0])
        at_once = max(_MAX_READINGS // (predictions[0].class_logits.shape[1] * places), 1)
        parts = []
        for first in range(0, len(predictions), at_once):
            inputs = MatchInputs(predictions[first : first + at_once], targets, image, self.sampling)
            parts.append(torch.stack([cost(inputs) for cost in self.match_costs]).sum(0))
        return torch.cat(parts)

    def _warn_about_surplus(self, num_queries: int, targets: Sequence[MaskTarget]) -> None:
        for target in targets:
            if target.num_segments > num_queries and not self._warned:
                self._warned = True
                print_log(
                    f"{target.name or 'An image'} has {target.num_segments} segments, but the decoder has only "
                    f"{num_queries} queries: the surplus is not trained on (counted as `surplus_segments` in the "
                    f"log; said once). Raise decode_head.query_decoder.num_queries to at least "
                    f"{target.num_segments}.",
                    logger="current",
                    level=logging.WARNING,
                )


def _solve(costs: Sequence[Float[Tensor, "L Q _"]], targets: Sequence[MaskTarget]) -> Assignment:
    device = costs[0].device
    on_host = torch.cat([cost.flatten() for cost in costs]).cpu()  # the one copy from device to host
    columns: list[list[np.ndarray]] = [[], [], [], []]
    counts: list[list[int]] = []
    flat = on_host.split([cost.numel() for cost in costs])
    for image, (target, numbers, cost) in enumerate(zip(targets, flat, costs, strict=True)):
        counts.append([])
        for layer, layer_cost in enumerate(numbers.view(cost.shape).numpy()):
            _check_finite(layer_cost, layer, target)
            queries, segments = solve_assignment(layer_cost)
            counts[-1].append(len(queries))
            found = (np.full_like(queries, layer), np.full_like(queries, image), queries, segments)
            for column, values in zip(columns, found, strict=True):
                column.append(values)
    pairs = torch.from_numpy(np.stack([np.concatenate(column) for column in columns]).astype(np.int64))
    layers, images, queries, segments = pairs.to(device, non_blocking=True)
    return Assignment(layers, images, queries, segments, counts)


def _check_finite(cost: np.ndarray, layer: int, target: MaskTarget) -> None:
    if not np.isfinite(cost).all():
        raise InvalidValueError(
            f"Matching cost of {target.name or 'an image'}, supervised layer {layer} (0 is before the first decoder "
            f"layer): expected finite values, got {np.count_nonzero(~np.isfinite(cost))} of {cost.size} NaN or "
            "infinite. The prediction itself is no longer finite: look for a diverging loss before this "
            "iteration, lower the learning rate, check the image for NaN, or train without --amp."
        )
