"""The head that turns queries into mask embeddings."""

from torch import nn


class MaskMLP(nn.Sequential):
    """Mask embeddings of queries: three linear layers with ReLU between."""

    def __init__(self, channels: int, mask_channels: int) -> None:
        super().__init__(
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, mask_channels),
        )
