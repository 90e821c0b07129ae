"""Weighted sums of rows of a table: what reading features at points between pixels comes down to."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def weighted_rows(
    table: Float[Tensor, "R C"], rows: Int[Tensor, "N K"], weights: Float[Tensor, "N K"]
) -> Float[Tensor, "N C"]:
    """`out[n] = Σ_k weights[n, k] table[rows[n, k]]`, differentiable in table and weights.

    No tensor of size N × K × C exists. The table has at least one row.
    """
    if len(rows) == 0:
        return table.new_zeros(0, table.shape[1]) + 0 * table.sum()
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


def pixel_table(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B*H*W C"]:
    """One row per pixel, in single precision at least."""
    return single(features).permute(0, 2, 3, 1).flatten(0, 2)


def single(x: Tensor) -> Tensor:
    """Half precision as float32: weights between pixels need it."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
