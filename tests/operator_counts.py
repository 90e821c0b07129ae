"""Counting dispatched operators, and copies from the host to the `meta` device, which stands for a GPU.

A read-back from `meta` raises: its tensors have no values.
"""

from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OperatorCount(TorchDispatchMode):
    """`operators` that ran inside, and `uploads`: the sizes of the tensors that were copied from the host to `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.uploads: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        name = func.overloadpacket.__name__
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()}
        # `torch.tensor` copies out of sight and shows `lift_fresh` alone.
        if isinstance(result, Tensor) and result.device.type == "meta" and ("cpu" in devices or name == "lift_fresh"):
            self.uploads.append(tuple(result.shape))
        return result
