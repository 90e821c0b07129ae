"""Label maps of a batch: the one place where a kernel is chosen for them."""

import os

from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.results import semantic_labels
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.layers.kernels import triton_label_maps as kernel
from mmseg_m2f.layers.kernels.triton_support import is_available


def label_maps(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q h w"],
    resizing: Resizing,
    *,
    resize_scores: bool = False,
    max_memory_mb: int | None = None,
) -> Int[Tensor, "B H W"]:
    """`core.results.semantic_labels`, on a GPU with Triton in one kernel that stores no scores.

    Both choose the same class wherever two classes differ by more than rounding. `MMSEG_M2F_KERNELS=off` in the
    environment keeps to plain PyTorch; the kernel needs no `max_memory_mb`.
    """
    if _has_kernel(mask_logits):
        class_probs = class_logits.float().softmax(-1)[..., :-1]
        return kernel.label_maps(class_probs, mask_logits, resizing, resize_scores=resize_scores)
    return semantic_labels(
        class_logits, mask_logits, resizing, resize_scores=resize_scores, max_memory_mb=max_memory_mb
    )


def _has_kernel(mask_logits: Float[Tensor, "B Q h w"]) -> bool:
    if mask_logits.device.type != "cuda" or os.environ.get("MMSEG_M2F_KERNELS") == "off":
        return False
    return is_available() and kernel.can_serve(mask_logits)
