"""Boxes: forms, overlaps, losses (arXiv 2005.12872, section 3.1; generalized IoU: 1902.09630)."""

import torch
from jaxtyping import Float
from torch import Tensor

#: Areas below this count as this much, so that the overlap of two empty boxes is 0 and not NaN.
_LEAST_AREA = 1e-12


def to_corners(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """Centre x, centre y, width, height to x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def to_centres(boxes: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 4"]:
    """x1 y1 x2 y2 to centre x, centre y, width, height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def inverse_sigmoid(x: Float[Tensor, "*N"], *, least: float = 1e-5) -> Float[Tensor, "*N"]:
    """`log(max(x, least) / max(1 - x, least))` of x cut to [0, 1]: ±11.5 at its ends."""
    x = x.clamp(0, 1)
    return (x.clamp(min=least) / (1 - x).clamp(min=least)).log()


def generalized_iou(a: Float[Tensor, "*#N 4"], b: Float[Tensor, "*#N 4"]) -> Float[Tensor, "*#N"]:
    """IoU less the share of the enclosing box that neither covers; boxes as corners, in [-1, 1].

    Broadcasts: boxes `Q 1 4` and `1 G 4` give `Q G`.
    """
    overlap = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = (_area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - overlap).clamp(min=_LEAST_AREA)
    enclosing = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    enclosing = enclosing.clamp(min=_LEAST_AREA)
    return overlap / union - (enclosing - union) / enclosing


def _area(low: Float[Tensor, "*N 2"], high: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N"]:
    width, height = (high - low).clamp(min=0).unbind(-1)
    return width * height
