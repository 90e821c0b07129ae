"""DETR's encoder (arXiv 2005.12872, section 3.2): attention over the coarsest map alone."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.layers.transformer import Encoder
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, PixelFeatures, PixelSpec


@MODELS.register_module()
class DetrPixelDecoder(nn.Module):
    """Projects the coarsest map and encodes it; finer maps are returned unchanged.

    Its `mask_features` are the projection, its `memory` the encoder's output, its `levels` the backbone's finer maps.

    Args:
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        channels: width of the encoder.
        dropout: in attention weights, residual branches and feed-forward networks.
    """

    def __init__(
        self,
        feature_spec: FeatureSpec,
        *,
        channels: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        *finer, coarsest = feature_spec.channels
        self.spec = PixelSpec(channels, tuple(finer[::-1]), memory=channels)
        self.input_proj = nn.Conv2d(coarsest, channels, 1)
        self.encoder = Encoder(
            channels,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )

    def forward(
        self, features: Sequence[Float[Tensor, "B _ _ _"]], valid: Bool[Tensor, "B _ _"] | None = None
    ) -> PixelFeatures:
        """Encode maps given fine to coarse; no cell attends to padding."""
        *finer, coarsest = features
        projected = self.input_proj(coarsest)
        return PixelFeatures(projected, tuple(finer[::-1]), self.encoder(projected, valid), valid)
