"""What a part must offer: decoders, criterion and extra losses, sampling of points, assigners."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.structures.features import PixelFeatures, PixelSpec
from mmseg_m2f.structures.mask_targets import Assignment, MaskReadings, MaskSums, MaskTarget, TargetBatch
from mmseg_m2f.structures.predictions import Prediction, TrainingPredictions


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
class TrainingQueryDecoder(Protocol):
    """A `QueryDecoder` that is trained on more than its layers, and reads the targets for it."""

    def predict_for_training(self, features: PixelFeatures, targets: TargetBatch) -> TrainingPredictions:
        """Predictions of all layers, of the encoder and of noisy copies of the segments, as far as there are."""
        ...


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
        self,
        predictions: Sequence[Prediction] | TrainingPredictions,
        targets: "TargetBatch | Sequence[MaskTarget]",
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
