"""Multiply–adds of a network, counted while it runs, and as published tables count them.

torch's counter sees every operator. Products are matrix products, convolutions and attention: one multiply–add each.
The tables of MaskFormer and Mask2Former were made with fvcore, which also counts norms and bilinear resizing, as one
each with a multiply–add (fvcore/nn/jit_handles.py, Apache-2.0): 5 per value of a norm, 2 per value of a batch norm in
evaluation, 4 per value that bilinear resizing gives. Neither counts the sampling of deformable attention, activations
and sums.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_aten = torch.ops.aten


class OperationCounter:
    """Multiply–adds so far, while `count_operations` runs."""

    def __init__(self, mode: FlopCounterMode) -> None:
        self._mode = mode

    @property
    def products(self) -> int:
        """Matrix products, convolutions and attention."""
        return sum(count for op, count in self._counts() if op not in _OTHERS) // 2

    @property
    def others(self) -> int:
        """Norms and bilinear resizing, as fvcore counts them."""
        return sum(count for op, count in self._counts() if op in _OTHERS)

    def _counts(self) -> list[tuple[object, int]]:
        return list(self._mode.get_flop_counts().get("Global", {}).items())


@contextmanager
def count_operations() -> Iterator[OperationCounter]:
    """Count what runs inside, without gradients, the same on every device."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch's counter does not know the fused attention of evaluation
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={**_PRODUCTS, **_OTHERS}) as mode:
            yield OperationCounter(mode)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """No parameter requires gradients: torch's counter fails on views of those that do, made without gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def count_multiply_adds(run: Callable[[], object]) -> int:
    """Multiply–adds of matrix products, convolutions and attention."""
    with count_operations() as counter:
        run()
    return counter.products


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _linear(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


def _norm(x: torch.Size, *_: object, **__: object) -> int:
    return 5 * math.prod(x)


def _batch_norm(x: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(x)


def _resize(*_: object, out_shape: torch.Size, **__: object) -> int:
    return 4 * math.prod(out_shape)


_PRODUCTS: dict[object, Callable[..., int]] = {_aten._scaled_dot_product_flash_attention_for_cpu: _attention}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # see layers/matrix_products
    _PRODUCTS[torch.ops.mkldnn._linear_pointwise] = _linear
_OTHERS: dict[object, Callable[..., int]] = {
    _aten.native_layer_norm: _norm,
    _aten.native_group_norm: _norm,
    _aten.native_batch_norm: _batch_norm,
    _aten.cudnn_batch_norm: _batch_norm,
    _aten._native_batch_norm_legit_no_training: _batch_norm,
    _aten.upsample_bilinear2d: _resize,
}
