"""A small target and its predictions."""

import torch

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.structures import BACKGROUND, VOID, MaskPrediction, MaskTarget, TargetBatch


def quarters(size: int = 16) -> TargetBatch:
    """One image: segment 0, segment 1, background and void, one per quarter."""
    ids = torch.tensor([[0, 1], [BACKGROUND, VOID]])
    segment_map = ids.repeat_interleave(size // 2, 0).repeat_interleave(size // 2, 1)
    return stack_targets([MaskTarget(torch.tensor([4, 2]), segment_map.unsqueeze(0))])


def prediction_of(logits: torch.Tensor) -> MaskPrediction:
    """A prediction whose mask logits are the given maps Q H W."""
    return MaskPrediction(torch.zeros(1, len(logits), 3), torch.eye(len(logits)).unsqueeze(0), logits.unsqueeze(0))
