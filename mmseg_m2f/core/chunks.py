"""Sizes of chunks: costs and losses are computed in parts, so that memory does not grow with the batch."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ChunkBudget:
    """Numbers held by one tensor of a chunk.

    On a CPU a tensor should stay below 32 MB: the C library maps larger ones anew each time, and touching new pages
    takes longer than the arithmetic. On a GPU larger chunks save launches.
    """

    cpu: int
    gpu: int

    def fitting(self, size: int, device: torch.device) -> int:
        """How many items of `size` numbers fit into a chunk on a device; at least 1."""
        return max((self.cpu if device.type == "cpu" else self.gpu) // max(size, 1), 1)
