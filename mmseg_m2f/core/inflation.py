"""Weights of a first convolution for another number of image channels."""

import torch
from jaxtyping import Float
from torch import Tensor


def inflate(weight: Float[Tensor, "D C H W"], num_channels: int) -> Float[Tensor, "D C1 H W"]:
    """Repeat the input channels of a convolution in turn, divided so that equal channels get the response as before.

    Channel j of the result is channel i = j mod C, divided by how many channels repeat i. With fewer channels than
    before, channel j is the sum of the channels i with i mod `num_channels` = j. Either way the sum over the input
    channels stays. A convolution over patches (ViT, DINO, MAE) is one of these.
    """
    before = weight.shape[1]
    if num_channels < before:
        return torch.stack([weight[:, first::num_channels].sum(1) for first in range(num_channels)], 1)
    source = torch.arange(num_channels, device=weight.device) % before
    copies = torch.bincount(source, minlength=before).to(weight.dtype)
    return (weight / copies[:, None, None])[:, source]
