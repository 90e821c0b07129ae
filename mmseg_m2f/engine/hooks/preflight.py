"""Checks when the first batch is near: the model's classes against the dataset's, and the label files."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import cast

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from mmseg_m2f.checkpoints.loading import load_weights
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import is_remote
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class Preflight(Hook):
    """Refuses to start where training or evaluation would be meaningless or fail later.

    Before training, validation and testing: the dataset is not empty, every image has its label file, and the
    head predicts as many classes as the dataset names. When a checkpoint is loaded to be tested or resumed: it
    fills the whole model.

    Raises:
        ValueError: Class counts differ, the dataset is empty, or the checkpoint is another model's.
        FileNotFoundError: Label files are missing.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._checked: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Checks the training set, and the validation set if there is one: before iteration 0, not after it."""
        self._check_once(runner, "train")
        if runner.val_loop is not None:
            self._check_once(runner, "val")

    def before_val(self, runner: Runner) -> None:
        """Checks the validation set."""
        self._check_once(runner, "val")

    def before_test(self, runner: Runner) -> None:
        """Checks the test set."""
        self._check_once(runner, "test")

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, object]) -> None:
        """Refuses weights that leave a part of the model random, except where training only starts from them.

        mmengine itself loads what fits and logs the rest.
        """
        starts_training = isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        if starts_training and not runner.cfg.get("resume"):
            return
        weights = cast(Mapping[str, torch.Tensor], checkpoint.get("state_dict", checkpoint))
        load_weights(unwrap_model(runner.model), weights, source=str(runner.cfg.get("load_from")))

    def _check_once(self, runner: Runner, loop: str) -> None:
        if loop in self._checked:
            return
        self._checked.add(loop)
        dataset = getattr(runner, f"{loop}_dataloader").dataset
        check_classes(unwrap_model(runner.model), dataset, loop=loop)
        # One rank looks at the files and all raise together: no rank waits for another.
        faults: list[str | None] = [find_missing_labels(dataset, loop=loop) if is_main_process() else None]
        broadcast_object_list(faults)
        if faults[0] is not None:
            raise MissingFileError(faults[0])


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
    missing = [path for leaf in _leaves(dataset) for path in _missing_files(leaf)]
    if not missing:
        return None
    shown = "\n  ".join(f"{label} (for image {image})" for image, label in missing[:3])
    return (
        f"{loop}_dataloader.dataset: {len(missing)} images have no label file. Expected, but missing:\n  {shown}\n"
        "Check data_prefix.seg_map_path, img_suffix and seg_map_suffix, or remove the images."
    )


def _leaves(dataset: object) -> Iterator[object]:
    if inner := getattr(dataset, "datasets", None):
        for part in inner:
            yield from _leaves(part)
    elif (part := getattr(dataset, "dataset", None)) is not None:
        yield from _leaves(part)
    elif hasattr(dataset, "get_data_info"):
        yield dataset


def _missing_files(dataset: object) -> Iterator[tuple[str, str]]:
    """Image and label path of each sample whose label should be a local file and is not."""
    length = len(dataset)  # type: ignore[arg-type]
    infos = (dataset.get_data_info(index) for index in range(length))  # type: ignore[attr-defined]
    for info in islice(infos, 1):  # one look tells whether the dataset reads files
        if "img" in info or "seg_map_path" not in info:
            return
    for index in range(length):
        info = dataset.get_data_info(index)  # type: ignore[attr-defined]
        label = info.get("seg_map_path")
        if label is not None and not is_remote(label) and not os.path.isfile(label):
            yield str(info.get("img_path")), str(label)
