"""How a context-aware classifier learns from one that has seen the labels (arXiv 2303.11633, section 3.3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmseg_m2f.core.class_context import distillation_divergence, pixel_entropy, weighted_mean
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class EntropyAwareDistillLoss(nn.Module):
    """Divergence from the teacher's classes, where pixels count by how unsure the teacher is.

    Zero where the student agrees with the target, and where every pixel is void. Nothing flows into the teacher.

    Args:
        soft_weight: share of the teacher in the target; the rest is the label. 0.5 is what the released code trains
            with, 1 what the paper writes.
        classwise: average over the pixels of each class first, so that rare classes count like frequent ones.
        loss_weight: factor of the value.
    """

    def __init__(self, soft_weight: float = 0.5, *, classwise: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= soft_weight <= 1:
            raise ValueError(f"EntropyAwareDistillLoss: soft_weight is a share in [0, 1], got {soft_weight}.")
        self.soft_weight, self.classwise, self.loss_weight = soft_weight, classwise, loss_weight

    def forward(
        self,
        student_logits: Float[Tensor, "B K H W"],
        teacher_logits: Float[Tensor, "B K H W"],
        labels: Int[Tensor, "B H W"],
    ) -> Float[Tensor, ""]:
        """One value; `labels` outside [0, K) are void."""
        with torch.autocast(student_logits.device.type, enabled=False):
            student, teacher = student_logits.float(), teacher_logits.detach().float()
            divergence = distillation_divergence(student, teacher, labels, soft_weight=self.soft_weight)
            value = weighted_mean(
                divergence, pixel_entropy(teacher), labels, student.shape[1], classwise=self.classwise
            )
        return self.loss_weight * value
