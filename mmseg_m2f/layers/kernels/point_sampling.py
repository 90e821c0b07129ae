"""Uncertain points and masks at points on the CPU, in `point_sampling.cpp`; no gradient flows to either.

`core.points.pick_uncertain`, `core.targets.is_valid` and `core.targets.read_paired_segments` define what is computed.
"""

import ctypes
import os
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.layers.kernels.compilation import load_library
from mmseg_m2f.structures import CROWD, VOID

_SOURCE = Path(__file__).with_suffix(".cpp")


def is_available(maps: Float[Tensor, "N H W"]) -> bool:
    """Whether there is a kernel for maps like these; may compile it."""
    return (
        maps.device.type == "cpu"
        and maps.dtype == torch.float32
        and os.environ.get("MMSEG_M2F_KERNELS") != "off"
        and load_library(_SOURCE) is not None
    )


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
    points = maps.new_empty(len(maps), num_uncertain, 2)
    sizes = _Sizes(*maps.shape, candidates.shape[1], num_uncertain, *framed_maps.shape[1:], VOID, CROWD)
    _call("pick_uncertain", sizes, maps, candidates, framed_maps, images, labels, points)
    return points


def read_pairs(
    framed_maps: Int[Tensor, "B Z H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's points, and the validity weight of each point for it."""
    masks, validity = points.new_empty(points.shape[:2]), points.new_empty(points.shape[:2])
    sizes = _Sizes(len(points), 0, 0, 0, points.shape[1], *framed_maps.shape[1:], VOID, CROWD)
    _call("read_pairs", sizes, points, framed_maps, images, segments, labels, masks, validity)
    return masks, validity


class _Sizes(ctypes.Structure):
    """The struct of the same name in the source."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("pairs", "height", "width", "candidates", "points", "slices", "framed_height", "framed_width")
        ),
        ("void_id", ctypes.c_int32),
        ("crowd", ctypes.c_int32),
    ]


def _call(function: str, sizes: _Sizes, *tensors: Tensor) -> None:
    library = load_library(_SOURCE)
    assert library is not None, f"{function} was called without asking is_available"
    held = [tensor.contiguous() for tensor in tensors]  # results are so already, and written in place
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in held]
    getattr(library, function)(ctypes.byref(sizes), *pointers, ctypes.c_int(torch.get_num_threads()))
