"""Learning classes task by task (SegViTv2, arXiv 2306.06289): a decoder per task, on one frozen backbone.

Masks are sigmoids and each task has its own "absent" output, so that tasks do not compete and the scores of earlier
tasks do not change. No code was released: a whole decoder per task, with all other classes as background, is our own
definition.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, MaskPrediction


@MODELS.register_module()
class ContinualDecoder(nn.Module):
    """A decoder for each task, of which the last one is trained.

    The decoders of earlier tasks are frozen and stay in evaluation mode. From the second task on freeze the backbone as
    well (`MaskSegmentor(trainable=["decode_head."])`), and let a `TaskCriterion` make other classes background. A model
    of one task more starts from the checkpoint (`load_from`).

    Args:
        num_classes: K, with the classes of tasks to come.
        feature_spec: what the backbone returns; the head passes it.
        tasks: the classes of each task, in the order they are learnt.
        branch: config of a task's decoder, whose queries predict the task's classes.
    """

    def __init__(
        self,
        num_classes: int,
        feature_spec: FeatureSpec,
        *,
        tasks: Sequence[Sequence[int]],
        branch: ConfigDict | dict,
    ) -> None:
        super().__init__()
        counts = Counter(label for task in tasks for label in task)
        wrong = sorted(label for label, count in counts.items() if count > 1 or not 0 <= label < num_classes)
        if wrong or not all(tasks):
            raise InvalidValueError(
                f"ContinualDecoder: expected tasks of one class or more, each class in [0, {num_classes}) and in one "
                f"task alone, got {tasks}. " + (f"Correct the classes {wrong}." if wrong else "Drop the empty task.")
            )
        self.num_classes, self.tasks = num_classes, [list(task) for task in tasks]
        self.branches = nn.ModuleList(
            MODELS.build(branch, default_args=dict(num_classes=len(task), feature_spec=feature_spec)) for task in tasks
        )
        self.branches[:-1].requires_grad_(False)

    def train(self, mode: bool = True) -> "ContinualDecoder":
        """Training mode for the last task's decoder alone."""
        super().train(mode)
        self.branches[:-1].eval()
        return self

    def forward(self, features: Sequence[Tensor], *, last_only: bool = False) -> list[MaskPrediction]:
        """Predictions of the last task, over its classes; with `last_only`, one prediction over all classes.

        Raises:
            ValueError: the backbone is trained, on which earlier tasks depend.
        """
        if self.training and len(self.tasks) > 1 and any(x.requires_grad for x in features):
            raise InvalidValueError(
                f"ContinualDecoder: {len(self.tasks) - 1} earlier tasks rely on the backbone, but it is being trained. "
                "Set model.trainable=['decode_head.']."
            )
        if not last_only:
            return self.branches[-1](features)
        return [self._join([branch(features, last_only=True)[-1] for branch in self.branches])]

    def _join(self, predictions: Sequence[MaskPrediction]) -> MaskPrediction:
        """All queries in one prediction; class logits of other tasks are -∞ and embeddings for their features 0."""
        class_logits, embeddings = [], []
        widths = [prediction.mask_embeddings.shape[-1] for prediction in predictions]
        for index, (prediction, task) in enumerate(zip(predictions, self.tasks, strict=True)):
            logits = prediction.class_logits
            among_all = logits.new_full((*logits.shape[:2], self.num_classes + 1), -torch.inf)
            among_all[..., [*task, self.num_classes]] = logits
            class_logits.append(among_all)
            embeddings.append(F.pad(prediction.mask_embeddings, (sum(widths[:index]), sum(widths[index + 1 :]))))
        mask_features = torch.cat([prediction.mask_features for prediction in predictions], 1)
        return MaskPrediction(torch.cat(class_logits, 1), torch.cat(embeddings, 1), mask_features)
