"""Bytes of tensors alive at once, counted operator by operator: the same on every device, without allocator noise."""

import weakref
from types import TracebackType

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the storage of all tensors that operators make inside, until it is freed.

    What existed before, such as weights, counts for nothing; nor does what a kernel takes and gives back by itself.

    Attributes:
        live: bytes now.
        peak: the most bytes at once since the beginning, or since `restart`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def restart(self) -> None:
        """Let `peak` begin again at what is alive now."""
        self.peak = self.live

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        """Run an operator, and note what it made."""
        existing = {_key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))  # type: ignore[operator]
        for output in tree_leaves(result):
            if isinstance(output, Tensor) and _key(output) not in existing:
                self._note(output.untyped_storage())
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What lives on is no longer watched."""
        self._known.clear()
        super().__exit__(kind, error, traceback)

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def freed(_: object) -> None:
            if self._known.pop(key, None) is not None:
                self.live -= size

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
