"""Reading maps at points, and choosing the points (PointRend, arXiv 1912.08193, section 3.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def sample_points(maps: Float[Tensor, "N C H W"], points: Float[Tensor, "N P 2"]) -> Float[Tensor, "N C P"]:
    """Read maps bilinearly at points; outside the map is zero.

    Pixel centres lie at ((column + 0.5) / W, (row + 0.5) / H).
    """
    grid = (2 * points - 1).unsqueeze(1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(2)


def pick_uncertain(
    candidate_logits: Float[Tensor, "N S"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    *,
    usable: Bool[Tensor, "N S"] | None = None,
) -> Float[Tensor, "N P 2"]:
    """Keep the candidates whose logits are nearest to zero; those not `usable` only if nothing else is left.

    The order of the points kept is not defined.
    """
    uncertainty = -candidate_logits.abs()
    if usable is not None:
        uncertainty = uncertainty.masked_fill(~usable, -torch.inf)
    kept = uncertainty.topk(num_uncertain, dim=1, sorted=False).indices
    return candidates.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2))
