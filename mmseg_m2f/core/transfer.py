"""Copies between host and device: through pinned memory where the device is a CUDA GPU.

From pageable memory a copy waits for everything that the GPU still has to do; from pinned memory it waits for nothing.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor


def upload(values: Shaped[Tensor, "*N"], device: torch.device) -> Shaped[Tensor, "*N"]:
    """A copy of a host tensor on a device; the host does not wait for it."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def download(values: Shaped[Tensor, "*N"]) -> Shaped[Tensor, "*N"]:
    """A copy of a device tensor on the host, which waits for the copy to end."""
    if values.device.type != "cuda":
        return values.cpu()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)
