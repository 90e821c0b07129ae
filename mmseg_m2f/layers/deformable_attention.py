"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, section 4.1; inside boxes: appendix A.4)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.kernels import fused_deformable_attention as kernels


def deformable_attention(
    value: Float[Tensor, "B N M D"],
    sizes: Sequence[tuple[int, int]],
    reference_points: Float[Tensor, "Nq 2"],
    offsets: Float[Tensor, "B Nq M L P 2"],
    logits: Float[Tensor, "B Nq M L*P"],
) -> Float[Tensor, "B Nq M*D"]:
    """`Σ_lp softmax(logits)_lp · value_l(reference + offset_lp)` for each query and head.

    Values are read bilinearly at P points of each of the L levels. This function chooses the kernel: a compiled one
    where there is one for the device, else plain PyTorch. All give the same values and gradients, in the dtype of
    `value`; points, weights and sums are in at least float32. `MMSEG_M2F_KERNELS=off` in the environment selects plain
    PyTorch.

    Args:
        value: the maps of all levels, flattened and concatenated.
        sizes: height and width of each level, in the order of `value`.
        reference_points: position of each query, xy in [0, 1]; it gets no gradient. Half precision would move it by up
            to a quarter of a cell in a map of 128.
        offsets: from the reference point to the sampled points, in cells of each level; outside a map the value is 0.
        logits: weights of the points, before the softmax over the L · P points of a head.
    """
    if kernels.is_available(value, num_readings=logits.shape[-1]):
        shapes = [side for size in sizes for side in size]
        return kernels.deformable_attention(value, shapes, reference_points, offsets, logits)
    return deformable_attention_in_pytorch(value, sizes, reference_points, offsets, logits)


def deformable_attention_in_pytorch(
    value: Float[Tensor, "B N M D"],
    sizes: Sequence[tuple[int, int]],
    reference_points: Float[Tensor, "Nq 2"],
    offsets: Float[Tensor, "B Nq M L P 2"],
    logits: Float[Tensor, "B Nq M L*P"],
) -> Float[Tensor, "B Nq M*D"]:
    """The same in plain PyTorch: the reference for every kernel."""
    heads, dtype = value.shape[2], value.dtype
    value, reference_points, offsets, logits = (
        _at_least_float32(x) for x in (value, reference_points, offsets, logits)
    )
    # Sizes stay numbers of the host: a tensor of them would have to be uploaded.
    x, y = offsets.unbind(-1)
    shifts = [torch.stack([x[..., i, :] / width, y[..., i, :] / height], -1) for i, (height, width) in enumerate(sizes)]
    locations = reference_points[:, None, None, None] + torch.stack(shifts, 3)
    weights = logits.softmax(-1)
    maps = value.flatten(2).transpose(1, 2)
    grids = (2 * locations - 1).permute(0, 2, 1, 3, 4, 5).flatten(0, 1)  # B*M Nq L P 2
    readings = []
    for level, flat in enumerate(maps.split([height * width for height, width in sizes], -1)):
        per_head = flat.unflatten(1, (heads, -1)).flatten(0, 1).unflatten(-1, sizes[level])
        readings.append(
            F.grid_sample(per_head, grids[:, :, level], mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    stacked = torch.stack(readings, -2).flatten(-2)  # B*M D Nq L*P
    per_reading = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
    return (stacked * per_reading).sum(-1).unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2).to(dtype)


def _at_least_float32(x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _offsets_in_boxes(
    offsets: Float[Tensor, "B Nq M L P 2"], boxes: Float[Tensor, "B Nq 4"], sizes: Sequence[tuple[int, int]]
) -> Float[Tensor, "B Nq M L P 2"]:
    """From the origin of each level to the points that offsets in boxes name, in cells."""
    boxes = _at_least_float32(boxes)[:, :, None, None, None]
    places = boxes[..., :2] + offsets * (boxes[..., 2:] / (2 * offsets.shape[-2]))
    # Per axis with the host's numbers: a tensor of sizes would have to be uploaded.
    levels = [
        torch.stack([places[:, :, :, i, :, 0] * width, places[:, :, :, i, :, 1] * height], -1)
        for i, (height, width) in enumerate(sizes)
    ]
    return torch.stack(levels, 3)


class DeformableAttention(nn.Module):
    """Attention in which each token reads P learnt points of every level.

    Initially, point p of head m lies p + 1 cells from the token in the direction of the angle 2πm/M, on a square; where
    queries have boxes, p + 1 times the P-th part of half a side from the middle of the box.

    Args:
        channels: C, of query, value and result.
        inner_channels: of the values that are read, all heads together; C unless given.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_levels: int,
        num_heads: int = 8,
        num_points: int = 4,
        inner_channels: int | None = None,
    ) -> None:
        super().__init__()
        inner_channels = channels if inner_channels is None else inner_channels
        if inner_channels % num_heads:
            raise InvalidValueError(
                f"DeformableAttention: channels {inner_channels} must be a multiple of num_heads {num_heads}."
            )
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        readings = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(channels, readings * 2)
        self.attention_weights = nn.Linear(channels, readings)
        self.value_proj = nn.Linear(channels, inner_channels)
        self.output_proj = nn.Linear(inner_channels, channels)
        self._init_weights()

    def _init_weights(self) -> None:
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        ring = direction[:, None, None] * steps[:, None]  # M 1 P 2
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(ring.expand(-1, self.num_levels, -1, -1).flatten())
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Float[Tensor, "B Nq C"],
        value: Float[Tensor, "B N C"],
        reference: Float[Tensor, "Nq 2"] | Float[Tensor, "B Nq 4"],
        sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B Nq C"]:
        """Attend from `query` (content plus position) to `value`.

        Args:
            reference: where each query is, in [0, 1]: a point xy, from which offsets count in the cells of each level,
                or a box (centre x, centre y, width, height), from whose centre they count in width / 2P and height /
                2P. Boxes get a gradient, points none.
            sizes: height and width of each level of `value`.
        """
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        offsets = self.sampling_offsets(query).unflatten(-1, (heads, levels, points, 2))
        if reference.shape[-1] == 4:
            offsets = _offsets_in_boxes(offsets, reference, sizes)
            reference = reference.new_zeros(query.shape[1], 2)
        attended = deformable_attention(
            self.value_proj(value).unflatten(-1, (heads, -1)),
            sizes,
            reference,
            offsets,
            self.attention_weights(query).unflatten(-1, (heads, levels * points)),
        )
        return self.output_proj(attended)
