"""Linear layers in few operators, and by oneDNN on processors where PyTorch's default is slow; 1×1 convolutions too.

As one node of autograd a linear layer does without four of PyTorch's operators per forward and backward pass: views and
transposes. A host that starts the kernels of a GPU one by one takes time for each.

PyTorch multiplies float32 matrices with MKL, which uses no AVX-512 on AMD's processors; oneDNN, which PyTorch brings as
well, does, and is about twice as fast there. Values differ by rounding alone.
"""

import os
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

_CPUINFO = Path("/proc/cpuinfo")


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "*B O"]:
    """`F.linear`, in fewer operators where gradients are needed, and by the faster product where there is one."""
    if not _is_plain(x, weight) or not (_needs_gradient(x, weight, bias) or _is_faster(x, weight)):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def pointwise_conv(
    x: Float[Tensor, "B I H W"], weight: Float[Tensor, "O I 1 1"], bias: Float[Tensor, "O"] | None = None
) -> Float[Tensor, "B O H W"]:
    """`F.conv2d` with a kernel of one pixel, the faster way."""
    if x.dim() != 4 or not _is_faster(x, weight):
        return F.conv2d(x, weight, bias)
    return _PointwiseConv.apply(x, weight, bias)


def batched_products(a: Float[Tensor, "N M K"], b: Float[Tensor, "N P K"]) -> Float[Tensor, "N M P"]:
    """`a[n] @ b[n].T` for every n, the faster way; without gradients."""
    if not _is_faster(a, b) or b.numel() == 0 or a.requires_grad or b.requires_grad:
        return torch.bmm(a, b.mT)
    return torch.stack([_product(x, y) for x, y in zip(a, b, strict=True)])


class Linear(nn.Linear):
    """`nn.Linear`, the faster way."""

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return linear(x, self.weight, self.bias)


class PointwiseConv(nn.Conv2d):
    """`nn.Conv2d` with a kernel of one pixel, the faster way."""

    def forward(self, x: Float[Tensor, "*B I H W"]) -> Float[Tensor, "*B O H W"]:
        return pointwise_conv(x, self.weight, self.bias)


def use_fast_products(model: nn.Module) -> None:
    """Let all linear layers and 1×1 convolutions of a model, whatever library they are from, take the faster way.

    Convolutions stay as they are where PyTorch's are fast. Names, weights and hooks do not change.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif products_are_slow() and type(module) is nn.Conv2d and is_pointwise(module):
            module.__class__ = PointwiseConv


@cache
def products_are_slow() -> bool:
    """Whether this is a processor with AVX-512 on which MKL does not use it."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _CPUINFO.is_file():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return "AuthenticAMD" in _CPUINFO.read_text(encoding="utf-8", errors="replace")


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether a convolution has a kernel of one pixel and reads every pixel."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether rows of numbers are multiplied as they are: nothing is compiled, traced or cast."""
    if torch.compiler.is_compiling():  # asked first: the compiler cannot trace the other questions
        return False
    return (
        x.dim() >= 2
        and x.dtype == weight.dtype
        and x.numel() > 0
        and (x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type))  # "meta" has none
        and not torch.jit.is_tracing()
    )


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    if torch.compiler.is_compiling():  # asked first: the compiler cannot trace the other questions
        return False
    return (
        products_are_slow()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0  # somebody counts or records operators
        and os.environ.get("MMSEG_M2F_KERNELS") != "off"
    )


def _product(a: Float[Tensor, "M K"], b: Float[Tensor, "N K"], bias: Tensor | None = None) -> Float[Tensor, "M N"]:
    """`a @ b.T`, plus the bias."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


def _fastest_product(a: Float[Tensor, "M K"], b: Float[Tensor, "N K"], bias: Tensor | None = None) -> Tensor:
    """`_product` where it is faster, else PyTorch's."""
    if _is_faster(a, b):
        return _product(a, b, bias)
    return a.mm(b.t()) if bias is None else torch.addmm(bias, a, b.t())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        return _fastest_product(rows, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        for_x, for_weight, for_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        shape = upstream.shape
        if upstream.dim() > 2:
            upstream = upstream.reshape(len(rows), -1)
        fast = _is_faster(upstream, weight)
        dx = dw = None
        if for_x:
            dx = _product(upstream, weight.t()) if fast else upstream.mm(weight)
            dx = dx.view(*shape[:-1], -1) if len(shape) > 2 else dx
        if for_weight and fast:  # whichever is wider comes second: that order is up to twice as fast
            wide = weight.shape[0] > weight.shape[1]
            dw = _product(rows.t(), upstream.t()).t() if wide else _product(upstream.t(), rows.t())
        elif for_weight:
            dw = upstream.t().mm(rows)
        return dx, dw, upstream.sum(0) if for_bias else None


class _PointwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        y = _multiply_maps(weight.flatten(1), x)
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        for_x, for_weight, for_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        upstream = upstream.contiguous()
        dx = _multiply_maps(weight.flatten(1).t(), upstream) if for_x else None
        dw = None
        if for_weight:
            per_image = [_product(g.flatten(1), f.flatten(1)) for g, f in zip(upstream, x, strict=True)]
            dw = torch.stack(per_image).sum(0).view_as(weight)
        return dx, dw, upstream.sum((0, 2, 3)) if for_bias else None


def _multiply_maps(matrix: Float[Tensor, "O I"], maps: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H W"]:
    result = maps.new_empty(len(maps), len(matrix), *maps.shape[2:])
    for written, image in zip(result, maps, strict=True):
        written.copy_(_product(matrix, image.flatten(1).t()).view_as(written))
    return result
