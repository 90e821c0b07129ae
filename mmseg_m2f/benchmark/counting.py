"""Counting dispatched operators, and the reads for which a host waits for its device.

Counts carry no timing noise. On the CPU a read costs nothing, but the same code would wait on a GPU: there the count
is a stand-in for `torch.cuda.set_sync_debug_mode`, which is read as well where there is a GPU.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

#: Methods of tensors that copy to the host.
_COPYING = ("cpu", "tolist", "numpy")
#: Operators whose result, or its shape, depends on values: the host has to wait for them.
_READING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "equal",
)


@dataclass
class Counts:
    """What a piece of code did.

    Args:
        ops: dispatched ATen operators.
        host_reads: how often each kind of reading occurred.
        cuda_syncs: synchronisations that CUDA reported; None without a GPU.
    """

    ops: int = 0
    host_reads: Counter[str] = field(default_factory=Counter)
    cuda_syncs: int | None = None


@contextmanager
def count(device: str = "cpu", *, on_host: Iterable[Tensor] = ()) -> Iterator[Counts]:
    """Counts what runs inside, forward and backward; complete when the block ends.

    A tensor that was copied to the host, and what is computed from such tensors alone, is read for free.

    Args:
        on_host: tensors of the CPU that would stay there if the device were another.
    """
    counts = Counts()
    copied = WeakTensorKeyDictionary()
    for tensor in on_host:
        copied[tensor] = True
    with ExitStack() as stack:
        if device == "cpu":
            stack.enter_context(_host_copies(counts, copied))
        else:
            stack.enter_context(_cuda_syncs(counts))
        stack.enter_context(_Operators(counts, copied, device))
        yield counts


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counts, copied: WeakTensorKeyDictionary, device: str) -> None:
        super().__init__()
        self.counts, self.copied, self.device = counts, copied, device

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What is compiled stays compiled, and counts by the operators that its code still calls."""
        return True

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        result = func(*args, **(kwargs or {}))
        self.counts.ops += 1
        if inputs and all(x.device.type != self.device or x in self.copied for x in inputs):
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    self.copied[output] = True
        elif kind := self._reading(func, args, result):
            self.counts.host_reads[kind] += 1
        return result

    def _reading(self, func: OpOverload, args: tuple, result: object) -> str | None:
        name = func.overloadpacket.__name__
        if name in _READING:
            return name
        if func is torch.ops.aten.repeat_interleave.Tensor:
            return name
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            return f"{name} by a mask" if masks else None
        if name == "_to_copy" and isinstance(result, Tensor) and result.device.type == "cpu" != self.device:
            return "copy to the host"
        return None


@contextmanager
def _host_copies(counts: Counts, copied: WeakTensorKeyDictionary) -> Iterator[None]:
    """Sees copies from device to host on the CPU, where they copy nothing and no operator is dispatched.

    Exchanges the methods instead of entering a mode, under which compiled code would be compiled again.
    """

    def counted(method: Callable) -> Callable:
        def run(tensor: Tensor, *args: object, **kwargs: object) -> object:
            result = method(tensor, *args, **kwargs)
            if tensor in copied:
                return result
            counts.host_reads["copy to the host"] += 1
            if not isinstance(result, Tensor):
                return result
            # A tensor of its own, so that the original still counts as being on the device.
            with _disable_current_modes():
                copy = result.detach()
            copied[copy] = True
            return copy

        return run

    for name in _COPYING:
        setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
    try:
        yield
    finally:
        for name in _COPYING:
            delattr(torch.Tensor, name)  # what its base class has shows again


@contextmanager
def _cuda_syncs(counts: Counts) -> Iterator[None]:
    usual = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(usual)
    counts.cuda_syncs = sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
