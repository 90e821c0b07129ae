"""A batch of the loader moves to the GPU in one copy, from pinned memory, without waiting.

A training step of this package moves data between host and device three times: the batch up (here), the match costs
down and the pairs up (`assigners.hungarian`). The host waits for the costs alone.
"""

from collections.abc import Callable, Mapping
from copy import copy

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.core.transfer import upload

#: Each tensor begins at a multiple of this many bytes, so that it can be viewed as any type.
_ALIGNMENT = 16


def upload_batches_in_one_copy(preprocessor: nn.Module) -> None:
    """Let a data preprocessor of mmengine find its batches on the device already, unless it is the CPU."""
    preprocessor.register_forward_pre_hook(_move_batch)


def move_in_one_copy(data: object, device: torch.device) -> object:
    """The same batch with all of its tensors of the host on a device, moved in one copy.

    Args:
        data: tensors, and data elements of mmengine, in lists, tuples and mappings. Anything else stays as it is.
    """
    found: dict[int, Tensor] = {}

    def collect(tensor: Tensor) -> Tensor:
        if tensor.device.type == "cpu":
            found[id(tensor)] = tensor
        return tensor

    _replace(data, collect)
    if not found:
        return data
    moved = dict(zip(found, _move(list(found.values()), device), strict=True))
    return _replace(data, lambda tensor: moved.get(id(tensor), tensor))


def _move_batch(preprocessor: nn.Module, arguments: tuple) -> tuple | None:
    device = torch.device(preprocessor.device)  # type: ignore[call-overload]
    if device.type == "cpu":
        return None
    data, *others = arguments
    return (move_in_one_copy(data, device), *others)


def _move(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
    buffer = torch.empty(sum(padded), dtype=torch.uint8, pin_memory=device.type == "cuda")
    parts = list(zip(buffer.split(padded), sizes, tensors, strict=True))
    for part, size, tensor in parts:
        part[:size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    moved = upload(buffer, device).split(padded)
    return [
        part[:size].view(tensor.dtype).view(tensor.shape)
        for part, size, tensor in zip(moved, sizes, tensors, strict=True)
    ]


def _replace(data: object, change: Callable[[Tensor], Tensor]) -> object:
    """The same structure with every tensor changed."""
    if isinstance(data, Tensor):
        return change(data)
    if isinstance(data, BaseDataElement):
        new = data.new()
        for name, value in data.items():
            new.set_data({name: _replace(value, change)})
        return new
    if isinstance(data, Mapping):
        return {key: _replace(value, change) for key, value in data.items()}
    if isinstance(data, (list, tuple)) and not hasattr(data, "_fields"):
        return type(data)(_replace(value, change) for value in data)
    if isinstance(getattr(data, "tensor", None), Tensor):  # boxes of mmdet
        boxes = copy(data)
        boxes.tensor = change(boxes.tensor)  # type: ignore[attr-defined]
        return boxes
    return data
