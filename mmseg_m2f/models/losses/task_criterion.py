"""Losses of the classes that a task is about (SegViTv2, arXiv 2306.06289).

No code was released; that pixels of other tasks' classes are background, and not void, is our own definition.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.core.targets import stack_targets
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import BACKGROUND, VOID, MaskTarget, Prediction, TargetBatch


@MODELS.register_module()
class TaskCriterion(nn.Module):
    """A criterion that sees the classes of one task, as 0, 1, …; all others are background, void and crowds are void.

    Args:
        classes: of the task.
        criterion: config of the criterion that compares what is left.
    """

    _numbers: Tensor

    def __init__(self, classes: Sequence[int], criterion: ConfigDict | dict) -> None:
        super().__init__()
        self.number_in_task = {label: number for number, label in enumerate(classes)}
        self.criterion = MODELS.build(criterion)
        numbers = torch.full((max(classes, default=0) + 2,), -1)  # the last entry is for all classes beyond
        numbers[list(classes)] = torch.arange(len(classes))
        self.register_buffer("_numbers", numbers, persistent=False)

    @property
    def box_losses(self) -> nn.ModuleDict:
        """The criterion's; the head looks whether there are any."""
        return self.criterion.box_losses

    def forward(
        self, predictions: Sequence[Prediction], targets: TargetBatch | Sequence[MaskTarget]
    ) -> dict[str, Float[Tensor, ""]]:
        """The criterion's losses for this task."""
        return self.criterion(predictions, self._of_task(stack_targets(targets)))

    def _of_task(self, targets: TargetBatch) -> TargetBatch:
        """The segments of the task's classes, in their order; counts are known on the host if the classes are."""
        of_images = targets.classes_on_host()
        classes = [[self.number_in_task[c] for c in each if c in self.number_in_task] for each in of_images]
        counts = [len(each) for each in classes]
        most = max(counts)
        numbers = self._numbers[targets.labels.clamp(max=len(self._numbers) - 1)]  # B G
        new_segments = (numbers >= 0).cumsum(1) - 1
        is_kept = (numbers >= 0) & (new_segments < most)
        # Column `most` collects what is left out. Padding comes after an image's own segments, in its columns too.
        columns = new_segments.where(is_kept, most)
        labels = numbers.new_zeros(len(numbers), most + 1).scatter_(1, columns, numbers.clamp(min=0))[:, :most]
        boxes = targets.boxes
        if boxes is not None:
            wide = columns.unsqueeze(-1).expand_as(boxes)
            boxes = boxes.new_zeros(len(boxes), most + 1, 4).scatter_(1, wide, boxes)[:, :most]
        # Ids from VOID = -2 on, so that a place in the table is an id plus 2.
        marks = torch.arange(VOID, BACKGROUND + 1, device=numbers.device).expand(len(numbers), -1)
        table = torch.cat([marks, new_segments.where(is_kept, BACKGROUND)], 1)
        maps = table.gather(1, targets.framed_maps.flatten(1).clamp(min=VOID).long() - VOID).int()
        return TargetBatch(labels, maps.view_as(targets.framed_maps), counts, targets.names, boxes, classes)
