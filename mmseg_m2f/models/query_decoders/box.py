"""DETR's decoder (arXiv 2005.12872, section 3.2): a class and a box per query."""

from mmengine.config import ConfigDict
from torch import nn

from mmseg_m2f.layers.transformer import Decoder
from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import BoxPrediction, PixelFeatures, PixelSpec


@MODELS.register_module()
class BoxDecoder(nn.Module):
    """Queries that attend to the whole memory in every layer; one prediction of classes and boxes per layer.

    Queries start as zeros, only their positions are learnt. Only the last layer has masks.

    Args:
        num_classes: K; one more class output means "no object".
        pixel_spec: channels of the pixel decoder's maps; the head passes it.
        num_queries: Q, the most objects an image can have.
        dropout: in attention weights, residual branches and feed-forward networks.
        mask_head: config of the part that predicts masks from the last layer's queries; boxes alone without it.
    """

    def __init__(
        self,
        num_classes: int,
        pixel_spec: PixelSpec,
        *,
        num_queries: int = 100,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        mask_head: ConfigDict | dict | None = None,
    ) -> None:
        super().__init__()
        channels = pixel_spec.memory
        self.query_embed = nn.Embedding(num_queries, channels)
        self.transformer_decoder = Decoder(
            channels,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        self.box_embed = QueryMLP(channels, 4)
        self.mask_head = None
        if mask_head is not None:
            self.mask_head = MODELS.build(mask_head, default_args=dict(pixel_spec=pixel_spec))

    def forward(
        self, features: PixelFeatures, *, last_only: bool = False, num_layers: int | None = None
    ) -> list[BoxPrediction]:
        """Predictions after every layer, or after the last one only; of the first `num_layers`."""
        position = self.query_embed.weight
        states = self.transformer_decoder(
            position, features.memory, features.valid, last_only=last_only, num_layers=num_layers
        )
        predictions = [BoxPrediction(self.cls_embed(x), self.box_embed(x).sigmoid()) for x in states]
        if self.mask_head is not None:
            predictions[-1] = predictions[-1]._replace(masks=self.mask_head(states[-1], features))
        return predictions
