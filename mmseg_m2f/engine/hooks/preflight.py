"""Checks when the first batch is near: the model's classes against the dataset's, and the label files."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import cast

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.utils.hooks import RemovableHandle

from mmseg_m2f.checkpoints.loading import check_finite, load_weights
from mmseg_m2f.datasets.unlisted_images import report_unlisted_images
from mmseg_m2f.engine.batches import check_equal_sizes, guard_batch_norms
from mmseg_m2f.engine.best_checkpoint import SkipAbsentBest, check_save_best
from mmseg_m2f.engine.class_agreement import (
    NamedClasses,
    align_dataset,
    check_category_order,
    check_initial_classes,
    check_same_classes,
    checkpoint_classes,
    dataset_classes,
    leaf_datasets,
)
from mmseg_m2f.engine.class_weights import settle_class_weights
from mmseg_m2f.engine.label_survey import check_ignore_index, survey_labels
from mmseg_m2f.engine.learning_rate import ConfiguredSchedule, check_trained_parameters
from mmseg_m2f.engine.ranks import on_first_rank
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import is_remote
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class Preflight(Hook):
    """Refuses to start where training or evaluation would be meaningless or fail later.

    Before training, validation and testing: the dataset is not empty, every image has its label file, the head predicts
    as many classes as the dataset names and losses weigh as many, labels hold classes or void, a batch can be formed of
    its images. Validation and test data number their classes as the training data, or the checkpoint, does: they are
    read in that order, or refused. When a checkpoint is loaded to be tested or resumed: it fills the whole model, and
    names the same classes. A resumed run follows the schedule of its config. `save_best` names a figure that the
    validation gives.

    Raises:
        ValueError: One of these does not hold.
        FileNotFoundError: Label files are missing.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._checked: set[str] = set()
        self._checkpoint_classes: NamedClasses | None = None
        self._schedule: ConfiguredSchedule | None = None
        self._watches: list[RemovableHandle] = []

    def expect_classes(self, classes: NamedClasses) -> None:
        """Read the test set in this order: that of an exported file, which no checkpoint hook sees."""
        self._checkpoint_classes = classes

    def before_train(self, runner: Runner) -> None:
        """Checks the training set, and the validation set if there is one: before iteration 0, not after it."""
        model, classes = unwrap_model(runner.model), dataset_classes(runner.train_dataloader.dataset, loop="train")
        if self._schedule is None:
            check_initial_classes(classes, self._checkpoint_classes)
        else:
            remedy = "Give train_dataloader.dataset.metainfo.classes the checkpoint's order."
            check_same_classes(classes, self._checkpoint_classes, remedy=remedy)
            self._schedule.restore(runner)
        if runner.val_loop is not None:
            align_dataset(runner, "val", classes)
        self._check_once(runner, "train")
        if runner.val_loop is not None:
            self._check_once(runner, "val")
            check_save_best(runner)
            runner.register_hook(SkipAbsentBest())
        check_ignore_index(runner, model)
        if classes is not None:
            settle_class_weights(model, classes.names)
        self._watches = guard_batch_norms(model, runner.train_dataloader)
        print_log("A few samples were looked at; `python tools/doctor.py CONFIG` looks at all.", logger="current")

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Ends the watch over batch norms: what the first batch bears, the others do."""
        while self._watches:
            self._watches.pop().remove()

    def before_val(self, runner: Runner) -> None:
        """Checks the validation set."""
        self._check_once(runner, "val")

    def before_test(self, runner: Runner) -> None:
        """Checks the test set, and reads it in the order of the checkpoint's classes."""
        align_dataset(runner, "test", self._checkpoint_classes)
        self._check_once(runner, "test")

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, object]) -> None:
        """Refuses weights that leave a part of the model random, except where training only starts from them.

        mmengine itself loads what fits and logs the rest.
        """
        trains = isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        model = unwrap_model(runner.model)
        if not getattr(getattr(model, "decode_head", None), "replace_classifier", False) or not trains:
            self._checkpoint_classes = checkpoint_classes(checkpoint, source=runner.cfg.get("load_from"))
        weights = cast(Mapping[str, torch.Tensor], checkpoint.get("state_dict", checkpoint))
        if trains and not runner.cfg.get("resume"):
            check_finite(model, weights, source=str(runner.cfg.get("load_from")))
            return
        if trains:
            check_trained_parameters(runner, checkpoint)
            self._schedule = ConfiguredSchedule(runner, checkpoint)
        load_weights(model, weights, source=str(runner.cfg.get("load_from")))

    def _check_once(self, runner: Runner, loop: str) -> None:
        if loop in self._checked:
            return
        self._checked.add(loop)
        dataset = getattr(runner, f"{loop}_dataloader").dataset
        model = unwrap_model(runner.model)
        check_classes(model, dataset, loop=loop)
        check_category_order(dataset, loop=loop)
        on_first_rank(lambda: _check_files(runner, model, loop=loop))


def _check_files(runner: Runner, model: torch.nn.Module, *, loop: str) -> None:
    """Look at the files of a dataset."""
    dataset = getattr(runner, f"{loop}_dataloader").dataset
    missing = find_missing_labels(dataset, loop=loop)
    if missing is not None:
        raise MissingFileError(missing)
    report_unlisted_images(dataset, loop=loop)
    survey_labels(runner, model, loop=loop)
    if loop != "train":
        check_equal_sizes(runner, model, loop=loop)


def unwrap_model(model: torch.nn.Module) -> torch.nn.Module:
    """The model below the distributed wrapper and the test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule("module")
    return model


def check_classes(model: torch.nn.Module, dataset: object, *, loop: str) -> None:
    """Raise ValueError unless the dataset has samples, as many classes as each decode head, and the model's things."""
    source = f"{loop}_dataloader.dataset"
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise InvalidValueError(
            f"{source} ({type(dataset).__name__}) has no samples; expected at least one. Check data_root, "
            "data_prefix and img_suffix against the file names."
        )
    metainfo = getattr(dataset, "metainfo", None) or {}
    classes = metainfo.get("classes")
    head = getattr(model, "decode_head", None)
    if classes is None or head is None:
        return
    for part in head if isinstance(head, torch.nn.ModuleList) else [head]:
        num_classes = getattr(part, "num_classes", len(classes))
        if num_classes != len(classes):
            raise InvalidValueError(
                f"model.decode_head.num_classes is {num_classes}, but {source} ({type(dataset).__name__}) has "
                f"{len(classes)} classes ({', '.join(map(str, classes[:4]))}, ...). Set "
                f"model.decode_head.num_classes={len(classes)}, or {source}.metainfo=dict(classes=[...]) to the "
                f"{num_classes} classes the head predicts."
            )
    is_thing, things = getattr(model, "is_thing", None), metainfo.get("thing_ids")
    if is_thing is not None and things is not None and sorted(things) != is_thing.nonzero().squeeze(1).tolist():
        raise InvalidValueError(
            f"model.thing_classes are {is_thing.nonzero().squeeze(1).tolist()}, but the things of {source} "
            f"({type(dataset).__name__}) are {sorted(things)}. Set model.thing_classes to these."
        )


def find_missing_labels(dataset: object, *, loop: str) -> str | None:
    """What is wrong with the dataset's image and label files, or None; datasets drawn in memory have none."""
    missing = [path for leaf in leaf_datasets(dataset) for path in _missing_files(leaf)]
    if not missing:
        return None
    shown = "\n  ".join(f"{label} (for image {image})" for image, label in missing[:3])
    return (
        f"{loop}_dataloader.dataset: {len(missing)} images have no label file. Expected, but missing:\n  {shown}\n"
        "Check data_prefix.seg_map_path, img_suffix and seg_map_suffix, or remove the images."
    )


def _missing_files(dataset: object) -> Iterator[tuple[str, str]]:
    """Image and label path of each sample whose label should be a local file and is not."""
    if not hasattr(dataset, "get_data_info"):
        return
    length = len(dataset)  # type: ignore[arg-type]
    infos = (dataset.get_data_info(index) for index in range(length))
    for info in islice(infos, 1):  # one look tells whether the dataset reads files
        if "img" in info or "seg_map_path" not in info:
            return
    for index in range(length):
        info = dataset.get_data_info(index)
        label = info.get("seg_map_path")
        if label is not None and not is_remote(label) and not os.path.isfile(label):
            yield str(info.get("img_path")), str(label)
