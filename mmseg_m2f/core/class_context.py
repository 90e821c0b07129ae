"""Context-aware classifiers: a vector per class computed from the image, and its losses (arXiv 2303.11633, section 3).

Labels outside [0, K) are void: they enter no prototype and no loss. Call these functions with autocast off: the sums
run over all pixels of a map, and denominators can be tiny.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.core.sizes import is_known_equal

#: Added to what is divided by; needs float32.
_EPS = 1e-12


def soft_prototypes(features: Float[Tensor, "B C H W"], weights: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K C"]:
    """`v_k = Σ w_k f / Σ w_k` over the pixels of each image: the weighted mean feature of class k; 0 without weight."""
    weights = weights.flatten(2)
    sums = torch.einsum("bkn,bcn->bkc", weights, features.flatten(2))
    return sums / (weights.sum(-1, keepdim=True) + _EPS)


def label_prototypes(
    features: Float[Tensor, "B C H W"], labels: Int[Tensor, "B H W"], num_classes: int
) -> tuple[Float[Tensor, "1 K C"], Bool[Tensor, "1 K"]]:
    """Mean feature of the pixels of each class over all images, 0 where there is none, and whether there is one."""
    classes = torch.arange(num_classes, device=labels.device)
    inside = (labels.flatten(1).unsqueeze(1) == classes[:, None]).to(features.dtype)  # B K N
    sums = torch.einsum("bkn,bcn->bkc", inside, features.flatten(2)).sum(0, keepdim=True)
    counts = inside.sum(-1).sum(0, keepdim=True)
    return sums / (counts.unsqueeze(-1) + _EPS), counts > 0


def cosine_logits(
    features: Float[Tensor, "B C H W"], vectors: Float[Tensor, "_ K C"], temperature: float
) -> Float[Tensor, "B K H W"]:
    """Cosine of each pixel's feature and each class vector times `temperature`; zero for zero features.

    Args:
        vectors: those of each image, or one set for all images.
    """
    cosines = torch.einsum("bchw,bkc->bkhw", F.normalize(features, dim=1), F.normalize(vectors, dim=-1))
    return temperature * cosines


def shrink_labels(labels: Int[Tensor, "B h w"], size: tuple[int, int]) -> Int[Tensor, "B H W"]:
    """The labels at another size, nearest neighbour."""
    # Labels are small integers, which float32 holds exactly.
    return F.interpolate(labels.unsqueeze(1).float(), size, mode="nearest").squeeze(1).to(labels.dtype)


def enlarge_logits(
    logits: Float[Tensor, "B K h w"], labels: Int[Tensor, "B H W"], *, align_corners: bool
) -> Float[Tensor, "B K H W"]:
    """The logits at the size of the labels: bilinear, in float32."""
    size = labels.shape[-2:]
    if is_known_equal(logits.shape[-2:], size):
        return logits.float()
    return F.interpolate(logits.float(), (size[0], size[1]), mode="bilinear", align_corners=align_corners)


def pixel_cross_entropy(logits: Float[Tensor, "B K H W"], labels: Int[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Cross-entropy `-log p_y`, averaged over the pixels that are not void; 0 where all are void."""
    valid = _is_valid(labels, logits.shape[1])
    total = F.cross_entropy(logits, labels.where(valid, -1), ignore_index=-1, reduction="sum")
    return total / valid.sum().clamp(min=1)


@torch.no_grad()
def distillation_target(
    teacher_log_probs: Float[Tensor, "B K H W"], labels: Int[Tensor, "B H W"], *, soft_weight: float
) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, "B H W"]]:
    """The class distribution that the student is trained on, and the entropy of the teacher's, in [0, ln K].

    `target = s · teacher + (1 - s) · one_hot(label)` with s = `soft_weight`; undefined where labels are void.
    """
    probs = teacher_log_probs.exp()
    entropy = -(probs * teacher_log_probs).sum(1)
    label = labels.where(_is_valid(labels, probs.shape[1]), 0).unsqueeze(1)
    rest = probs.new_full((), 1 - soft_weight).expand(label.shape)
    return probs.mul_(soft_weight).scatter_add_(1, label, rest), entropy


def pixel_divergence(
    target: Float[Tensor, "B K H W"], student_log_probs: Float[Tensor, "B K H W"]
) -> Float[Tensor, "B H W"]:
    """Kullback-Leibler divergence `Σ_k t_k (log t_k - log s_k)` of each pixel, of target t and student s."""
    return torch.xlogy(target, target).sum(1) - (target * student_log_probs).sum(1)


def weighted_mean(
    values: Float[Tensor, "B H W"],
    weights: Float[Tensor, "B H W"],
    labels: Int[Tensor, "B H W"],
    num_classes: int,
    *,
    classwise: bool,
) -> Float[Tensor, ""]:
    """`Σ w x / Σ w` over the pixels that are not void; 0 where all are void.

    Args:
        classwise: the mean over the classes that occur of the weighted means over the pixels of each.
    """
    valid = _is_valid(labels, num_classes)
    group = labels if classwise else torch.zeros_like(labels)
    group = group.where(valid, num_classes).flatten()  # the last group is void
    sums = torch.stack([values * weights, weights, torch.ones_like(weights)]).flatten(1)
    total, weight, count = sums.new_zeros(3, num_classes + 1).index_add(1, group, sums)[:, :-1]
    means = total / (weight + _EPS)
    return means.sum() / (count > 0).sum().clamp(min=1)


def _is_valid(labels: Int[Tensor, "B H W"], num_classes: int) -> Bool[Tensor, "B H W"]:
    return (labels >= 0) & (labels < num_classes)
