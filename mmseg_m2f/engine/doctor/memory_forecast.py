"""How much memory the tensors of a training step take, from two steps on the CPU with one and two images.

The process takes more: libraries, workspaces within operators, and memory that the allocator keeps.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_MEGABYTE = 2**20


@dataclass(frozen=True)
class MemoryForecast:
    """Bytes of the tensors of a step in float32 with AdamW.

    Attributes:
        fixed: Weights, gradients, the optimizer's two states, and what a step needs whatever the batch.
        per_image: What each image of a batch adds to the peak.
    """

    fixed: int
    per_image: int

    def total(self, batch_size: int) -> int:
        """Bytes at the peak of a step."""
        return self.fixed + batch_size * self.per_image

    def text(self, batch_size: int) -> str:
        """For a finding."""
        return (
            f"the tensors of a step of {batch_size} images take about {self.total(batch_size) / _MEGABYTE:,.0f} MB in "
            f"float32: {self.fixed / _MEGABYTE:,.0f} MB for weights, gradients and AdamW's states, "
            f"{self.per_image / _MEGABYTE:,.0f} MB for each image."
        )


class PeakMemory(TorchDispatchMode):
    """Adds up the storages that operators allocate within it, as long as they live.

    Workspaces within operators are not seen, nor what was there before.

    Attributes:
        peak: The most bytes at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        """Runs an operator and notes its results."""
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._note(result)
        return results

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self._live -= size


def forecast_memory(model: nn.Module, sample: Mapping[str, Any]) -> MemoryForecast:
    """Run forward and backward pass with the sample once and twice, and extend the peaks as a line.

    The model is put into training mode; its batch norm statistics change.

    Args:
        model: On the CPU.
        sample: As the training pipeline gives it: `inputs` C H W and `data_samples`.
    """
    model.train()
    known = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in model.parameters())
    first = 1
    try:
        peaks = [_peak(model, sample, copies=1)]
    except ValueError as error:  # of batch norms, on maps of one pixel
        if "more than 1 value per channel" not in str(error):
            raise
        first, peaks = 2, [_peak(model, sample, copies=2)]
    peaks.append(_peak(model, sample, copies=first + 1))
    per_image = max(peaks[1] - peaks[0], 0)
    step = max(peaks[0] - first * per_image, 0)
    return MemoryForecast(fixed=4 * total + 8 * sum(p.numel() for p in known) + step, per_image=per_image)


def _peak(model: nn.Module, sample: Mapping[str, Any], *, copies: int) -> int:
    """Bytes at the peak of a step, gradients included."""
    batch = dict(
        inputs=[sample["inputs"]] * copies, data_samples=[deepcopy(sample["data_samples"]) for _ in range(copies)]
    )
    with PeakMemory() as memory:
        data = model.data_preprocessor(batch, True)  # type: ignore[operator]
        loss, _ = model.parse_losses(model(**data, mode="loss"))  # type: ignore[operator]
        loss.backward()
    model.zero_grad(set_to_none=True)
    return memory.peak
