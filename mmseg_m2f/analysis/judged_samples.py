"""The test loop of a config with a checkpoint, image by image, for analyses that look at truth and prediction."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import Options
from mmseg_m2f.engine.launch import evaluate
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.runtime import is_exported

Task = Literal["semantic", "instance", "panoptic"]
TASKS: tuple[Task, ...] = get_args(Task)
_TASK_OF_METRIC: dict[str, Task] = dict(
    PanopticQuality="panoptic", MaskAP="instance", ObjectMatching="instance", SemanticIoU="semantic"
)
_FIELD_OF_TASK: dict[Task, str] = dict(semantic="pred_sem_seg", instance="pred_instances", panoptic="pred_panoptic_seg")


class EvaluatedData(NamedTuple):
    """What the images of a test set have in common.

    Attributes:
        classes: names of the K classes.
        is_thing: which are countable objects; all False where the config names no `thing_classes`.
        metrics: of the evaluator, by name.
    """

    classes: Sequence[str]
    is_thing: Bool[np.ndarray, "K"]
    metrics: Mapping[str, float]


def task_of(config: str | os.PathLike[str], options: Options | None = None, *, task: Task | None = None) -> Task:
    """The task that a config is evaluated by: that of its first metric.

    Args:
        task: the one that the user chose, which wins.

    Raises:
        ValueError: none of its metrics is ours.
    """
    if task is not None:
        return task
    evaluator = load_config(config, options).get("test_evaluator") or []
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
        found = _TASK_OF_METRIC.get(str(metric["type"]).rpartition(".")[2])
        if found is not None:
            return found
    raise InvalidValueError(
        f"test_evaluator: expected one of {', '.join(_TASK_OF_METRIC)}, got none. Give --task {'|'.join(TASKS)}."
    )


def visit_test_set(
    config: str | os.PathLike[str],
    checkpoint: str,
    options: Options | None = None,
    *,
    task: Task,
    visit: Callable[[Mapping, EvaluatedData], None],
    work_dir: str | None = None,
) -> EvaluatedData:
    """Run the test loop, with all of its checks, and show each sample with truth and prediction as the metrics see it.

    Args:
        visit: gets the sample, and the test data without metrics.

    Raises:
        FileNotFoundError: config, checkpoint or data are missing.
        ValueError: the checkpoint is of another model, or the model does not predict what the task needs.
    """
    if not is_exported(checkpoint):
        check_checkpoint(checkpoint)
    visitor = _Visitor(task, visit)
    metrics = evaluate(config, checkpoint, options, work_dir=work_dir, hooks=[visitor])
    assert visitor.data is not None
    return visitor.data._replace(metrics=metrics)


class _Visitor(Hook):
    priority = "VERY_LOW"

    def __init__(self, task: Task, visit: Callable[[Mapping, EvaluatedData], None]) -> None:
        self.task, self.visit = task, visit
        self.data: EvaluatedData | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Note what the data set says."""
        self.data = describe_data(runner)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Show the samples of a batch."""
        assert self.data is not None
        for sample in outputs or ():
            field = _FIELD_OF_TASK[self.task]
            if field not in sample:
                given = [task for task, name in _FIELD_OF_TASK.items() if name in sample]
                raise InvalidValueError(
                    f"--task {self.task}: expected '{field}' of the model, got results for {given or 'no task'}. "
                    "Choose one of these, or set model.test_cfg."
                )
            self.visit(sample.to_dict(), self.data)


def describe_data(runner: Runner) -> EvaluatedData:
    """Classes and things of a runner's test set."""
    dataset: Any = runner.test_dataloader.dataset
    classes = list((getattr(dataset, "metainfo", None) or {}).get("classes") or ())
    model = getattr(runner.model, "module", runner.model)
    is_thing = getattr(model, "is_thing", torch.zeros(len(classes), dtype=torch.bool)).cpu().numpy()
    return EvaluatedData(classes, is_thing, {})
