"""Deformable attention as one operator: from raw projections to the weighted sum, nothing stored in between.

`torch.compile` takes the operator as it is. On the CPU it runs `fused_deformable_attention.cpp`, on a GPU the kernels
of `triton_deformable_attention`.
"""

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mmseg_m2f.layers.kernels import triton_deformable_attention, triton_support
from mmseg_m2f.layers.kernels.compilation import load_library

_SOURCE = Path(__file__).with_suffix(".cpp")
_MOST_READINGS = 256
#: Half precision is computed in float32.
_COMPUTED_IN = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def is_available(value: Tensor, *, num_readings: int) -> bool:
    """Whether there is a kernel for tensors like this one; may compile it. None in exported and traced programs.

    `torch.jit.trace`, by which mmengine counts operations, cannot record the operator.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return False
    return _has_kernel(value.device.type, value.dtype, num_readings)


@torch.compiler.assume_constant_result  # it starts other programs, which torch.compile cannot trace
def _has_kernel(device_type: str, dtype: torch.dtype, num_readings: int) -> bool:
    if num_readings > _MOST_READINGS or os.environ.get("MMSEG_M2F_KERNELS") == "off":
        return False
    if device_type == "cuda":
        return dtype != torch.float64 and triton_support.is_available()
    return device_type == "cpu" and dtype.is_floating_point and load_library(_SOURCE) is not None


@torch.library.custom_op("mmseg_m2f::deformable_attention", mutates_args=(), device_types="cpu")
def deformable_attention(
    value: Tensor, shapes: list[int], reference_points: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """See `layers.deformable_attention.deformable_attention`; `shapes` are height, width of each level in turn."""
    inputs = [_exact(x) for x in (value, reference_points, offsets, logits)]
    output = inputs[0].new_empty(*offsets.shape[:3], value.shape[-1])
    _call("forward", inputs, [output], shapes)
    return output.flatten(2).to(value.dtype)


@deformable_attention.register_fake
def _(value: Tensor, shapes: list[int], reference_points: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    return value.new_empty(*offsets.shape[:2], value.shape[2] * value.shape[3])


@torch.library.custom_op("mmseg_m2f::deformable_attention_backward", mutates_args=(), device_types="cpu")
def deformable_attention_backward(
    value: Tensor, shapes: list[int], reference_points: Tensor, offsets: Tensor, logits: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offsets and logits."""
    inputs = [_exact(x) for x in (value, reference_points, offsets, logits, grad)]
    grads = [torch.zeros_like(inputs[0]), torch.empty_like(inputs[2]), torch.empty_like(inputs[3])]
    _call("backward", inputs, grads, shapes)
    return grads[0].to(value.dtype), grads[1].to(offsets.dtype), grads[2].to(logits.dtype)


@deformable_attention_backward.register_fake
def _(
    value: Tensor, shapes: list[int], reference_points: Tensor, offsets: Tensor, logits: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(offsets), torch.empty_like(logits)


def _keep(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
    value, shapes, reference_points, offsets, logits = inputs
    ctx.shapes = shapes  # type: ignore[attr-defined]
    ctx.save_for_backward(value, reference_points, offsets, logits)


def _differentiate(ctx: FunctionCtx, grad: Tensor) -> tuple:
    value, reference_points, offsets, logits = ctx.saved_tensors  # type: ignore[attr-defined]
    shapes = ctx.shapes  # type: ignore[attr-defined]
    grads = deformable_attention_backward(value, shapes, reference_points, offsets, logits, grad)
    return grads[0], None, None, grads[1], grads[2]


deformable_attention.register_autograd(_differentiate, setup_context=_keep)
deformable_attention.register_kernel("cuda")(triton_deformable_attention.forward)
deformable_attention_backward.register_kernel("cuda")(triton_deformable_attention.backward)


class _Sizes(ctypes.Structure):
    """The struct of the same name in the source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "tokens", "queries", "heads", "channels", "levels", "points")),
        ("shapes", ctypes.POINTER(ctypes.c_int64)),
    ]


def _exact(x: Tensor) -> Tensor:
    return x.to(_COMPUTED_IN.get(x.dtype, x.dtype)).contiguous()


def _call(function: str, inputs: list[Tensor], outputs: list[Tensor], shapes: list[int]) -> None:
    value, _, offsets, *_ = inputs
    table, first = [], 0
    for height, width in zip(shapes[::2], shapes[1::2], strict=True):
        table += [height, width, first]
        first += height * width
    images, tokens, heads, channels = value.shape
    levels, points = offsets.shape[3:5]
    sizes = _Sizes(
        images, tokens, offsets.shape[1], heads, channels, levels, points, (ctypes.c_int64 * len(table))(*table)
    )
    library = load_library(_SOURCE)
    assert library is not None, "deformable_attention was called without asking is_available"
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (*inputs, *outputs)]
    getattr(library, f"{function}_{_NAMES[value.dtype]}")(
        ctypes.byref(sizes), *pointers, ctypes.c_int(torch.get_num_threads())
    )
