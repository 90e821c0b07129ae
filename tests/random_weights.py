"""Weights with which an error in a comparison shows."""

import torch
from torch import nn


def shake(model: nn.Module) -> None:
    """Make what starts at a special value (statistics, sampling offsets, attention weights) random."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
