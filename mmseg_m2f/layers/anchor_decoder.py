"""Decoder layers whose queries have boxes, refined layer by layer (DAB-DETR, arXiv 2201.12329; DINO, 2203.03605, 3.5).

Parameter names are those of `layers.transformer`; no code is adapted.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.core.boxes import inverse_sigmoid
from mmseg_m2f.layers.deformable_attention import DeformableAttention
from mmseg_m2f.layers.position_encoding import sine_box_encoding
from mmseg_m2f.layers.transformer import Attention, FeedForward, init_matrices


class AnchorDecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention inside each query's box, feed-forward network; each with its norm."""

    def __init__(
        self, channels: int, *, num_levels: int, num_heads: int, num_points: int, feedforward_channels: int
    ) -> None:
        super().__init__()
        self.self_attn = Attention(channels, num_heads=num_heads)
        self.cross_attn = DeformableAttention(
            channels, num_levels=num_levels, num_heads=num_heads, num_points=num_points
        )
        self.ffn = FeedForward(channels, feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        init_matrices(self.self_attn)
        init_matrices(self.ffn)

    def forward(
        self,
        queries: Float[Tensor, "B Q C"],
        position: Float[Tensor, "B Q C"],
        boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N C"],
        sizes: Sequence[tuple[int, int]],
        may_attend: Bool[Tensor, "B Q Q"] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        """The queries after the layer.

        Args:
            position: of the queries, added to query and key.
            boxes: centre x, centre y, width, height, in [0, 1].
            memory: cells of all levels, whose heights and widths are `sizes`.
            may_attend: True where a query (row) sees another; None for everywhere.
        """
        placed = queries + position
        queries = self.norms[0](queries + self.self_attn(placed, placed, queries, may_attend))
        queries = self.norms[1](queries + self.cross_attn(queries + position, memory, boxes, sizes))
        return self.norms[2](queries + self.ffn(queries))


class AnchorState(NamedTuple):
    """Queries after a layer, normed, and the boxes that they predict, centre x, centre y, width, height in [0, 1]."""

    queries: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]


class AnchorDecoder(nn.Module):
    """A stack of such layers. After each the boxes are refined: `r_i = σ(box(X_i) + σ⁻¹(r_{i-1}))`.

    The next layer gets r_i without gradient. What a layer predicts starts from the box before it and from normed
    queries, `σ(box(norm(X_i)) + σ⁻¹(r_{i-1}))`, so that its loss also trains the refinement before ("look forward
    twice").
    """

    def __init__(
        self,
        channels: int,
        *,
        num_layers: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        feedforward_channels: int,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.ModuleList(
            AnchorDecoderLayer(
                channels,
                num_levels=num_levels,
                num_heads=num_heads,
                num_points=num_points,
                feedforward_channels=feedforward_channels,
            )
            for _ in range(num_layers)
        )
        self.position = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.post_norm = nn.LayerNorm(channels)
        init_matrices(self.position)

    def forward(
        self,
        queries: Float[Tensor, "B Q C"],
        boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N C"],
        sizes: Sequence[tuple[int, int]],
        *,
        box_embed: nn.Module,
        may_attend: Bool[Tensor, "B Q Q"] | None = None,
        num_layers: int | None = None,
    ) -> list[AnchorState]:
        """One state per layer.

        Args:
            boxes: r_0; it keeps its gradient.
            box_embed: from queries to changes of their boxes before the sigmoid.
            may_attend: True where a query (row) sees another; None for everywhere.
            num_layers: run the first layers only.
        """
        states = []
        reference = boxes
        for layer in self.layers[:num_layers]:
            position = self.position(sine_box_encoding(reference, self.channels))
            queries = layer(queries, position, reference, memory, sizes, may_attend)
            normed = self.post_norm(queries)
            states.append(AnchorState(normed, (box_embed(normed) + inverse_sigmoid(boxes)).sigmoid()))
            boxes = (box_embed(queries) + inverse_sigmoid(reference)).sigmoid()
            reference = boxes.detach()
        return states
