"""Registered losses of the criterion; each calls a function of `core.losses`."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from mmengine import dist
from torch import Tensor, nn

from mmseg_m2f.core import losses
from mmseg_m2f.core.query_similarity import orthogonality_loss
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class ClassLoss(nn.Module):
    """Cross-entropy over K classes and "no object".

    Args:
        loss_weight: factor of the value.
        no_object_weight: weight of queries whose target is "no object".
        class_weight: weights of the K classes in their order, or by name; 1 each unless given. Before the first step
            of a training, names give way to the list in the order of the training data's classes.
        per_rank: with several processes, each divides by the weights of its own images, as published, so that an image
            counts for more where its process has fewer segments. Else all divide by their mean, as one process with
            all images would.
    """

    _class_weights: Tensor
    #: How many outputs of the class layer are no classes.
    num_other_outputs = 1

    def __init__(
        self,
        loss_weight: float = 2.0,
        no_object_weight: float = 0.1,
        class_weight: Sequence[object] | Mapping[str, object] | None = None,
        per_rank: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.no_object_weight = no_object_weight
        self.per_rank = per_rank
        odd = [w for w in self._values(class_weight) if isinstance(w, bool) or not isinstance(w, (int, float))]
        if odd:
            raise InvalidValueError(
                f"ClassLoss: expected numbers as class_weight, a list or by name, got {odd[0]!r}. Give names in a "
                "config file: class_weight={'road': 1.0, 'car': 2.0}."
            )
        self.class_weight = class_weight
        # A buffer moves with the model, once, and not in every step.
        listed = [] if isinstance(class_weight, Mapping) else self._values(class_weight)
        self.register_buffer("_class_weights", torch.tensor(listed), persistent=False)

    @staticmethod
    def _values(class_weight: Sequence[object] | Mapping[str, object] | None) -> list:
        return [*class_weight.values()] if isinstance(class_weight, Mapping) else list(class_weight or ())

    def set_class_weight(self, class_weight: Sequence[float]) -> None:
        """Give the weights of the K classes in their order."""
        self.class_weight = list(class_weight)
        self._class_weights = torch.tensor(self.class_weight, device=self._class_weights.device)

    def forward(
        self, class_logits: Float[Tensor, "L N K1"], classes: Int[Tensor, "L N"], num_segments: Tensor | None = None
    ) -> Float[Tensor, "L"]:
        """One value per layer: Σ w_c · -log p_c / Σ w_c over its queries, where c is the class of a query's target.

        Args:
            classes: K where the target is "no object".
            num_segments: not used.

        Raises:
            ValueError: the number of class weights is not the number of classes, or they are still by name.
        """
        del num_segments
        num_classes = class_logits.shape[-1] - 1
        if isinstance(self.class_weight, Mapping):
            raise InvalidValueError(
                "ClassLoss: expected class_weight as a list, got one by name, and no classes in an order. Train with "
                "tools/train.py, which knows the classes of the data, or list the weights in the order of the classes."
            )
        if self.class_weight is not None and len(self.class_weight) != num_classes:
            raise InvalidValueError(
                f"ClassLoss: class_weight has {len(self.class_weight)} entries, but the head has {num_classes} "
                "classes. Give one weight per class; the weight of 'no object' is no_object_weight."
            )
        weights = class_logits.new_ones(num_classes + 1, dtype=torch.float32)
        if self.class_weight is not None:
            weights[:-1] = self._class_weights
        weights[-1:].fill_(self.no_object_weight)
        normalizer = None
        if not self.per_rank and dist.get_world_size() > 1:
            normalizer = weights[classes].sum(-1)
            dist.all_reduce(normalizer, "mean")
        return self.loss_weight * losses.class_loss(class_logits, classes, weights, normalizer=normalizer)


@MODELS.register_module()
class ClassFocalLoss(nn.Module):
    """Focal loss of K yes-or-no questions per query, for decoders without an output for "no object".

    Sum over queries and classes, not their mean, divided by the number of segments.
    """

    num_other_outputs = 0

    def __init__(self, loss_weight: float = 4.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.loss_weight, self.alpha, self.gamma = loss_weight, alpha, gamma

    def forward(
        self, class_logits: Float[Tensor, "L N K"], classes: Int[Tensor, "L N"], num_segments: Float[Tensor, ""]
    ) -> Float[Tensor, "L"]:
        """One value per layer.

        Args:
            classes: of the queries' targets; K for a query without one.
            num_segments: what the sum is divided by, at least 1.
        """
        total = losses.class_focal_loss(class_logits, classes, alpha=self.alpha, gamma=self.gamma)
        return self.loss_weight * total / num_segments


@MODELS.register_module()
class MaskBCELoss(nn.Module):
    """Binary cross-entropy of mask logits: its mean over the valid points, one value per mask."""

    def __init__(self, loss_weight: float = 5.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self, logits: Float[Tensor, "N P"], masks: Float[Tensor, "N P"], validity: Float[Tensor, "N P"]
    ) -> Float[Tensor, "N"]:
        return self.loss_weight * losses.mask_bce_loss(logits, masks, validity)


@MODELS.register_module()
class MaskDiceLoss(nn.Module):
    """Dice loss `1 - (2 Σ p m + s) / (Σ p + Σ m + s)` of mask probabilities p, masks m and `smooth` s, per mask."""

    def __init__(self, loss_weight: float = 5.0, smooth: float = 1.0) -> None:
        super().__init__()
        self.loss_weight, self.smooth = loss_weight, smooth

    def forward(
        self, logits: Float[Tensor, "N P"], masks: Float[Tensor, "N P"], validity: Float[Tensor, "N P"]
    ) -> Float[Tensor, "N"]:
        return self.loss_weight * losses.mask_dice_loss(logits, masks, validity, smooth=self.smooth)


@MODELS.register_module()
class MaskFocalLoss(nn.Module):
    """Focal loss of mask logits, one value per mask.

    Mean over the valid points of `-α (1 - p)^γ log p` inside a mask and `-(1 - α) p^γ log(1 - p)` outside.
    """

    def __init__(self, loss_weight: float = 20.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.loss_weight, self.alpha, self.gamma = loss_weight, alpha, gamma

    def forward(
        self, logits: Float[Tensor, "N P"], masks: Float[Tensor, "N P"], validity: Float[Tensor, "N P"]
    ) -> Float[Tensor, "N"]:
        return self.loss_weight * losses.mask_focal_loss(logits, masks, validity, alpha=self.alpha, gamma=self.gamma)


@MODELS.register_module()
class BoxL1Loss(nn.Module):
    """Sum of the absolute differences of four box coordinates, one value per pair."""

    def __init__(self, loss_weight: float = 5.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, predicted: Float[Tensor, "N 4"], true: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        return self.loss_weight * losses.box_l1_loss(predicted, true)


@MODELS.register_module()
class BoxGIoULoss(nn.Module):
    """`1 - GIoU` of boxes, one value per pair."""

    def __init__(self, loss_weight: float = 2.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, predicted: Float[Tensor, "N 4"], true: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
        return self.loss_weight * losses.box_giou_loss(predicted, true)


@MODELS.register_module()
class QueryOrthogonalityLoss(nn.Module):
    """Mean of cos² over the pairs of mask embeddings of an image, one value per layer.

    Args:
        loss_weight: factor of the value.
        target: which queries are compared: those "matched" with a segment, or "all".
    """

    def __init__(self, loss_weight: float = 1.0, target: str = "matched") -> None:
        super().__init__()
        if target not in ("matched", "all"):
            raise InvalidValueError(f"QueryOrthogonalityLoss: target must be 'matched' or 'all', got {target!r}.")
        self.loss_weight, self.target = loss_weight, target

    def forward(self, embeddings: Float[Tensor, "L B Q C"], matched: Bool[Tensor, "L B Q"]) -> Float[Tensor, "L"]:
        chosen = matched if self.target == "matched" else matched.new_ones(matched.shape)
        return self.loss_weight * orthogonality_loss(embeddings, chosen)
