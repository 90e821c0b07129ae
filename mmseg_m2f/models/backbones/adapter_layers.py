"""Layers of ViT-Adapter (arXiv 2205.08534, section 3): a branch of convolutions, injectors and extractors.

Written from the paper and the layer sizes of the release. Deviation: maps carry their sizes, so that sides of images
are multiples of 16, not of 32.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.layers.deformable_attention import DeformableAttention
from mmseg_m2f.layers.position_encoding import cell_centres
from mmseg_m2f.layers.transformer import flatten_maps

Sizes = Sequence[tuple[int, int]]
_EPS = 1e-6


class AdapterStem(nn.Module):
    """Maps of stride 4, 8, 16 and 32 of an image, by convolutions of 64 to 256 channels, then all of width D."""

    def __init__(self, width: int, *, norm_cfg: ConfigDict | dict) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv(3, 64, norm_cfg, stride=2),
            *_conv(64, 64, norm_cfg),
            *_conv(64, 64, norm_cfg),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_conv(64, 128, norm_cfg, stride=2))
        self.conv3 = nn.Sequential(*_conv(128, 256, norm_cfg, stride=2))
        self.conv4 = nn.Sequential(*_conv(256, 256, norm_cfg, stride=2))
        self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Conv2d(channels, width, 1) for channels in (64, 128, 256, 256))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """The maps, fine to coarse."""
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(self.conv4(c3))


class Injector(nn.Module):
    """`x ← x + γ · attention(LN x, LN c)` from the three coarser maps c to the patches x; γ starts at 0."""

    def __init__(self, width: int, *, num_heads: int, inner_channels: int) -> None:
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = DeformableAttention(width, num_levels=3, num_heads=num_heads, inner_channels=inner_channels)
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(
        self, patches: Float[Tensor, "B N D"], maps: Float[Tensor, "B Nc D"], *, grid: tuple[int, int], sizes: Sizes
    ) -> Float[Tensor, "B N D"]:
        """The patches after reading the maps."""
        points = cell_centres(grid, patches)
        return patches + self.gamma * self.attn(self.query_norm(patches), self.feat_norm(maps), points, sizes)


class Extractor(nn.Module):
    """`c ← c + attention(LN c, LN x)`, then `c ← c + FFN(LN c)`, from the patches x to the three coarser maps c."""

    def __init__(self, width: int, *, num_heads: int, inner_channels: int, drop_path_rate: float) -> None:
        super().__init__()
        self.query_norm, self.feat_norm = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = DeformableAttention(width, num_levels=1, num_heads=num_heads, inner_channels=inner_channels)
        self.ffn_norm = nn.LayerNorm(width, eps=_EPS)
        self.ffn = _ConvolvedFeedForward(width)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self, maps: Float[Tensor, "B Nc D"], patches: Float[Tensor, "B N D"], *, grid: tuple[int, int], sizes: Sizes
    ) -> Float[Tensor, "B Nc D"]:
        """The maps after reading the patches."""
        points = torch.cat([cell_centres(size, maps) for size in sizes])
        maps = maps + self.attn(self.query_norm(maps), self.feat_norm(patches), points, [grid])
        return maps + self.drop_path(self.ffn(self.ffn_norm(maps), sizes))


class Adapter(nn.Module):
    """All that ViT-Adapter adds to a vision transformer.

    Args:
        width: D of the transformer.
        num_heads: of the deformable attention.
        num_groups: groups of blocks; an extractor follows each, and two more the last.
        injectors: whether the patches read the maps before each group.
        value_ratio: width of the values that are read, relative to D.
        drop_path_rate: of the extractors' feed-forward layers.
        norm_cfg: of the convolutions and of the maps returned; batch norm unless given.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        num_groups: int = 4,
        injectors: bool = True,
        value_ratio: float = 0.5,
        drop_path_rate: float = 0.0,
        norm_cfg: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or dict(type="BN")
        attention = dict(num_heads=num_heads, inner_channels=int(width * value_ratio))
        self.spm = AdapterStem(width, norm_cfg=norm_cfg)
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.injectors = nn.ModuleList(Injector(width, **attention) for _ in range(num_groups if injectors else 0))
        self.extractors = nn.ModuleList(
            nn.ModuleList(
                Extractor(width, **attention, drop_path_rate=drop_path_rate)
                for _ in range(3 if group == num_groups - 1 else 1)
            )
            for group in range(num_groups)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norms = nn.ModuleList(build_norm_layer(norm_cfg, width)[1] for _ in range(4))
        _init_weights(self)

    def start(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B D _ _"], Float[Tensor, "B Nc D"], list[tuple[int, int]]]:
        """The map of stride 4, the tokens of the three coarser ones, and their sizes."""
        finest, *coarser = self.spm(images)
        sizes = [(x.shape[-2], x.shape[-1]) for x in coarser]
        vectors = [x + vector[:, None, None] for x, vector in zip(coarser, self.level_embed, strict=True)]
        return finest, flatten_maps(vectors), sizes

    def extract(
        self,
        group: int,
        maps: Float[Tensor, "B Nc D"],
        patches: Float[Tensor, "B N D"],
        *,
        grid: tuple[int, int],
        sizes: Sizes,
    ) -> Float[Tensor, "B Nc D"]:
        """The maps after the extractors behind a group of blocks."""
        for extractor in cast(nn.ModuleList, self.extractors[group]):
            maps = extractor(maps, patches, grid=grid, sizes=sizes)
        return maps

    def finish(
        self,
        finest: Float[Tensor, "B D _ _"],
        maps: Float[Tensor, "B Nc D"],
        patch_maps: Sequence[Float[Tensor, "B D h w"]],
        *,
        sizes: Sizes,
    ) -> tuple[Float[Tensor, "B D _ _"], ...]:
        """Four maps, fine to coarse: each plus the patches of its group, resized, then normalised."""
        pieces = maps.transpose(1, 2).split([height * width for height, width in sizes], -1)
        coarser = [piece.unflatten(-1, size) for piece, size in zip(pieces, sizes, strict=True)]
        finest = finest + self.up(coarser[0])
        return tuple(
            norm(x + resize_maps(patches, (x.shape[-2], x.shape[-1])))
            for norm, x, patches in zip(self.norms, [finest, *coarser], patch_maps, strict=True)
        )


class _ConvolvedFeedForward(nn.Module):
    """Two linear layers with a depth-wise convolution between, which is the same for all maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width // 4
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, tokens: Float[Tensor, "B N D"], sizes: Sizes) -> Float[Tensor, "B N D"]:
        hidden = self.fc1(tokens).transpose(1, 2)
        pieces = hidden.split([height * width for height, width in sizes], -1)
        mixed = [self.dwconv(piece.unflatten(-1, size)) for piece, size in zip(pieces, sizes, strict=True)]
        return self.fc2(F.gelu(flatten_maps(mixed)))


def _conv(channels: int, out_channels: int, norm_cfg: ConfigDict | dict, *, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [conv, build_norm_layer(norm_cfg, out_channels)[1], nn.ReLU(inplace=True)]


def _init_weights(adapter: nn.Module) -> None:
    """As released: linear layers truncated normal, convolutions by their outputs; attention keeps its own."""
    inside_attention = {
        id(layer) for part in adapter.modules() if isinstance(part, DeformableAttention) for layer in part.modules()
    }
    for layer in adapter.modules():
        if id(layer) in inside_attention or not isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            continue
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        else:
            outputs = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / outputs))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
