"""Distillation to a context-aware classifier from one that uses the labels (arXiv 2303.11633, section 3.3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmseg_m2f.core.class_context import distillation_target, enlarge_logits, pixel_divergence, weighted_mean
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class EntropyAwareDistillLoss(nn.Module):
    """`Σ_x H_x KL(t_x ‖ s_x) / Σ_x H_x` over pixels x that are not void, with the student's probabilities s.

    The target t is `soft_weight` times the teacher's probabilities plus the rest times the one-hot label; H is the
    entropy of the teacher's probabilities. The loss is 0 where the student equals the target, and where every pixel is
    void. The teacher gets no gradient.

    Args:
        soft_weight: share of the teacher in the target; the rest is the label. 0.5 is what the released code trains
            with, 1 what the paper writes.
        classwise: average over the pixels of each class, then over the classes, which have equal weights.
        loss_weight: factor of the value.
    """

    def __init__(self, soft_weight: float = 0.5, *, classwise: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= soft_weight <= 1:
            raise InvalidValueError(f"EntropyAwareDistillLoss: soft_weight is a share in [0, 1], got {soft_weight}.")
        self.soft_weight, self.classwise, self.loss_weight = soft_weight, classwise, loss_weight

    def forward(
        self,
        student_logits: Float[Tensor, "B K _ _"],
        teacher_logits: Float[Tensor, "B K _ _"],
        labels: Int[Tensor, "B H W"],
        *,
        align_corners: bool = False,
    ) -> Float[Tensor, ""]:
        """One value.

        Args:
            student_logits, teacher_logits: of any size; they are enlarged to that of the labels.
            labels: those outside [0, K) are void.
            align_corners: how logits are enlarged.
        """

        def log_probs(logits: Tensor) -> Tensor:
            return enlarge_logits(logits, labels, align_corners=align_corners).log_softmax(1)

        with torch.autocast(student_logits.device.type, enabled=False):
            target, entropy = distillation_target(
                log_probs(teacher_logits.detach()), labels, soft_weight=self.soft_weight
            )
            divergence = pixel_divergence(target, log_probs(student_logits))
            value = weighted_mean(divergence, entropy, labels, student_logits.shape[1], classwise=self.classwise)
        return self.loss_weight * value
