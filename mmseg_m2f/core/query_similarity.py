"""Cosine similarities between the query embeddings of one image: high values mean that queries repeat each other."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def orthogonality_loss(embeddings: Float[Tensor, "L B Q C"], chosen: Bool[Tensor, "L B Q"]) -> Float[Tensor, "L"]:
    """Mean squared cosine of all pairs of chosen queries of an image, in [0, 1]; 0 in layers without such a pair."""
    pairs = _pairs(chosen)
    return (_cosines(embeddings).square() * pairs).sum((1, 2, 3)) / pairs.sum((1, 2, 3)).clamp(min=1)


def query_similarity(embeddings: Float[Tensor, "B Q C"]) -> Float[Tensor, ""]:
    """Mean absolute cosine of all pairs of queries of an image, in [0, 1]; 0 for a single query."""
    pairs = _pairs(torch.ones(embeddings.shape[:-1], dtype=torch.bool, device=embeddings.device))
    return (_cosines(embeddings).abs() * pairs).sum() / pairs.sum().clamp(min=1)


def _cosines(embeddings: Float[Tensor, "... Q C"]) -> Float[Tensor, "... Q Q"]:
    normed = F.normalize(embeddings.float(), dim=-1)
    with torch.autocast(embeddings.device.type, enabled=False):
        return normed @ normed.transpose(-1, -2)


def _pairs(chosen: Bool[Tensor, "... Q"]) -> Bool[Tensor, "... Q Q"]:
    """Pairs of different chosen queries."""
    same = torch.eye(chosen.shape[-1], dtype=torch.bool, device=chosen.device)
    return chosen.unsqueeze(-1) & chosen.unsqueeze(-2) & ~same
