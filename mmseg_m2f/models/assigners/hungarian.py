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
from mmseg_m2f.core.targets import TargetBatch
from mmseg_m2f.models.assigners.match_costs import MatchInputs
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import Assignment, MaskSampling, MaskTarget, Prediction


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
    def __call__(self, predictions: Sequence[Prediction], targets: Sequence[MaskTarget]) -> Assignment:
        """Pair queries with segments.

        Raises:
            ValueError: a cost is not finite; the message names the image and the layer.
        """
        num_queries = predictions[0].class_logits.shape[1]
        self._warn_about_surplus(num_queries, targets)
        device = predictions[0].class_logits.device
        batch = TargetBatch(targets)
        with torch.autocast(device.type, enabled=False):
            costs = torch.stack([self._layer_cost(prediction, batch) for prediction in predictions])
        return _solve(costs, targets)

    def _layer_cost(self, prediction: Prediction, targets: TargetBatch) -> Float[Tensor, "B Q G"]:
        inputs = MatchInputs(prediction.float(), targets, self.sampling)
        return torch.stack([cost(inputs) for cost in self.match_costs]).sum(0)

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


def _solve(costs: Float[Tensor, "L B Q G"], targets: Sequence[MaskTarget]) -> Assignment:
    host_costs = costs.cpu().numpy()  # the one copy from device to host
    columns: list[list[np.ndarray]] = [[], [], [], []]
    counts: list[list[int]] = []
    for layer, layer_costs in enumerate(host_costs):
        counts.append([])
        for image, target in enumerate(targets):
            cost = layer_costs[image, :, : target.num_segments]
            _check_finite(cost, layer, target)
            queries, segments = solve_assignment(cost)
            counts[-1].append(len(queries))
            for column, values in zip(
                columns,
                (np.full_like(queries, layer), np.full_like(queries, image), queries, segments),
                strict=True,
            ):
                column.append(values)
    pairs = torch.from_numpy(np.stack([np.concatenate(column) for column in columns]).astype(np.int64))
    layers, images, queries, segments = pairs.to(costs.device, non_blocking=True)
    return Assignment(layers, images, queries, segments, counts)


def _check_finite(cost: np.ndarray, layer: int, target: MaskTarget) -> None:
    if not np.isfinite(cost).all():
        raise ValueError(
            f"Matching cost of {target.name or 'an image'}, supervised layer {layer} (0 is before the first decoder "
            f"layer): expected finite values, got {np.count_nonzero(~np.isfinite(cost))} of {cost.size} NaN or "
            "infinite. The prediction itself is no longer finite: look for a diverging loss before this "
            "iteration, lower the learning rate, check the image for NaN, or train without --amp."
        )
