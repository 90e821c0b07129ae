"""Match costs that a config names; each is thin over a function in `core.matching`."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core import matching
from mmseg_m2f.registry import TASK_UTILS


class MatchInputs(NamedTuple):
    """What a match cost may look at: the queries of one layer and the segments, padded to the same G.

    Masks are given at places shared by the queries and segments of an image, see `structures.MaskReadings`.
    """

    class_logits: Float[Tensor, "B Q K1"]
    labels: Int[Tensor, "B G"]
    mask_logits: Float[Tensor, "B Q P"]
    masks: Float[Tensor, "B G P"]
    known: Float[Tensor, "B P"]


@TASK_UTILS.register_module()
class ClassCost:
    """Minus the probability of the segment's class."""

    def __init__(self, weight: float = 2.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B Q G"]:
        return self.weight * matching.class_cost(inputs.class_logits, inputs.labels)


@TASK_UTILS.register_module()
class MaskBCECost:
    """Binary cross-entropy between mask logits and masks at points."""

    def __init__(self, weight: float = 5.0) -> None:
        self.weight = weight

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B Q G"]:
        cost = matching.mask_bce_cost(inputs.mask_logits, inputs.masks, inputs.known)
        return self.weight * cost


@TASK_UTILS.register_module()
class MaskDiceCost:
    """Dice distance between mask probabilities and masks at points."""

    def __init__(self, weight: float = 5.0, smooth: float = 1.0) -> None:
        self.weight, self.smooth = weight, smooth

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B Q G"]:
        cost = matching.mask_dice_cost(inputs.mask_logits, inputs.masks, inputs.known, smooth=self.smooth)
        return self.weight * cost


@TASK_UTILS.register_module()
class MaskFocalCost:
    """Focal loss between mask logits and masks."""

    def __init__(self, weight: float = 20.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.weight, self.alpha, self.gamma = weight, alpha, gamma

    def __call__(self, inputs: MatchInputs) -> Float[Tensor, "B Q G"]:
        cost = matching.mask_focal_cost(
            inputs.mask_logits, inputs.masks, inputs.known, alpha=self.alpha, gamma=self.gamma
        )
        return self.weight * cost
