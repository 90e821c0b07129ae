"""What each query does over a data set: classes, sizes, places, how often it is matched; changes between layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CELLS = 16  # of the map of places, along each side


@dataclass
class QueryStatistics:
    """Sums over the images of a data set.

    A query is active in an image where its most probable class in the last layer is not "no object".

    Attributes:
        num_images: N.
        active: in how many images each query is active.
        predicted: of these, how often with which class.
        matched: with how many segments of which true class the last layer's query is matched.
        area_sum: share of the image inside the mask, summed over the images in which the query is active.
        places: share of each cell of the image inside the mask, summed likewise.
        segments: how many segments there are.
        changed: between each layer and the next, how many segments are matched with another query.
    """

    num_images: int
    active: Int[np.ndarray, "Q"]
    predicted: Int[np.ndarray, "Q K"]
    matched: Int[np.ndarray, "Q K"]
    area_sum: Float[np.ndarray, "Q"]
    places: Float[np.ndarray, "Q 16 16"]
    segments: int
    changed: Int[np.ndarray, "L"]

    @classmethod
    def empty(cls, num_queries: int, num_classes: int, num_layers: int) -> "QueryStatistics":
        """Of no image."""
        return cls(
            num_images=0,
            active=np.zeros(num_queries, dtype=np.int64),
            predicted=np.zeros((num_queries, num_classes), dtype=np.int64),
            matched=np.zeros((num_queries, num_classes), dtype=np.int64),
            area_sum=np.zeros(num_queries),
            places=np.zeros((num_queries, _CELLS, _CELLS)),
            segments=0,
            changed=np.zeros(max(num_layers - 1, 0), dtype=np.int64),
        )

    def add_image(
        self,
        class_logits: Float[Tensor, "Q K1"],
        masks: Bool[Tensor, "Q H W"] | None,
        *,
        partners: Sequence[Int[np.ndarray, "G"]],
        labels: Int[np.ndarray, "G"],
    ) -> None:
        """Add one image.

        Args:
            class_logits: of the last layer.
            masks: of the last layer, the image alone; None where there are boxes alone.
            partners: for each layer the query of each segment, -1 where it has none.
            labels: true class of each segment.
        """
        num_classes = class_logits.shape[-1] - 1
        best = class_logits.argmax(-1).cpu().numpy()
        active = np.flatnonzero(best < num_classes)
        self.num_images += 1
        self.active[active] += 1
        self.predicted[active, best[active]] += 1
        if masks is not None and len(active):
            inside = masks[torch.from_numpy(active).to(masks.device)].float()
            self.area_sum[active] += inside.mean((1, 2)).cpu().numpy()
            self.places[active] += F.adaptive_avg_pool2d(inside, _CELLS).cpu().numpy()
        has_partner = partners[-1] >= 0
        np.add.at(self.matched, (partners[-1][has_partner], labels[has_partner]), 1)
        self.segments += len(labels)
        for layer, (before, after) in enumerate(pairwise(partners)):
            self.changed[layer] += np.count_nonzero(before != after)

    def dead(self) -> Int[np.ndarray, "_"]:
        """Queries that are never active and never matched."""
        return np.flatnonzero((self.active == 0) & (self.matched.sum(1) == 0))

    def change_rates(self) -> Float[np.ndarray, "L"]:
        """Share of the segments whose query changes, between each layer and the next."""
        return self.changed / max(self.segments, 1)


def partners_by_layer(
    pairs: Int[np.ndarray, "3 N"], *, num_layers: int, num_segments: int
) -> list[Int[np.ndarray, "G"]]:
    """For each layer the query of each segment of an image, -1 where it has none.

    Args:
        pairs: layer, query and segment of each pair.
    """
    partners = np.full((num_layers, num_segments), -1)
    layers, queries, segments = pairs
    partners[layers, segments] = queries
    return list(partners)
