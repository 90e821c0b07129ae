"""Losses of the classes of one task (SegViTv2, arXiv 2306.06289).

No code was released; treating pixels of other tasks' classes as background, not as void, is our own definition.
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
    """A criterion on the classes of one task, renumbered 0, 1, …; segments of other classes are background.

    Void and crowds are void.

    Args:
        classes: of the task.
        criterion: config of the criterion that gets these targets.
    """

    _new_labels: Tensor

    def __init__(self, classes: Sequence[int], criterion: ConfigDict | dict) -> None:
        super().__init__()
        self.new_label = {label: number for number, label in enumerate(classes)}
        self.criterion = MODELS.build(criterion)
        numbers = torch.full((max(classes, default=0) + 2,), -1)  # the last entry is for all classes beyond
        numbers[list(classes)] = torch.arange(len(classes))
        self.register_buffer("_new_labels", numbers, persistent=False)

    @property
    def box_losses(self) -> nn.ModuleDict:
        """Those of the criterion."""
        return self.criterion.box_losses

    def forward(
        self, predictions: Sequence[Prediction], targets: TargetBatch | Sequence[MaskTarget]
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of this task."""
        return self.criterion(predictions, self._of_task(stack_targets(targets)))

    def _of_task(self, targets: TargetBatch) -> TargetBatch:
        """The segments of the task's classes, in their order; counts are known on the host if the classes are."""
        of_images = targets.classes_on_host()
        classes = [[self.new_label[c] for c in each if c in self.new_label] for each in of_images]
        counts = [len(each) for each in classes]
        most = max(counts)
        numbers = self._new_labels[targets.labels.clamp(max=len(self._new_labels) - 1)]  # B G
        new_segments = (numbers >= 0).cumsum(1) - 1
        is_kept = (numbers >= 0) & (new_segments < most)
        # Column `most` collects what is left out. Padding comes after an image's own segments, in its columns too.
        columns = new_segments.where(is_kept, most)
        labels = numbers.new_zeros(len(numbers), most + 1).scatter_(1, columns, numbers.clamp(min=0))[:, :most]
        boxes = targets.boxes
        if boxes is not None:
            wide = columns.unsqueeze(-1).expand_as(boxes)
            boxes = boxes.new_zeros(len(boxes), most + 1, 4).scatter_(1, wide, boxes)[:, :most]
        # Ids from VOID = -2 on, so that the index in the table is the id plus 2.
        marks = torch.arange(VOID, BACKGROUND + 1, device=numbers.device).expand(len(numbers), -1)
        table = torch.cat([marks, new_segments.where(is_kept, BACKGROUND)], 1)
        maps = table.gather(1, targets.framed_maps.flatten(1).clamp(min=VOID).long() - VOID).int()
        return TargetBatch(labels, maps.view_as(targets.framed_maps), counts, targets.names, boxes, classes)
