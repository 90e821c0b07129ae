"""Multi-scale deformable attention and FPN steps: pixel decoder of Mask2Former (arXiv 2112.01527, 3.2.2), Mask DINO
(2206.02777, 3.2).

Parameter names are mmdet's `MSDeformAttnPixelDecoder`'s; no code is adapted from it.
Deviations: encoder matrices start xavier-uniform as in the official release (mmdet: xavier-normal).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from mmcv.cnn import ConvModule
from mmengine.model import caffe2_xavier_init, xavier_init
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.group_norm import GroupNorm
from mmseg_m2f.layers.position_encoding import cell_centres, sine_position_encoding
from mmseg_m2f.layers.transformer import DeformableEncoderLayer, flatten_maps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


class LevelVectors(nn.Module):
    """One learnt vector per level.

    Not an `nn.Embedding`: the published recipes decay these vectors, and the optimizer's parameter rule
    exempts embeddings.
    """

    def __init__(self, num_levels: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_levels, channels))


class DeformableEncoder(nn.Module):
    """A stack of deformable encoder layers over the tokens of all levels."""

    def __init__(
        self,
        channels: int,
        *,
        num_layers: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        feedforward_channels: int,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                channels,
                num_levels=num_levels,
                num_heads=num_heads,
                num_points=num_points,
                feedforward_channels=feedforward_channels,
                recompute=recompute,
            )
            for _ in range(num_layers)
        )

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        position: Float[Tensor, "N C"],
        sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B N C"]:
        points = torch.cat([cell_centres(size, tokens) for size in sizes])
        for layer in self.layers:
            tokens = layer(tokens, position, points, sizes)
        return tokens


@MODELS.register_module()
class DeformablePixelDecoder(nn.Module):
    """Refines the coarsest maps together, then adds the finer ones by FPN steps.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: C, width of all maps inside and of the mask features.
        num_levels: how many of the backbone's coarsest maps the encoder reads and returns.
        num_extra_levels: further, coarser maps that the encoder reads and returns, each at half the size of the one
            before; the first is made of the backbone's coarsest map.
        always_add_finest: add the backbone's finest map by an FPN step also where the encoder has read all maps, as
            Mask DINO does.
        num_layers: encoder layers.
        num_points: P, points that each token reads per head and level.
        norm_groups: groups of the convolutions' GroupNorm.
        recompute: compute the activations inside the encoder layers again in the backward pass instead of keeping them:
            a little slower, much less memory, the same numbers.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        *,
        channels: int = 256,
        num_levels: int = 3,
        num_extra_levels: int = 0,
        always_add_finest: bool = False,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 1024,
        norm_groups: int = 32,
        recompute: bool = True,
    ) -> None:
        super().__init__()
        if len(feature_spec.channels) < num_levels:
            raise InvalidValueError(
                f"DeformablePixelDecoder: num_levels is {num_levels}, but the backbone returns only "
                f"{len(feature_spec.channels)} maps (channels {feature_spec.channels}). "
                "Return more maps (the backbone's out_indices) or lower num_levels."
            )
        self.num_levels, self.num_extra_levels = num_levels, num_extra_levels
        total = num_levels + num_extra_levels
        self.spec = PixelSpec(channels, (channels,) * total, memory=channels)
        norm = dict(type="GN", num_groups=norm_groups)
        coarse_to_fine = feature_spec.channels[::-1]
        self.input_convs = nn.ModuleList(
            ConvModule(c, channels, 1, norm_cfg=norm, act_cfg=None, bias=True) for c in coarse_to_fine[:num_levels]
        )
        self.extra_convs = nn.ModuleList(
            ConvModule(c, channels, 3, stride=2, padding=1, norm_cfg=norm, act_cfg=None, bias=True)
            for c in [coarse_to_fine[0], *[channels] * num_extra_levels][:num_extra_levels]
        )
        self.level_encoding = LevelVectors(total, channels)
        self.encoder = DeformableEncoder(
            channels,
            num_layers=num_layers,
            num_levels=total,
            num_heads=num_heads,
            num_points=num_points,
            feedforward_channels=feedforward_channels,
            recompute=recompute,
        )
        self.first_added = min(num_levels, len(coarse_to_fine) - 1) if always_add_finest else num_levels
        finer = coarse_to_fine[self.first_added :]
        norm = dict(type=GroupNorm, num_groups=norm_groups)  # the largest maps
        self.lateral_convs = nn.ModuleList(
            ConvModule(c, channels, 1, norm_cfg=norm, act_cfg=None, bias=False) for c in finer
        )
        self.output_convs = nn.ModuleList(
            ConvModule(channels, channels, 3, padding=1, norm_cfg=norm, bias=False) for _ in finer
        )
        self.mask_feature = nn.Conv2d(channels, channels, 1)
        for module in [*self.input_convs, *self.extra_convs]:
            xavier_init(module.conv, distribution="uniform")
        for module in [*self.lateral_convs, *self.output_convs]:
            caffe2_xavier_init(module.conv)
        caffe2_xavier_init(self.mask_feature)

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]], valid: Bool[Tensor, "B _ _"] | None = None
    ) -> PixelFeatures:
        """Decode maps given fine to coarse; padding is treated as image, as in the other implementations."""
        coarse_to_fine = list(features)[::-1]
        maps = [conv(x) for conv, x in zip(self.input_convs, coarse_to_fine, strict=False)]
        coarsest = coarse_to_fine[0]
        for conv in self.extra_convs:
            coarsest = conv(coarsest)
            maps.insert(0, coarsest)
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        position = torch.cat(
            [
                (sine_position_encoding(size, x.shape[1], x).flatten(1).T + vector)
                for size, x, vector in zip(sizes, maps, self.level_encoding.weight, strict=True)
            ]
        )
        # Under autocast the norms give float32 on a GPU and half precision on a CPU; sums are float32 on both.
        tokens = self.encoder(flatten_maps(maps).to(position.dtype), position, sizes)
        pieces = tokens.transpose(1, 2).split([height * width for height, width in sizes], -1)
        levels = [piece.unflatten(-1, size) for piece, size in zip(pieces, sizes, strict=True)]

        finest = levels[-1]
        finer = coarse_to_fine[self.first_added :]
        for lateral, output, x in zip(self.lateral_convs, self.output_convs, finer, strict=True):
            detail, coarse = lateral(x), finest
            finest = output(_sum(detail, resize_maps(coarse, (x.shape[-2], x.shape[-1])), unchanged=coarse))
        return PixelFeatures(self.mask_feature(finest), tuple(levels), levels[self.num_extra_levels], valid)


def _sum(detail: Tensor, resized: Tensor, *, unchanged: Tensor) -> Tensor:
    """`detail + resized`, in the memory of one of them: in float32 these are the largest maps of all."""
    if detail.dtype == resized.dtype:
        return detail.add_(resized)
    return resized + detail if resized is unchanged else resized.add_(detail)
