"""A loss with a fault, by its name in configs of tests."""

import math

import torch
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class SpoiltLoss(nn.Module):
    """A fault in a part of the model: the loss itself is NaN, or its gradient alone."""

    loss_name = "loss_spoilt"

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, scores: torch.Tensor, labels: torch.Tensor, **options: object) -> torch.Tensor:
        if self.place == "loss":
            return scores.mean() * math.nan
        return (scores - scores.detach()).abs().sqrt().mean()
