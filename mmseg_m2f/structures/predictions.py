"""What query decoders predict: class logits with lazy mask logits or with boxes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures.mask_targets import Assignment


@runtime_checkable
class Prediction(Protocol):
    """What a query decoder says in one supervised layer."""

    @property
    def class_logits(self) -> Float[Tensor, "B Q K1"]: ...

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
    """Class logits, lazy mask logits and, where the decoder has them, boxes of one supervised layer.

    The mask logits of query q are the inner products of its embedding with the mask features. They are
    computed where somebody needs them, for as few queries as needed, and never kept for all layers. Boxes are centre x,
    centre y, width, height, in [0, 1] of what the decoder's `box_frame` says, "image" (without padding) or "canvas".
    """

    class_logits: Float[Tensor, "B Q K1"]
    mask_embeddings: Float[Tensor, "B Q C"]
    mask_features: Float[Tensor, "B C H W"]
    boxes: Float[Tensor, "B Q 4"] | None = None

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
        boxes = None if self.boxes is None else self.boxes.float()
        return MaskPrediction(
            self.class_logits.float(), self.mask_embeddings.float(), self.mask_features.float(), boxes
        )

    def of_images(self, images: slice) -> "MaskPrediction":
        """Those of some images."""
        boxes = None if self.boxes is None else self.boxes[images]
        return MaskPrediction(
            self.class_logits[images], self.mask_embeddings[images], self.mask_features[images], boxes
        )

    def of_queries(self, queries: slice) -> "MaskPrediction":
        """Those of some queries; the mask features stay the same tensor."""
        boxes = None if self.boxes is None else self.boxes[:, queries]
        return MaskPrediction(
            self.class_logits[:, queries], self.mask_embeddings[:, queries], self.mask_features, boxes
        )


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
            converted.append(prediction._replace(mask_features=features[key]).float())
        else:
            converted.append(prediction.float())
    return converted


def share_mask_features(predictions: Sequence[Prediction]) -> TypeGuard[Sequence[MaskPrediction]]:
    """Whether all layers multiply their embeddings with the same mask features, as most decoders do."""
    first = predictions[0]
    return isinstance(first, MaskPrediction) and all(
        isinstance(each, MaskPrediction) and each.mask_features is first.mask_features for each in predictions
    )


def predicted_boxes(prediction: Prediction) -> Float[Tensor, "B Q 4"] | None:
    """The boxes of a prediction, if it has any."""
    return getattr(prediction, "boxes", None)


def boxes_of(prediction: Prediction) -> Float[Tensor, "B Q 4"]:
    """The boxes of a prediction.

    Raises:
        ValueError: it has none.
    """
    boxes = predicted_boxes(prediction)
    if boxes is None:
        raise InvalidValueError(
            "Box costs and losses need boxes, but decode_head.query_decoder predicts masks alone. Use BoxDecoder or "
            "AnchorMaskDecoder, or take the box costs and losses out of decode_head.criterion."
        )
    return boxes


class Denoising(NamedTuple):
    """What a decoder predicts from noisy copies of the segments (DN-DETR, arXiv 2203.01305).

    Attributes:
        predictions: of the copies, in each supervised layer that sees them.
        assignment: which copy stands for which segment.
        groups: copies of each segment; 0 where there is none in this step.
    """

    predictions: Sequence[Prediction]
    assignment: Assignment
    groups: int


class TrainingPredictions(NamedTuple):
    """What a decoder that reads the targets predicts in training.

    Attributes:
        layers: one prediction per supervised layer, the result last.
        encoder: of the cells of the pixel decoder that became queries.
        denoising: see `Denoising`.
    """

    layers: Sequence[Prediction]
    encoder: Prediction | None = None
    denoising: Denoising | None = None
