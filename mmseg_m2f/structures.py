"""What the parts hand to each other, and the axis letters used in every signature.

`B` images, `Q` queries, `K` classes, `K1` the same plus "no object" last, `G` segments of one image,
`C` channels, `H W` height and width, `N` tokens or matched pairs, `L` levels or supervised layers,
`P` sampled points, `M` attention heads, `S` sheets of a segment map. Coordinates are `xy` in [0, 1] unless the name
says `_px`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Value of `MaskTarget.segment_map` where a pixel belongs to no segment and counts as background.
BACKGROUND = -1
#: Value of `MaskTarget.segment_map` where nothing is known: left out of every mask cost and loss.
VOID = -2


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone returns: channels and strides of its maps, fine to coarse."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class PixelSpec:
    """Channels of what a pixel decoder returns; names are those of `PixelFeatures`."""

    mask_features: int
    levels: tuple[int, ...]
    memory: int


class PixelFeatures(NamedTuple):
    """What a pixel decoder returns.

    `mask_features` is the finest map, multiplied with mask embeddings to give mask logits.
    `levels` are the maps that masked attention looks at in turn, coarse to fine.
    `memory` is the coarse map that global attention looks at.
    """

    mask_features: Float[Tensor, "B C H W"]
    levels: tuple[Float[Tensor, "B C1 _ _"], ...]
    memory: Float[Tensor, "B C2 _ _"]


class MaskPrediction(NamedTuple):
    """Class logits and lazy mask logits of one supervised layer.

    The mask logits of query q are the inner products of its embedding with the mask features. They are
    computed where somebody needs them, for as few queries as needed, and never kept for all layers.
    """

    class_logits: Float[Tensor, "B Q K1"]
    mask_embeddings: Float[Tensor, "B Q C"]
    mask_features: Float[Tensor, "B C H W"]

    def mask_logits(self) -> Float[Tensor, "B Q H W"]:
        """All mask logits at the resolution of the mask features."""
        return torch.einsum("bqc,bchw->bqhw", self.mask_embeddings, self.mask_features)


@dataclass(frozen=True)
class MaskTarget:
    """The segments of one image: a class per segment and maps that say which pixel belongs to which.

    Segments that do not overlap share a map ("sheet"); semantic and panoptic targets need one, overlapping
    instances a few. What is `VOID` is so in the first sheet.

    Attributes:
        labels: class of each segment, in [0, K).
        segment_map: index into `labels`, or `BACKGROUND`, or `VOID`, on the padded canvas.
        name: what to call the image in an error message.
    """

    labels: Int[Tensor, "G"]
    segment_map: Int[Tensor, "S H W"]
    name: str = ""

    @property
    def num_segments(self) -> int:
        """G; known on the host without waiting for the device."""
        return self.labels.shape[0]


class Assignment(NamedTuple):
    """Matched pairs of all supervised layers and images, ordered by layer, image and query.

    Pair n says: in layer `layers[n]`, query `queries[n]` of image `images[n]` answers for segment
    `segments[n]`. `counts[l][b]` is the number of pairs of layer l and image b, on the host.
    """

    layers: Int[Tensor, "N"]
    images: Int[Tensor, "N"]
    queries: Int[Tensor, "N"]
    segments: Int[Tensor, "N"]
    counts: list[list[int]]


@runtime_checkable
class PixelDecoder(Protocol):
    """Turns backbone maps (fine to coarse) into `PixelFeatures`; built with `feature_spec`."""

    spec: PixelSpec

    def __call__(self, features: Sequence[Tensor]) -> PixelFeatures: ...


@runtime_checkable
class QueryDecoder(Protocol):
    """Turns `PixelFeatures` into one prediction per supervised layer, the last one being the answer.

    Built with `num_classes` and `pixel_spec`. With `last_only` the list has one entry and the work for the others is
    skipped where possible.
    """

    def __call__(self, features: PixelFeatures, *, last_only: bool = False) -> list[MaskPrediction]: ...


class MaskReadings(NamedTuple):
    """Mask logits and masks at the same places, and how far each place is known (0 on void, else 1).

    `masks` are already multiplied by `known`. The leading axes are those of the logits; masks of matched pairs
    have theirs, masks to be matched have `B G`.
    """

    logits: Float[Tensor, "... P"]
    masks: Float[Tensor, "... P"]
    known: Float[Tensor, "... P"]


@runtime_checkable
class MaskSampling(Protocol):
    """Decides where masks are compared: at points, or everywhere."""

    def for_matching(
        self, prediction: MaskPrediction, segment_maps: Int[Tensor, "B S H W"], num_segments: int
    ) -> MaskReadings:
        """Logits `B Q P` of all queries, masks `B G P` of all segments, and `B P`, at places they share."""
        ...

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        segment_maps: Int[Tensor, "B S H W"],
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        """Logits, masks and knowledge `N P` of matched pairs; pair n is segment `segments[n]` of `images[n]`."""
        ...


@runtime_checkable
class Assigner(Protocol):
    """Decides which query answers for which segment, for all layers and images in one call."""

    def __call__(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> Assignment: ...
