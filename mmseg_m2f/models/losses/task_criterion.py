"""Losses of the classes of one task (SegViTv2, arXiv 2306.06289).

No code was released; treating pixels of other tasks' classes as background, not as void, is our own definition.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import BACKGROUND, VOID, MaskTarget, Prediction


@MODELS.register_module()
class TaskCriterion(nn.Module):
    """A criterion on the classes of one task, renumbered 0, 1, …; segments of other classes are background.

    Void and crowds are void.

    Args:
        classes: of the task.
        criterion: config of the criterion that gets these targets.
    """

    def __init__(self, classes: Sequence[int], criterion: ConfigDict | dict) -> None:
        super().__init__()
        self.new_label = {label: index for index, label in enumerate(classes)}
        self.criterion = MODELS.build(criterion)

    @property
    def box_losses(self) -> nn.ModuleDict:
        """Those of the criterion."""
        return self.criterion.box_losses

    def forward(self, predictions: Sequence[Prediction], targets: Sequence[MaskTarget]) -> dict[str, Tensor]:
        """Losses of this task."""
        return self.criterion(predictions, [self._of_task(target) for target in targets])

    def _of_task(self, target: MaskTarget) -> MaskTarget:
        labels = target.labels.tolist()  # waits for the device
        kept = [segment for segment, label in enumerate(labels) if label in self.new_label]
        new_segment = torch.full((len(labels) + 2,), BACKGROUND)
        new_segment[kept] = torch.arange(len(kept))
        new_segment[VOID] = VOID  # both marks are negative and index from the end
        return replace(
            target,
            labels=target.labels.new_tensor([self.new_label[labels[segment]] for segment in kept]),
            segment_map=new_segment.to(target.segment_map.device)[target.segment_map.clamp(min=VOID)],
            boxes=None if target.boxes is None else target.boxes[kept],
        )
