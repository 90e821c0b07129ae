"""What the parts hand to each other, and the axis letters used in every signature.

`B` images, `Q` queries, `K` classes, `K1` the same plus "no object" last, `G` segments of one image,
`C` channels, `H W` height and width, `N` tokens or matched pairs, `L` levels or supervised layers,
`P` sampled points, `M` attention heads, `S` slices of a segment map. Coordinates are `xy` in [0, 1] unless the name
says `_px`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeGuard, overload, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

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
class FeatureSpec:
    """Channels and strides of a backbone's maps, fine to coarse.

    `num_joint_blocks` is the number of remaining blocks of a `TokenStream`; 0 for backbones that return maps alone.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    num_joint_blocks: int = 0


@dataclass(frozen=True)
class PixelSpec:
    """Channels of a pixel decoder's `PixelFeatures`; the names are the same."""

    mask_features: int
    levels: tuple[int, ...]
    memory: int


@runtime_checkable
class TokenBlock(Protocol):
    """One block of a transformer over queries, prefix tokens and patches, in this order."""

    def __call__(
        self, tokens: Float[Tensor, "B N C"], may_attend: Bool[Tensor, "B 1 N N"] | None = None
    ) -> Float[Tensor, "B N C"]:
        """The tokens after the block.

        Args:
            tokens: those of the `TokenStream`, possibly with further ones in front.
            may_attend: True where a token (row) may attend to another; None for everywhere.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenStream(Sequence[Tensor]):
    """Tokens of a plain vision transformer before its last blocks, and these blocks.

    As a sequence of maps it has one element, the patches.

    Attributes:
        tokens: prefix tokens (class, registers), then patches row by row.
        grid: height and width of the patches.
        num_prefix: prefix tokens.
        blocks: the remaining blocks.
        norm: of the tokens after the last block.
    """

    tokens: Float[Tensor, "B N C"]
    grid: tuple[int, int]
    num_prefix: int
    blocks: tuple[TokenBlock, ...]
    norm: Callable[[Tensor], Tensor]

    def patch_map(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C H W"]:
        """The patches, which stand last in `tokens`, as a map."""
        num_patches = self.grid[0] * self.grid[1]
        return tokens[:, tokens.shape[1] - num_patches :].transpose(1, 2).unflatten(-1, self.grid)

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return (self.patch_map(self.tokens),)[index]


class PixelFeatures(NamedTuple):
    """What a pixel decoder returns.

    `mask_features` is the map that masks are computed from: the finest one, multiplied with mask embeddings, except for
    DETR, whose mask head starts from the coarsest.
    `levels` are maps for the queries, coarse to fine: each layer of masked attention attends to one of them.
    `memory` is the coarse map for global attention.
    `valid` is True for cells of `memory` on the image; None without padding, or to treat it as image.
    """

    mask_features: Float[Tensor, "B C H W"]
    levels: tuple[Float[Tensor, "B _ _ _"], ...]
    memory: Float[Tensor, "B C2 H2 W2"]
    valid: Bool[Tensor, "B H2 W2"] | None = None


@runtime_checkable
class Prediction(Protocol):
    """What a query decoder says in one supervised layer."""

    class_logits: Float[Tensor, "B Q K1"]

    @property
    def has_masks(self) -> bool: ...

    def mask_logits(self) -> Float[Tensor, "B Q H W"]:
        """Mask logits of all queries."""
        ...

    def mask_logits_of(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H W"]:
        """Mask logits of query `queries[n]` of image `images[n]`, for every n."""
        ...

    def float(self) -> "Prediction":
        """The same in float32."""
        ...


class MaskPrediction(NamedTuple):
    """Class logits and lazy mask logits of one supervised layer.

    The mask logits of query q are the inner products of its embedding with the mask features. They are
    computed where somebody needs them, for as few queries as needed, and never kept for all layers.
    """

    class_logits: Float[Tensor, "B Q K1"]
    mask_embeddings: Float[Tensor, "B Q C"]
    mask_features: Float[Tensor, "B C H W"]

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True

    def mask_logits(self) -> Float[Tensor, "B Q H W"]:
        """All mask logits at the resolution of the mask features."""
        return torch.einsum("bqc,bchw->bqhw", self.mask_embeddings, self.mask_features)

    def mask_logits_of(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H W"]:
        """Mask logits of query `queries[n]` of image `images[n]`; copies the features of an image for every n."""
        return torch.einsum("nc,nchw->nhw", self.mask_embeddings[images, queries], self.mask_features[images])

    def float(self) -> "MaskPrediction":
        """The same in float32."""
        return MaskPrediction(*(part.float() for part in self))


class MaskMaker(Protocol):
    """Computes the mask logits of query `queries[n]` of image `images[n]`, for every n."""

    def __call__(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H W"]: ...


class BoxPrediction(NamedTuple):
    """Class logits and boxes of one supervised layer, and masks where a mask head makes them.

    Boxes are centre x, centre y, width, height, in [0, 1] of the image without padding.
    """

    class_logits: Float[Tensor, "B Q K1"]
    boxes: Float[Tensor, "B Q 4"]
    masks: MaskMaker | None = None

    @property
    def has_masks(self) -> bool:
        """Whether there is a mask head and this is the layer it looks at."""
        return self.masks is not None

    def mask_logits(self) -> Float[Tensor, "B Q H W"]:
        """Mask logits of all queries."""
        every = torch.arange(self.boxes[..., 0].numel(), device=self.boxes.device)
        num_queries = self.boxes.shape[1]
        return self.mask_logits_of(every // num_queries, every % num_queries).unflatten(0, self.boxes.shape[:2])

    def mask_logits_of(self, images: Int[Tensor, "N"], queries: Int[Tensor, "N"]) -> Float[Tensor, "N H W"]:
        """Mask logits of query `queries[n]` of image `images[n]`, for every n.

        Raises:
            ValueError: there is no mask head, or this layer has no masks.
        """
        if self.masks is None:
            raise InvalidValueError(
                "BoxPrediction: expected masks, but the decoder has no mask head (or this is not its last layer). Give "
                "decode_head.query_decoder a mask_head, or ask for boxes alone."
            )
        return self.masks(images, queries)

    def float(self) -> "BoxPrediction":
        """The same in float32."""
        return BoxPrediction(self.class_logits.float(), self.boxes.float(), self.masks)


def in_float32(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The same in float32; mask features that layers share are converted once and stay shared."""
    features: dict[int, Tensor] = {}
    converted: list[Prediction] = []
    for prediction in predictions:
        if isinstance(prediction, MaskPrediction):
            key = id(prediction.mask_features)
            if key not in features:
                features[key] = prediction.mask_features.float()
            logits, embeddings, _ = prediction
            converted.append(MaskPrediction(logits.float(), embeddings.float(), features[key]))
        else:
            converted.append(prediction.float())
    return converted


def share_mask_features(predictions: Sequence[Prediction]) -> TypeGuard[Sequence[MaskPrediction]]:
    """Whether all layers multiply their embeddings with the same mask features, as most decoders do."""
    first = predictions[0]
    return isinstance(first, MaskPrediction) and all(
        isinstance(each, MaskPrediction) and each.mask_features is first.mask_features for each in predictions
    )


def boxes_of(prediction: Prediction) -> Float[Tensor, "B Q 4"]:
    """The boxes of a prediction.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(prediction, BoxPrediction):
        raise InvalidValueError(
            "Box costs and losses need boxes, but decode_head.query_decoder predicts masks alone. Use BoxDecoder, or "
            "take the box costs and losses out of decode_head.criterion."
        )
    return prediction.boxes


@dataclass(frozen=True)
class MaskTarget:
    """The segments of one image: a class per segment and maps that say which pixel belongs to which.

    Segments that do not overlap share a slice of the map; semantic and panoptic targets need one slice, overlapping
    instances a few. What is void or crowd is so in the first slice.

    Attributes:
        labels: class of each segment, in [0, K).
        segment_map: index into `labels`, or `BACKGROUND`, `VOID`, `CROWD` minus a class, on the padded canvas.
        name: what to call the image in an error message.
        boxes: of each segment, centre x, centre y, width, height, in [0, 1] of the image without padding; None
            where nobody asked for them.
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


@runtime_checkable
class PixelDecoder(Protocol):
    """Turns backbone maps (fine to coarse) into `PixelFeatures`; built with `feature_spec`."""

    spec: PixelSpec

    def __call__(self, features: Sequence[Tensor], valid: Bool[Tensor, "B H W"] | None = None) -> PixelFeatures:
        """Decode maps given fine to coarse; `valid` is True for cells of the coarsest map on the image."""
        ...


@runtime_checkable
class QueryDecoder(Protocol):
    """Turns `PixelFeatures` into one prediction per supervised layer, the last one being the result.

    Built with `num_classes` and `pixel_spec`; its class layer is `cls_embed`. With `last_only` the list has one entry
    and the work for the others is skipped where possible.
    """

    def __call__(self, features: PixelFeatures, *, last_only: bool = False) -> Sequence[Prediction]: ...


@runtime_checkable
class BackboneQueryDecoder(Protocol):
    """A query decoder without a pixel decoder: it reads the backbone's output, maps or a `TokenStream`.

    Built with `num_classes` and `feature_spec`; otherwise like `QueryDecoder`.
    """

    def __call__(self, features: Sequence[Tensor], *, last_only: bool = False) -> Sequence[Prediction]: ...


@runtime_checkable
class Criterion(Protocol):
    """Losses of the predictions of all supervised layers; only losses whose names contain "loss" are trained."""

    @property
    def box_losses(self) -> Collection[str]:
        """Names of the losses that need boxes in the targets; empty where none does."""
        ...

    def __call__(
        self, predictions: Sequence[Prediction], targets: "TargetBatch | Sequence[MaskTarget]"
    ) -> dict[str, Tensor]: ...


@runtime_checkable
class ExtraLoss(Protocol):
    """A loss of the backbone's output, beside the criterion."""

    def __call__(
        self, features: Sequence[Tensor], targets: "TargetBatch | Sequence[MaskTarget]"
    ) -> dict[str, Tensor]: ...


@runtime_checkable
class NeedsExtraLoss(Protocol):
    """Backbone output with a part that only an extra loss trains."""

    def check_extra_losses(self, losses: Collection[object]) -> None:
        """Raise a ValueError where that part is trained and `losses` is empty."""
        ...


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


@runtime_checkable
class MaskSampling(Protocol):
    """Decides at which points masks are compared: at random ones, or everywhere."""

    def size_in_matching(self, prediction: Prediction, targets: TargetBatch) -> int:
        """Numbers in the largest tensor of `for_matching`, per layer and image; bounds its chunks."""
        ...

    def size_in_loss(self, targets: TargetBatch) -> int:
        """At how many points `for_loss` reads each mask; bounds its chunks."""
        ...

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice) -> MaskReadings:
        """Logits `B L Q P` of all queries of some images, masks `B L G P` of all segments, validity `B L P`."""
        ...

    def sums_for_matching(
        self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice
    ) -> MaskSums | None:
        """Sums over such points, where a kernel gives them without reading logits and masks first; else None."""
        ...

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        """Logits, masks and validity `N P` of matched pairs; pair n is segment `segments[n]` of `images[n]`."""
        ...


@runtime_checkable
class Assigner(Protocol):
    """Decides which query is matched with which segment, for all layers and images in one call."""

    def __call__(
        self, predictions: Sequence[Prediction], targets: TargetBatch, *, image_by_image: bool = False
    ) -> Assignment:
        """Pairs of queries and segments.

        Args:
            image_by_image: draw random points for one image after the other, as mmdet does. On a GPU one draw for all
                images gives other numbers.
        """
