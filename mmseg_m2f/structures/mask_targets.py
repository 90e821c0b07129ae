"""What predictions are compared with: segments, matched pairs, and masks at points."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

#: Value of `MaskTarget.segment_map` where a pixel belongs to no segment and counts as background.
BACKGROUND = -1
#: Value of `MaskTarget.segment_map` where the label is unknown: validity weight 0 in every mask cost and loss.
VOID = -2
#: `CROWD - c` is the value of `MaskTarget.segment_map` where a crowd of class c lies: void to segments of that class,
#: any of which may be part of it, and outside of all others. Matching treats crowds as void.
CROWD = -3
#: Value of a label map, on disk and in memory, where the class is not known: mmseg's `ignore_index`.
IGNORE_INDEX = 255


@dataclass(frozen=True)
class MaskTarget:
    """The segments of one image: a class per segment and maps that say which pixel belongs to which.

    Segments that do not overlap share a slice of the map; semantic and panoptic targets need one slice, overlapping
    instances a few. What is void or crowd is so in the first slice.

    Attributes:
        labels: class of each segment, in [0, K).
        segment_map: index into `labels`, or `BACKGROUND`, `VOID`, `CROWD` minus a class, on the padded canvas.
        name: what to call the image in an error message.
        boxes: of each segment, centre x, centre y, width, height, in [0, 1] of the image without padding, or of the
            canvas for decoders whose `box_frame` says so; None where nobody asked for them.
    """

    labels: Int[Tensor, "G"]
    segment_map: Int[Tensor, "S H W"]
    name: str = ""
    boxes: Float[Tensor, "G 4"] | None = None

    @property
    def num_segments(self) -> int:
        """G; known on the host without waiting for the device."""
        return self.labels.shape[0]


@dataclass(frozen=True, eq=False)
class TargetBatch:
    """The segments of a batch, padded to the largest number of segments G and of slices S.

    Attributes:
        labels: class of each segment, in [0, K); 0 in the padding.
        framed_maps: the images' segment maps (see `MaskTarget`), with a frame of one pixel that says what lies outside
            (see `core.targets.frame`).
        num_segments: of each image, without padding; on the host.
        names: what to call each image in an error message.
        boxes: see `MaskTarget`; 0 in the padding. None where an image has none.
        classes: `labels` without padding, on the host; None where only the device knows them.
    """

    labels: Int[Tensor, "B G"]
    framed_maps: Int[Tensor, "B S H2 W2"]
    num_segments: Sequence[int]
    names: Sequence[str]
    boxes: Float[Tensor, "B G 4"] | None = None
    classes: Sequence[Sequence[int]] | None = None

    @property
    def segment_maps(self) -> Int[Tensor, "B S H W"]:
        """The segment maps without their frame."""
        return self.framed_maps[..., 1:-1, 1:-1]

    def with_void_as_background(self) -> "TargetBatch":
        """The same segments, with void and crowds as background."""
        return replace(self, framed_maps=self.framed_maps.clamp(min=BACKGROUND))

    def classes_on_host(self) -> Sequence[Sequence[int]]:
        """`classes`; where they are None, reads `labels` back, for which the host waits for the device."""
        if self.classes is not None:
            return self.classes
        rows = self.labels.tolist()
        return [row[:count] for row, count in zip(rows, self.num_segments, strict=True)]


class Assignment(NamedTuple):
    """Matched pairs of all supervised layers and images, ordered by image and layer.

    Pair n says: in layer `layers[n]`, query `queries[n]` of image `images[n]` is matched with segment
    `segments[n]`. `counts[b][l]` is the number of pairs of image b and layer l, on the host.
    """

    layers: Int[Tensor, "N"]
    images: Int[Tensor, "N"]
    queries: Int[Tensor, "N"]
    segments: Int[Tensor, "N"]
    counts: list[list[int]]


class MaskReadings(NamedTuple):
    """Mask logits and masks at the same points, and the validity weight of each point in [0, 1] (0 on void).

    `masks` are already multiplied by `validity`. The leading axes are those of the logits; masks of matched pairs
    have theirs, masks to be matched have `B L G`.
    """

    logits: Float[Tensor, "*N P"]
    masks: Float[Tensor, "*G P"]
    validity: Float[Tensor, "*V P"]


class MaskSums(NamedTuple):
    """Sums over P points of logits x, masks m (multiplied by the validity) and validity weights v; p = sigmoid(x).

    Attributes:
        logits_in_masks, probs_in_masks: Σ m·x and Σ m·p, of each query and segment.
        softplus, probs: Σ v·softplus(x) and Σ v·p, of each query.
        masks: Σ m, of each segment.
        validity: Σ v.
    """

    logits_in_masks: Float[Tensor, "*B Q G"]
    probs_in_masks: Float[Tensor, "*B Q G"]
    softplus: Float[Tensor, "*B Q"]
    probs: Float[Tensor, "*B Q"]
    masks: Float[Tensor, "*B G"]
    validity: Float[Tensor, "*B"]
