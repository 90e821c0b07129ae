"""Masks at points: the one place where kernels are chosen for them; without gradients."""

import os

from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core import points as definition
from mmseg_m2f.core.targets import is_valid, read_paired_segments
from mmseg_m2f.layers.kernels import point_sampling, triton_points, triton_support
from mmseg_m2f.layers.kernels.triton_points import mask_sums

__all__ = ["has_gpu_kernel", "mask_sums", "pick_uncertain", "read_pairs"]


def has_gpu_kernel(like: Tensor) -> bool:
    """Whether Triton serves tensors where this one is, and `mask_sums` may be called.

    `MMSEG_M2F_KERNELS=off` in the environment keeps to plain PyTorch, here and below.
    """
    is_wanted = like.device.type == "cuda" and os.environ.get("MMSEG_M2F_KERNELS") != "off"
    return is_wanted and triton_support.is_available()


def pick_uncertain(
    maps: Float[Tensor, "N H W"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    *,
    framed_maps: Int[Tensor, "B Z H2 W2"],
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Float[Tensor, "N P 2"]:
    """The candidates whose logits are nearest to zero; those void for the label only if nothing else is left."""
    options = dict(framed_maps=framed_maps, images=images, labels=labels)
    if point_sampling.is_available(maps):
        return point_sampling.pick_uncertain(maps, candidates, num_uncertain, **options)
    if has_gpu_kernel(maps):
        return triton_points.pick_uncertain(maps, candidates, num_uncertain, **options)
    logits = definition.sample_points(maps.unsqueeze(1), candidates).squeeze(1)
    usable = is_valid(framed_maps, candidates, images, labels)
    return definition.pick_uncertain(logits, candidates, num_uncertain, usable=usable)


def read_pairs(
    framed_maps: Int[Tensor, "B Z H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's points, and the validity weight of each point for it."""
    if point_sampling.is_available(points):
        read = point_sampling.read_pairs
    else:
        read = triton_points.read_pairs if has_gpu_kernel(points) else read_paired_segments
    return read(framed_maps, points, images, segments, labels)
