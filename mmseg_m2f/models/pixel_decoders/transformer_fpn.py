"""MaskFormer's pixel decoder with a DETR encoder on the coarsest map (arXiv 2107.06278, section 4.1).

Parameter names are mmdet's `TransformerEncoderPixelDecoder`'s; no code is adapted from it.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from mmseg_m2f.layers.transformer import Encoder
from mmseg_m2f.models.pixel_decoders.fpn import output_conv, top_down, top_down_convs
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


@MODELS.register_module()
class TransformerFPNPixelDecoder(nn.Module):
    """An encoder over the coarsest map, then the top-down path of `FPNPixelDecoder`.

    Its memory is the encoder's output.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: C, width of all maps inside and of the mask features.
        num_levels: L, how many of the coarsest maps of the path it returns for the queries.
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

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]], valid: Bool[Tensor, "B _ _"] | None = None
    ) -> PixelFeatures:
        """Decode maps given fine to coarse; the encoder does not attend to padding."""
        *finer, coarsest = features
        memory = self.encoder(self.encoder_in_proj(coarsest), valid)
        maps = top_down(self.lateral_convs, self.output_convs, self.encoder_out_proj(memory), finer)
        return PixelFeatures(self.mask_feature(maps[-1]), tuple(maps[: self.num_levels]), memory, valid)
