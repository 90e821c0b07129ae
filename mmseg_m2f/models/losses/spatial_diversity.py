"""A loss that makes the channels of a map differ in space (arXiv 2308.12894, section 3.4)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.core.diversity import spatial_coverage
from mmseg_m2f.registry import MODELS


@MODELS.register_module()
class SpatialDiversityLoss(nn.Module):
    """`1 - Σ_x max_c a_cx / C`, averaged over images and maps, where a_c is the softmax over pixels of channel c.

    In [0, 1) times `loss_weight`; 0 where every channel attends to one pixel of its own.
    """

    def __init__(self, loss_weight: float = 0.2) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, ""]:
        shares = torch.stack([spatial_coverage(level).mean() / level.shape[1] for level in maps])
        return self.loss_weight * (1 - shares.mean())
