"""MaskFormer's pixel decoder, a plain FPN (arXiv 2107.06278, section 3.3; "Base" in Mask2Former's release).

Parameter names are mmdet's `PixelDecoder`'s; no code is adapted from it.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool, Float
from mmcv.cnn import ConvModule
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


@MODELS.register_module()
class FPNPixelDecoder(nn.Module):
    """A top-down path over all maps with `channels` channels; its memory is the backbone's coarsest map.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: width of the path and of the mask features.
        num_levels: L, how many of the coarsest maps of the path it returns for the queries.
        norm_groups: groups of the convolutions' GroupNorm.
    """

    def __init__(
        self, feature_spec: FeatureSpec, *, channels: int = 256, num_levels: int = 3, norm_groups: int = 32
    ) -> None:
        super().__init__()
        *finer, coarsest = feature_spec.channels
        self.num_levels = num_levels
        self.spec = PixelSpec(channels, (channels,) * num_levels, memory=coarsest)
        self.lateral_convs, self.output_convs = top_down_convs(finer, channels, norm_groups)
        self.last_feat_conv = output_conv(coarsest, channels, norm_groups)
        self.mask_feature = nn.Conv2d(channels, channels, 3, padding=1)
        caffe2_xavier_init(self.mask_feature)

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]], valid: Bool[Tensor, "B _ _"] | None = None
    ) -> PixelFeatures:
        """Decode maps given fine to coarse."""
        *finer, coarsest = features
        maps = top_down(self.lateral_convs, self.output_convs, self.last_feat_conv(coarsest), finer)
        return PixelFeatures(self.mask_feature(maps[-1]), tuple(maps[: self.num_levels]), coarsest, valid)


def output_conv(in_channels: int, channels: int, norm_groups: int) -> ConvModule:
    """3×3 convolution without bias, GroupNorm, ReLU."""
    module = ConvModule(
        in_channels, channels, 3, padding=1, norm_cfg=dict(type="GN", num_groups=norm_groups), bias=False
    )
    caffe2_xavier_init(module.conv)
    return module


def lateral_conv(in_channels: int, channels: int, norm_groups: int) -> ConvModule:
    """1×1 convolution without bias, GroupNorm, no activation."""
    norm = dict(type="GN", num_groups=norm_groups)
    module = ConvModule(in_channels, channels, 1, norm_cfg=norm, act_cfg=None, bias=False)
    caffe2_xavier_init(module.conv)
    return module


def top_down_convs(in_channels: Sequence[int], channels: int, norm_groups: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Lateral and output convolutions for the maps below the coarsest one, fine to coarse."""
    laterals = nn.ModuleList(lateral_conv(c, channels, norm_groups) for c in in_channels)
    outputs = nn.ModuleList(output_conv(channels, channels, norm_groups) for _ in in_channels)
    return laterals, outputs


def top_down(
    lateral_convs: nn.ModuleList, output_convs: nn.ModuleList, coarsest: Tensor, features: Sequence[Tensor]
) -> list[Tensor]:
    """Maps of the path, coarse to fine: `m₀ = coarsest`, `m_i = output_i(lateral_i(x_i) + upsample(m_{i-1}))`.

    Args:
        features: the backbone's maps without the coarsest, fine to coarse.
    """
    maps = [coarsest]
    for lateral, output, x in list(zip(lateral_convs, output_convs, features, strict=True))[::-1]:
        detail = lateral(x)
        maps.append(output(detail + F.interpolate(maps[-1], detail.shape[-2:], mode="nearest")))
    return maps
