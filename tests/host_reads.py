"""Counting what makes the host wait for its device, seen on the CPU."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators whose result, or its shape, depends on values.
_READING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal"}
#: Methods that copy to the host; on the CPU they dispatch no operator.
_COPYING = ("cpu", "tolist", "numpy")


@dataclass
class Reads:
    """How often each kind of reading occurred."""

    host_reads: Counter[str] = field(default_factory=Counter)


class _Operators(TorchDispatchMode):
    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith(("index", "_index_put")) and len(args) > 1 and isinstance(args[1], (list, tuple))
        if name in _READING or (by_mask and any(x is not None and x.dtype == torch.bool for x in args[1])):
            self.reads.host_reads[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def count() -> Iterator[Reads]:
    """Counts the readings of what runs inside."""
    reads = Reads()
    with pytest.MonkeyPatch.context() as patch:
        for name in _COPYING:
            patch.setattr(Tensor, name, _counted(name, reads), raising=False)
        with _Operators(reads):
            yield reads


def _counted(name: str, reads: Reads):
    method = getattr(Tensor, name)

    def run(tensor: Tensor, *args: object, **kwargs: object) -> object:
        reads.host_reads[name] += 1
        return method(tensor, *args, **kwargs)

    return run
