"""Loss of the layers that find edges in a shrunk transformer (SegViTv2, arXiv 2306.06289).

No code was released and the paper does not give the loss: the definition of an edge and the weights are our own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import VOID, MaskTarget, TargetBatch

_MAX_EDGE_WEIGHT = 10.0


@MODELS.register_module()
class TokenEdgeLoss(nn.Module):
    """Binary cross-entropy between edge logits and the cells that hold more than one segment.

    `loss = Σ_x w_x BCE_x / V` over the V cells x that are not all void. Cells without an edge have weight 1, the E
    cells with one `min((V - E) / E, 10)`, and cells of nothing but void 0.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self, features: Sequence[Tensor], targets: TargetBatch | Sequence[MaskTarget]
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss_edge`: the mean over the cells of all images; 0 where all is void.

        Raises:
            ValueError: the backbone does not look for edges.
        """
        if not isinstance(features, PartialMaps):
            raise InvalidValueError(
                "decode_head.extra_losses (TokenEdgeLoss): expected a backbone that looks for edges "
                "(ShrunkVisionTransformer with shrink.sampler='edge'), got one that returns plain maps. Set "
                "backbone.shrink.sampler='edge', or take the loss out."
            )
        is_edge, is_valid = edge_cells(stack_targets(targets).segment_maps[:, 0], features.patch_size)
        num_edges = is_edge.sum()
        edge_weight = ((is_valid.sum() - num_edges) / num_edges.clamp(min=1)).clamp(max=_MAX_EDGE_WEIGHT)
        weight = torch.where(is_edge, edge_weight, is_valid.float())
        entropy = F.binary_cross_entropy_with_logits(
            features.edge_logits.float(), is_edge.float(), weight, reduction="sum"
        )
        return dict(loss_edge=self.loss_weight * entropy / is_valid.sum().clamp(min=1))


def edge_cells(
    segment_maps: Int[Tensor, "B H W"], patch_size: int
) -> tuple[Bool[Tensor, "B h w"], Bool[Tensor, "B h w"]]:
    """Which cells of `patch_size` × `patch_size` pixels hold two segments or more, and which are not all void."""
    height, width = segment_maps.shape[-2:]
    ids = F.pad(segment_maps, (0, -width % patch_size, 0, -height % patch_size), value=VOID).float()
    void = ids <= VOID
    highest = F.max_pool2d(ids.masked_fill(void, -torch.inf), patch_size)
    lowest = -F.max_pool2d(-ids.masked_fill(void, torch.inf), patch_size)
    return highest > lowest, highest > -torch.inf
