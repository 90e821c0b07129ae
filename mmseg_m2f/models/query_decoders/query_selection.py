"""Queries made of the surest cells of the pixel decoder's maps (two-stage Deformable DETR, arXiv 2010.04159, A.4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.position_encoding import cell_centres

#: Which end of the levels proposes the smallest boxes.
PROPOSAL_SIZES = ("coarsest_smallest", "finest_smallest")
#: Side of the smallest proposals; each further level's are twice as large.
_LEAST_SIDE = 0.05
_MARGIN = 0.01


class Selection(NamedTuple):
    """The cells with the highest logit of any class: their contents, and boxes before the sigmoid."""

    content: Float[Tensor, "B Q C"]
    box_logits: Float[Tensor, "B Q 4"]


class QuerySelection(nn.Module):
    """Classifies every cell of all levels and keeps the surest ones, with boxes around them.

    A cell proposes a box around its centre whose side, a fraction of the image, depends on the level alone; cells with
    a centre or a side within 0.01 of 0 or 1 count as 0 and propose the whole image.
    """

    def __init__(self, channels: int, *, proposal_sizes: str) -> None:
        super().__init__()
        self.proposal_sizes = proposal_sizes
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        memory: Float[Tensor, "B N C"],
        sizes: Sequence[tuple[int, int]],
        *,
        classify: Callable[[Tensor], Tensor],
        locate: Callable[[Tensor], Tensor],
        num_queries: int,
    ) -> Selection:
        """The `num_queries` surest cells, the surest first.

        Args:
            memory: cells of all levels, coarse to fine, whose heights and widths are `sizes`.
            classify: from contents to class logits.
            locate: from contents to changes of the proposed boxes before the sigmoid.

        Raises:
            ValueError: there are fewer cells than queries.
        """
        if memory.shape[1] < num_queries:
            raise InvalidValueError(
                f"AnchorMaskDecoder: expected at least {num_queries} cells to choose as many queries from, got "
                f"{memory.shape[1]} (levels of {', '.join(f'{h}×{w}' for h, w in sizes)} cells). Use larger images or "
                "crops, or lower decode_head.query_decoder.num_queries."
            )
        proposals, counts = box_proposals(sizes, memory, proposal_sizes=self.proposal_sizes)
        content = self.norm(self.proj(memory.where(counts[:, None], 0)))
        best = classify(content).amax(-1).topk(num_queries, 1).indices.unsqueeze(-1)
        content = content.gather(1, best.expand(-1, -1, content.shape[-1]))
        return Selection(content, locate(content) + proposals[best.squeeze(-1)])


def box_proposals(
    sizes: Sequence[tuple[int, int]], like: Tensor, *, proposal_sizes: str
) -> tuple[Float[Tensor, "N 4"], Bool[Tensor, "N"]]:
    """The box that each cell proposes, before the sigmoid, and whether the cell counts; +∞ where it does not."""
    doublings = list(range(len(sizes)))
    if proposal_sizes == "finest_smallest":
        doublings.reverse()
    boxes = []
    for size, doubling in zip(sizes, doublings, strict=True):
        centres = cell_centres(size, like)
        boxes.append(torch.cat([centres, torch.full_like(centres, _LEAST_SIDE * 2**doubling)], -1))
    proposed = torch.cat(boxes)
    counts = ((proposed > _MARGIN) & (proposed < 1 - _MARGIN)).all(-1)
    logits = (proposed / (1 - proposed)).log()
    return logits.masked_fill(~counts[:, None], torch.inf), counts
