"""A plain vision transformer (arXiv 2010.11929) that goes on with a part of its tokens (SegViT, 2210.05844, 3.3).

Deviations: positions are resized wherever the grid differs, not only where the number of tokens does; without weights
to load they start as sine encodings.

Keeping edges is SegViTv2's idea (2306.06289), of which no code was released. Our own are: the layers that find edges,
the budget, that unused places are masked out and zero, and, of low confidence, the threshold of 0.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.position_encoding import positions_to_learn
from mmseg_m2f.layers.transformer import Attention, flatten_maps
from mmseg_m2f.registry import MODELS

_NORM_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class PartialMaps(Sequence[Tensor]):
    """Maps of which some have a token in some cells only; to those who ask for maps, just these.

    Attributes:
        maps: all on the same grid; zero where there is no token.
        valid: for each map, where it has tokens; None where it has all.
        edge_logits: how surely a cell holds more than one class, from the tokens before some were dropped.
        patch_size: of a cell, in pixels.
    """

    maps: tuple[Float[Tensor, "B _ H W"], ...]
    valid: tuple[Bool[Tensor, "B H W"] | None, ...]
    edge_logits: Float[Tensor, "B H W"]
    patch_size: int

    def __len__(self) -> int:
        return len(self.maps)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return self.maps[index]


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward network; names of parameters are those of mmseg's layers."""

    def __init__(self, channels: int, *, num_heads: int, drop_path_rate: float) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels, eps=_NORM_EPS)
        self.attn = Attention(channels, num_heads=num_heads)
        self.ln2 = nn.LayerNorm(channels, eps=_NORM_EPS)
        hidden = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU())
        self.ffn = nn.ModuleDict(dict(layers=nn.Sequential(hidden, nn.Linear(4 * channels, channels))))
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        kept: Int[Tensor, "B n"] | None = None,
        may_attend: Bool[Tensor, "B 1 N"] | None = None,
    ) -> Float[Tensor, "B n C"]:
        """The tokens after the block; only those `kept`, which still look at all, unless it is None."""
        normed = queries = self.ln1(tokens)
        if kept is not None:
            tokens, queries = _take(tokens, kept), _take(normed, kept)
        tokens = tokens + self.drop_path(self.attn(queries, normed, normed, may_attend))
        return tokens + self.drop_path(self.ffn["layers"](self.ln2(tokens)))


class EdgeSampler(nn.Module):
    """Keeps, besides a regular grid, the cells most likely to hold more than one class (SegViTv2, 2306.06289).

    Args:
        stride: of the regular grid.
        threshold: least probability of an edge.
        budget: how many cells may be added, as a share of all.
    """

    def __init__(self, channels: int, *, stride: int, threshold: float, budget: float) -> None:
        super().__init__()
        self.stride, self.threshold, self.budget = stride, threshold, budget
        self.edge = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels // 4), nn.GELU(), nn.Linear(channels // 4, 1)
        )

    def forward(
        self, tokens: Float[Tensor, "B N C"], size: tuple[int, int]
    ) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"], Float[Tensor, "B N"]]:
        """Cells to keep, the regular grid first; which of them count, the others fill up; edge logits of all."""
        logits = self.edge(tokens).squeeze(-1)
        grid = regular_grid(size, self.stride, tokens)
        probs = logits.detach().sigmoid().index_fill(1, grid.flatten(), -1.0)
        most = min(int(self.budget * tokens.shape[1]), tokens.shape[1] - grid.numel())
        edges = probs.topk(most)
        kept = torch.cat([grid.flatten().expand(len(tokens), -1), edges.indices], 1)
        return kept, F.pad(edges.values > self.threshold, (grid.numel(), 0), value=True), logits


@MODELS.register_module()
class ShrunkVisionTransformer(BaseModule):
    """A vision transformer without class token and final norm, whose later blocks see fewer tokens.

    Block `shrink_index` keeps the tokens at every `shrink_stride`-th row and column, starting with the first; they
    look at all tokens once more. `shrink_stride=1` is the plain transformer. Weights of `mmseg.VisionTransformer`
    load as they are; positions of another grid are resized and those of a class token dropped. Grids of checkpoints are
    taken for square, unless they have no class token and as many positions as this model.

    Args:
        img_size: height and width in pixels, or one number for both, that the positions are learnt for; other inputs
            resize them.
        drop_path_rate: of the last block; those before have less, linearly.
        out_indices: blocks whose tokens are returned, as maps; one number or several.
        shrink_index: the first block of fewer tokens.
        sampler: "grid", or "edge" to keep edges as well: maps are then `PartialMaps` on the fine grid, for
            `QueryUpsamplingDecoder`, and `TokenEdgeLoss` trains what finds the edges.
        edge_threshold, edge_budget: see `EdgeSampler`.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int],
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dims: int = 1024,
        num_layers: int = 24,
        num_heads: int = 16,
        drop_path_rate: float = 0.0,
        out_indices: int | tuple[int, ...] = (7, 23),
        shrink_index: int = 8,
        shrink_stride: int = 2,
        sampler: str = "grid",
        edge_threshold: float = 0.7,
        edge_budget: float = 0.125,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        height, width = to_2tuple(img_size)
        out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        _check_choices(
            sampler=(sampler, sampler in ("grid", "edge"), "'grid' or 'edge'"),
            img_size=((height, width), min(height, width) >= patch_size, f"at least one patch of {patch_size} pixels"),
            out_indices=(out_indices, len(out_indices) > 0, "one block or more"),
            shrink_index=(shrink_index, 0 <= shrink_index < num_layers, f"a block, 0 to {num_layers - 1}"),
            shrink_stride=(shrink_stride, shrink_stride >= 1, "1 or more; 1 keeps all tokens"),
            edge_threshold=(edge_threshold, 0 <= edge_threshold <= 1, "a probability, 0 to 1"),
            edge_budget=(edge_budget, 0 <= edge_budget <= 1, "a share of all tokens, 0 to 1"),
        )
        self.patch_size, self.out_indices = patch_size, out_indices
        self.shrink_index, self.shrink_stride = shrink_index, shrink_stride
        self.grid_size = (height // patch_size, width // patch_size)
        projection = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.patch_embed = nn.ModuleDict(dict(projection=projection))
        self.pos_embed = nn.Parameter(positions_to_learn(self.grid_size, embed_dims).unsqueeze(0))
        self.layers = nn.ModuleList(
            TransformerBlock(
                embed_dims, num_heads=num_heads, drop_path_rate=drop_path_rate * index / max(num_layers - 1, 1)
            )
            for index in range(num_layers)
        )
        self.edge_sampler = None
        if sampler == "edge":
            self.edge_sampler = EdgeSampler(
                embed_dims, stride=shrink_stride, threshold=edge_threshold, budget=edge_budget
            )
        self.register_load_state_dict_pre_hook(_adopt_positions)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        """One map per entry of `out_indices`: strides are the patch size, and that times `shrink_stride`."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.patch_embed["projection"](padded)
        size = (x.shape[-2], x.shape[-1])
        tokens = flatten_maps([x]) + _resize_positions(self.pos_embed, self.grid_size, size)
        maps = []
        for index, block in enumerate(self.layers[: self.shrink_index]):
            tokens = block(tokens)
            if index in self.out_indices:
                maps.append(_as_map(tokens, size))
        if self.edge_sampler is not None:
            return self._keep_edges(maps, tokens, size, self.edge_sampler)
        grid = regular_grid(size, self.shrink_stride, tokens)
        later = self._run_later(tokens, grid.flatten().expand(len(tokens), -1))
        return maps + [_as_map(x, (grid.shape[0], grid.shape[1])) for x in later]

    def _keep_edges(
        self, maps: list[Tensor], tokens: Float[Tensor, "B N C"], size: tuple[int, int], sampler: EdgeSampler
    ) -> PartialMaps:
        kept, counts, edge_logits = sampler(tokens, size)
        later = self._run_later(tokens, kept, counts.unsqueeze(1))
        cells = kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        spread = [torch.zeros_like(tokens).scatter(1, cells, x * counts.unsqueeze(-1)) for x in later]
        valid = torch.zeros_like(edge_logits, dtype=torch.bool).scatter(1, kept, counts).unflatten(-1, size)
        return PartialMaps(
            (*maps, *(_as_map(x, size) for x in spread)),
            (*(None for _ in maps), *(valid for _ in later)),
            edge_logits.unflatten(-1, size),
            self.patch_size,
        )

    def _run_later(
        self,
        tokens: Float[Tensor, "B N C"],
        kept: Int[Tensor, "B n"],
        may_attend: Bool[Tensor, "B 1 n"] | None = None,
    ) -> list[Float[Tensor, "B n C"]]:
        """The tokens kept, after those blocks from `shrink_index` on that are in `out_indices`."""
        outputs = []
        for index in range(self.shrink_index, len(self.layers)):
            first = index == self.shrink_index
            tokens = self.layers[index](tokens, kept) if first else self.layers[index](tokens, None, may_attend)
            if index in self.out_indices:
                outputs.append(tokens)
        return outputs


def regular_grid(size: tuple[int, int], stride: int, like: Tensor) -> Int[Tensor, "H W"]:
    """Indices of the cells in every `stride`-th row and column of a grid."""
    cells = torch.arange(size[0] * size[1], device=like.device).view(size)
    return cells[::stride, ::stride]


def _check_choices(**choices: tuple[object, bool, str]) -> None:
    """Each is a value, whether it fits, and what is expected."""
    for name, (value, fits, expected) in choices.items():
        if not fits:
            raise InvalidValueError(f"backbone.{name} (ShrunkVisionTransformer): expected {expected}, got {value!r}.")


def _as_map(tokens: Float[Tensor, "B N C"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    return tokens.transpose(1, 2).unflatten(-1, size)


def _take(tokens: Float[Tensor, "B N C"], kept: Int[Tensor, "B n"]) -> Float[Tensor, "B n C"]:
    return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _resize_positions(
    positions: Float[Tensor, "1 _ C"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "1 _ C"]:
    if size == new_size:
        return positions
    grid = positions.transpose(1, 2).unflatten(-1, size)
    return flatten_maps([F.interpolate(grid, new_size, mode="bicubic", align_corners=False)])


def _adopt_positions(backbone: ShrunkVisionTransformer, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Drop the class token of a checkpoint, and bring its positions to this model's grid."""
    has_class_token = state_dict.pop(f"{prefix}cls_token", None) is not None
    stored = state_dict.get(f"{prefix}pos_embed")
    if stored is None:
        return
    positions = stored[:, 1:] if has_class_token else stored
    side = round(positions.shape[1] ** 0.5)
    is_square = side**2 == positions.shape[1]
    same_number = positions.shape[1] == backbone.pos_embed.shape[1]
    if not same_number or (has_class_token and is_square):
        if not is_square:
            raise InvalidValueError(
                f"The checkpoint's positions ({prefix}pos_embed) are {positions.shape[1]}, expected "
                f"{backbone.pos_embed.shape[1]}, or a square number to be resized. Set backbone.img_size to the size "
                "the checkpoint was trained at."
            )
        positions = _resize_positions(positions, (side, side), backbone.grid_size)
    state_dict[f"{prefix}pos_embed"] = positions
