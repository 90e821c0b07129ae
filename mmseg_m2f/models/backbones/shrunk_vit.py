"""A plain vision transformer (arXiv 2010.11929) that drops a part of its tokens (SegViT, 2210.05844, 3.3).

Deviations: positions are resized wherever the grid differs, not only where the number of tokens does; without weights
to load they start as sine encodings.

Keeping edges is SegViTv2's idea (2306.06289), of which no code was released. Our own are: the layers that find edges,
the budget, that unused entries are masked out and zero, and the threshold of 0.7.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from mmseg_m2f.core.sizes import is_known_equal
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.position_encoding import positions_to_learn
from mmseg_m2f.layers.transformer import Attention, flatten_maps
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.registry import MODELS

_NORM_EPS = 1e-6


class Shrinking(NamedTuple):
    """Which tokens later blocks keep.

    Args:
        block: the first block of fewer tokens.
        stride: of the regular grid of tokens that is kept; 1 keeps all tokens.
        sampler: "grid" keeps the regular grid; "edge" also keeps edges: maps are then `PartialMaps` on the fine grid,
            for `QueryUpsamplingDecoder`, and `TokenEdgeLoss` trains the layers that find edges.
        edge_threshold, edge_budget: see `EdgeSampler`.
    """

    block: int = 8
    stride: int = 2
    sampler: str = "grid"
    edge_threshold: float = 0.7
    edge_budget: float = 0.125


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
        """The tokens after the block.

        Args:
            kept: indices of the tokens to return; they attend to all tokens. None returns all.
            may_attend: True for tokens that may be attended to; None for all.
        """
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
        """Which cells to keep.

        Returns:
            Indices of n cells, the regular grid first; True for those that are kept, False for filling; edge logits of
            all cells.
        """
        logits = self.edge(tokens).squeeze(-1)
        grid = regular_grid(size, self.stride, tokens)
        probs = logits.detach().sigmoid().index_fill(1, grid.flatten(), -1.0)
        num_edges = torch.sym_min(torch.sym_int(self.budget * tokens.shape[1]), tokens.shape[1] - grid.numel())
        edges = probs.topk(num_edges)
        kept = torch.cat([grid.flatten().expand(tokens.shape[0], -1), edges.indices], 1)
        return kept, F.pad(edges.values > self.threshold, (grid.numel(), 0), value=True), logits


@MODELS.register_module()
class ShrunkVisionTransformer(BaseModule):
    """A vision transformer without class token and final norm, whose later blocks get fewer tokens.

    Block `shrink.block` keeps the tokens at every `shrink.stride`-th row and column, starting with the first; they
    attend to all tokens in this block. A stride of 1 gives the plain transformer. Weights of `mmseg.VisionTransformer`
    load as they are; positions of another grid are resized and those of a class token dropped. Grids of checkpoints are
    assumed to be square, unless they have no class token and as many positions as this model.

    Args:
        img_size: height and width in pixels, or one number for both, that the positions are learnt for; they are
            resized for other inputs.
        drop_path_rate: of the last block; it grows linearly from 0.
        out_indices: blocks whose tokens are returned, as maps; one number or several.
        shrink: fields of a `Shrinking`.

    Raises:
        ValueError: a number is out of its range, or `shrink` has an unknown field.
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
        shrink: Mapping[str, int | float | str] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        height, width = to_2tuple(img_size)
        out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        self.shrink = _checked_shrinking(shrink or {}, num_layers)
        if min(height, width) < patch_size:
            raise _wrong("img_size", f"at least one patch of {patch_size} pixels", (height, width))
        if not out_indices:
            raise _wrong("out_indices", "one block or more", out_indices)
        self.patch_size, self.out_indices = patch_size, out_indices
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
        if self.shrink.sampler == "edge":
            self.edge_sampler = EdgeSampler(
                embed_dims,
                stride=self.shrink.stride,
                threshold=self.shrink.edge_threshold,
                budget=self.shrink.edge_budget,
            )
        self.register_load_state_dict_pre_hook(_adopt_positions)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Sequence[Float[Tensor, "B _ _ _"]]:
        """One map per entry of `out_indices`: strides are the patch size, and that times `shrink.stride`."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.patch_embed["projection"](padded)
        size = (x.shape[-2], x.shape[-1])
        tokens = flatten_maps([x]) + _resize_positions(self.pos_embed, self.grid_size, size)
        maps = []
        for index, block in enumerate(self.layers[: self.shrink.block]):
            tokens = block(tokens)
            if index in self.out_indices:
                maps.append(_as_map(tokens, size))
        if self.edge_sampler is not None:
            return self._keep_edges(maps, tokens, size, self.edge_sampler)
        grid = regular_grid(size, self.shrink.stride, tokens)
        later = self._run_later(tokens, grid.flatten().expand(tokens.shape[0], -1))
        return maps + [_as_map(x, (grid.shape[0], grid.shape[1])) for x in later]

    def no_weight_decay(self) -> set[str]:
        """The positions."""
        return {"pos_embed"}

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
        """The tokens kept, after those blocks from `shrink.block` on that are in `out_indices`."""
        outputs = []
        for index in range(self.shrink.block, len(self.layers)):
            first = index == self.shrink.block
            tokens = self.layers[index](tokens, kept) if first else self.layers[index](tokens, None, may_attend)
            if index in self.out_indices:
                outputs.append(tokens)
        return outputs


def regular_grid(size: tuple[int, int], stride: int, like: Tensor) -> Int[Tensor, "H W"]:
    """Indices of the cells in every `stride`-th row and column of a grid."""
    cells = torch.arange(size[0] * size[1], device=like.device).view(size)
    return cells[::stride, ::stride]


def _checked_shrinking(fields: Mapping[str, int | float | str], num_layers: int) -> Shrinking:
    unknown = set(fields) - set(Shrinking._fields)
    if unknown:
        raise _wrong("shrink", f"the fields {', '.join(Shrinking._fields)}", f"{', '.join(sorted(unknown))} as well")
    shrink = Shrinking(**fields)  # type: ignore[arg-type]
    if not 0 <= shrink.block < num_layers:
        raise _wrong("shrink.block", f"a block, 0 to {num_layers - 1}", shrink.block)
    if shrink.stride < 1:
        raise _wrong("shrink.stride", "1 or more; 1 keeps all tokens", shrink.stride)
    if shrink.sampler not in ("grid", "edge"):
        raise _wrong("shrink.sampler", "'grid' or 'edge'", shrink.sampler)
    if not 0 <= shrink.edge_threshold <= 1:
        raise _wrong("shrink.edge_threshold", "a probability, 0 to 1", shrink.edge_threshold)
    if not 0 <= shrink.edge_budget <= 1:
        raise _wrong("shrink.edge_budget", "a share of all tokens, 0 to 1", shrink.edge_budget)
    return shrink


def _wrong(name: str, expected: str, got: object) -> InvalidValueError:
    return InvalidValueError(f"backbone.{name} (ShrunkVisionTransformer): expected {expected}, got {got!r}.")


def _as_map(tokens: Float[Tensor, "B N C"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    return tokens.transpose(1, 2).unflatten(-1, size)


def _take(tokens: Float[Tensor, "B N C"], kept: Int[Tensor, "B n"]) -> Float[Tensor, "B n C"]:
    return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def _resize_positions(
    positions: Float[Tensor, "1 N C"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "1 N2 C"]:
    if is_known_equal(size, new_size):
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
