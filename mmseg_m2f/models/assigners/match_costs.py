"""Match costs that a config names, and what they compare; each is thin over a function in `core.matching`."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core import matching
from mmseg_m2f.core.targets import required_boxes
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TASK_UTILS
from mmseg_m2f.structures import MaskReadings, MaskSampling, MaskSums, Prediction, TargetBatch, boxes_of


class BoxPairs(NamedTuple):
    """Boxes to be paired: centre x, centre y, width, height, in [0, 1] of the decoder's `box_frame`."""

    predicted: Float[Tensor, "B L Q 4"]
    true: Float[Tensor, "B L G 4"]


class MatchInputs:
    """What a match cost may compare: the queries of some layers and images, and the images' segments.

    Segments are padded to the same number G; costs of the padding are ignored. Masks and boxes are computed on first
    use by a cost, and not at all if no cost uses them.

    Args:
        predictions: of the layers, in float32, for all images of the batch.
        targets: of the batch.
        images: which images of the batch.
        sampling: at which points masks are compared.
    """

    def __init__(
        self, predictions: Sequence[Prediction], targets: TargetBatch, images: slice, sampling: MaskSampling | None
    ) -> None:
        self._predictions, self._targets, self._images, self._sampling = predictions, targets, images, sampling

    @cached_property
    def class_logits(self) -> Float[Tensor, "B L Q K1"]:
        return torch.stack([prediction.class_logits[self._images] for prediction in self._predictions], 1)

    @property
    def labels(self) -> Int[Tensor, "B L G"]:
        return self._targets.labels[self._images].unsqueeze(1).expand(-1, len(self._predictions), -1)

    @cached_property
    def masks(self) -> MaskReadings:
        """Logits `B L Q P`, masks `B L G P` and validity `B L P` at points shared by queries and segments.

        Raises:
            ValueError: the criterion has no sampling.
        """
        return self._required_sampling().for_matching(self._predictions, self._targets, self._images)

    @cached_property
    def mask_sums(self) -> MaskSums:
        """Sums over the points; a GPU's kernel computes them without reading logits and masks first.

        Raises:
            ValueError: the criterion has no sampling.
        """
        if "masks" not in self.__dict__:
            sums = self._required_sampling().sums_for_matching(self._predictions, self._targets, self._images)
            if sums is not None:
                return sums
        return matching.mask_sums(*self.masks)

    @cached_property
    def boxes(self) -> BoxPairs:
        """Boxes of queries and segments.

        Raises:
            ValueError: the decoder predicts no boxes, or a target has none.
        """
        predicted = torch.stack([boxes_of(prediction)[self._images] for prediction in self._predictions], 1)
        true = required_boxes(self._targets)[self._images].unsqueeze(1)
        return BoxPairs(predicted, true.expand(-1, len(self._predictions), -1, -1))

    def _required_sampling(self) -> MaskSampling:
        if self._sampling is None:
            raise InvalidValueError(
                "A match cost compares masks, but the criterion has no sampling. Set "
                "decode_head.criterion.sampling, or match by class and box alone."
            )
        return self._sampling


@TASK_UTILS.register_module()
class ClassCost:
    """Minus the probability of the segment's class: -w · p_c."""

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.class_cost(inputs.class_logits, inputs.labels)


@TASK_UTILS.register_module()
class ClassFocalCost:
    """Focal loss of the segment's class being there, less that of its not being there, on sigmoids."""

    def __init__(self, weight: float = 4.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        cost = matching.class_focal_cost(inputs.class_logits, inputs.labels, alpha=self.alpha, gamma=self.gamma)
        return self.weight * cost


@TASK_UTILS.register_module()
class MaskBCECost:
    """Binary cross-entropy between mask logits and masks at points."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.mask_bce_cost(inputs.mask_sums)


@TASK_UTILS.register_module()
class MaskDiceCost:
    """Dice distance between mask probabilities and masks at points."""

    def __init__(self, weight: float = 5.0, smooth: float = 1.0) -> None:
        self.weight, self.smooth = weight, smooth

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.mask_dice_cost(inputs.mask_sums, smooth=self.smooth)


@TASK_UTILS.register_module()
class MaskFocalCost:
    """Focal loss between mask logits and masks."""

    def __init__(self, weight: float = 20.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.mask_focal_cost(*inputs.masks, alpha=self.alpha, gamma=self.gamma)


@TASK_UTILS.register_module()
class BoxL1Cost:
    """Sum of the absolute differences of centre, width and height, as fractions of the image."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.box_l1_cost(*inputs.boxes)


@TASK_UTILS.register_module()
class BoxGIoUCost:
    """Minus the generalized IoU."""

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B L Q G"]:
        return self.weight * matching.box_giou_cost(*inputs.boxes)
