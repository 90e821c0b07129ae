"""PMT (arXiv 2603.25398): blocks of its own behind a frozen vision transformer, in which queries join the patches.

The blocks stand in the place of EoMT's last ones: `EncoderMaskDecoder` runs them. Written from the paper and the layer
sizes of the release. Deviation: positions of patches are never rescaled at random, which the release does in training
for transformers without rotary positions (DINOv2).
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from mmcv.cnn import build_norm_layer
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.rotary_attention import RotarySelfAttention
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import TokenStream


@MODELS.register_module()
class FrozenEncoderBlocks(nn.Module):
    """A neck that turns the tokens of some blocks of a transformer into a new `TokenStream`.

    Each block's tokens are normalised, `t ← t + MLP(t)`, and multiplied by a learnt vector; the sum goes through blocks
    with rotary positions, which the query decoder runs.

    Args:
        in_channels: D, of the tokens.
        num_maps: blocks of the transformer that are read (`out_indices` of the backbone).
        num_blocks: blocks here.
        num_heads: of their attention; heads of 64 channels unless given.
        norm_cfg: of the tokens of a block, over all of them; batch norm unless given. mmengine's `sync_bn = "torch"`
            gives the published one.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_maps: int = 4,
        num_blocks: int = 6,
        num_heads: int | None = None,
        norm_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__()
        num_heads = max(in_channels // 64, 1) if num_heads is None else num_heads
        norm_cfg = norm_cfg or dict(type="BN1d")
        self.laterals = nn.ModuleList(_Lateral(in_channels, norm_cfg) for _ in range(num_maps))
        self.blocks = nn.ModuleList(_RotaryBlock(in_channels, num_heads=num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(in_channels)

    def forward(self, inputs: Sequence[Tensor]) -> TokenStream:
        """The sum of the tokens, the blocks and the norm behind them.

        Raises:
            ValueError: the backbone gives no tokens, or those of another number of blocks.
        """
        side_tokens = inputs.side_tokens if isinstance(inputs, TokenStream) else ()
        if not isinstance(inputs, TokenStream) or len(side_tokens) != len(self.laterals):
            raise InvalidValueError(
                f"model.neck (FrozenEncoderBlocks): expected the tokens of {len(self.laterals)} blocks (num_maps), got "
                f"those of {len(side_tokens)}. Use TimmPlainViT(as_tokens=True) as model.backbone, with as many "
                "out_indices."
            )
        tokens = torch.stack([lateral(x) for lateral, x in zip(self.laterals, side_tokens, strict=True)]).sum(0)
        return TokenStream(
            tokens=tokens,
            grid=inputs.grid,
            num_prefix=inputs.num_prefix,
            blocks=tuple(partial(block, inputs.grid) for block in self.blocks),
            norm=self.norm,
        )


class _Lateral(nn.Module):
    """`s · (t + MLP(t))` of normalised tokens t."""

    def __init__(self, channels: int, norm_cfg: ConfigDict | dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        half = channels // 2
        self.mlp = nn.Sequential(nn.Linear(channels, half), nn.GELU(), nn.Linear(half, channels))
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        tokens = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
        return self.scale * (tokens + self.mlp(tokens))


class _RotaryBlock(nn.Module):
    """A pre-norm block whose two parts are multiplied by learnt vectors, which start at 1."""

    def __init__(self, channels: int, *, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = RotarySelfAttention(channels, num_heads=num_heads)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))
        self.scale1, self.scale2 = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(
        self,
        grid: tuple[int, int],
        tokens: Float[Tensor, "B N C"],
        may_attend: Bool[Tensor, "B 1 N N"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        tokens = tokens + self.scale1 * self.attn(self.norm1(tokens), grid, may_attend)
        return tokens + self.scale2 * self.mlp(self.norm2(tokens))
