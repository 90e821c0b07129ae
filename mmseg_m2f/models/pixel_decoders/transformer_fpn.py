"""MaskFormer's pixel decoder with a DETR encoder on the coarsest map (arXiv 2107.06278, section 4.1).

Parameter names are mmdet's `TransformerEncoderPixelDecoder`'s; no code is adapted from it.
Deviations: padding is treated as image, as in the official release (mmdet masks it).
"""

from collections.abc import Sequence

from jaxtyping import Float
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from mmseg_m2f.layers.position_encoding import sine_position_encoding
from mmseg_m2f.layers.transformer import EncoderLayer, flatten_maps
from mmseg_m2f.models.pixel_decoders.fpn import output_conv, top_down, top_down_convs
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


class Encoder(nn.Module):
    """A stack of DETR encoder layers over the cells of one map."""

    def __init__(
        self, channels: int, *, num_layers: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(channels, num_heads=num_heads, feedforward_channels=feedforward_channels, dropout=dropout)
            for _ in range(num_layers)
        )

    def forward(self, tokens: Float[Tensor, "B N C"], position: Float[Tensor, "N C"]) -> Float[Tensor, "B N C"]:
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens


@MODELS.register_module()
class TransformerFPNPixelDecoder(nn.Module):
    """An encoder over the coarsest map, then the top-down path of `FPNPixelDecoder`.

    Its memory is the encoder's output.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: width of everything inside and of the mask features.
        num_levels: how many of the coarsest maps of the path it returns for the queries.
        num_layers: encoder layers.
        norm_groups: groups of the convolutions' GroupNorm.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        *,
        channels: int = 256,
        num_levels: int = 3,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        *finer, coarsest = feature_spec.channels
        self.num_levels = num_levels
        self.spec = PixelSpec(channels, (channels,) * num_levels, memory=channels)
        self.encoder_in_proj = nn.Conv2d(coarsest, channels, 1)
        self.encoder = Encoder(
            channels,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.encoder_out_proj = output_conv(channels, channels, norm_groups)
        self.lateral_convs, self.output_convs = top_down_convs(finer, channels, norm_groups)
        self.mask_feature = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in (self.encoder_in_proj, self.mask_feature):
            caffe2_xavier_init(conv)

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]]) -> PixelFeatures:
        """Decode maps given fine to coarse."""
        *finer, coarsest = features
        x = self.encoder_in_proj(coarsest)
        size = (x.shape[-2], x.shape[-1])
        position = sine_position_encoding(size, x.shape[1], x).flatten(1).T
        memory = self.encoder(flatten_maps([x]), position).transpose(1, 2).unflatten(-1, size)
        maps = top_down(self.lateral_convs, self.output_convs, self.encoder_out_proj(memory), finer)
        return PixelFeatures(self.mask_feature(maps[-1]), tuple(maps[: self.num_levels]), memory=memory)
