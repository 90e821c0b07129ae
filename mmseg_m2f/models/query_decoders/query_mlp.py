"""MLP from queries to mask embeddings or boxes."""

from torch import nn


class QueryMLP(nn.Sequential):
    """Three linear layers with ReLU between."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, out_channels),
        )
