"""A look at labels before a run: labels that teach nothing, or that a metric cannot get wrong, are named with files."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch import nn

from mmseg_m2f.engine.class_agreement import leaf_datasets
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import IGNORE_INDEX

_LOOKED_AT = 16  # samples of a dataset, spread evenly over it
_SEMANTIC_METRICS = ("SemanticIoU", "IoUMetric")


class LabelFile(NamedTuple):
    """The values of a label map as the loading transforms give it, and how many pixels have each."""

    path: str
    values: NDArray
    counts: NDArray


def survey_labels(runner: Runner, model: nn.Module, *, loop: str) -> None:
    """Look at a few labels of a dataset and say what would make the run meaningless.

    Warns of: one semantic class; labels that are void everywhere; masks of 0 and 255, whose 255 means void; samples
    without a single object or segment.

    Raises:
        ValueError: A label has a value that is neither a class nor void.
    """
    dataset = getattr(runner, f"{loop}_dataloader").dataset
    classes: Sequence[str] = (getattr(dataset, "metainfo", None) or {}).get("classes") or ()
    source = f"{loop}_dataloader.dataset"
    metrics = [] if loop == "train" else getattr(runner, f"{loop}_evaluator").metrics
    if len(classes) == 1 and _is_semantic(model, metrics):
        warnings.warn(
            f"{source} has one class, {classes[0]!r}: every pixel gets the best of one class, so that each result is "
            "right and mIoU is 1 from the start. Expected at least two classes in semantic segmentation. Label the "
            "background, give it a class of its own (metainfo.classes=['background', ...], num_classes=2), or train "
            "a model of objects.",
            stacklevel=2,
        )
    void = ignore_index_of(model)
    for leaf in leaf_datasets(dataset):
        if hasattr(leaf, "get_data_info") and len(leaf):  # type: ignore[arg-type]
            files = list(_read_labels(leaf))
            if files:
                _check_values(files, classes, source=source, void=void)
            if files and loop == "train":
                _warn_about_void(files, classes, source=source, void=void, total=len(leaf))  # type: ignore[arg-type]
            elif loop == "train":
                _warn_about_empty(leaf, source=source)


def check_ignore_index(runner: Runner, model: nn.Module) -> None:
    """Raise ValueError where padding or the metric knows another void label than the model.

    Raises:
        ValueError: `seg_pad_val` is neither a class nor `ignore_index`, or a metric evaluates what the model ignores.
    """
    void, head = ignore_index_of(model), getattr(model, "decode_head", None)
    padding = getattr(getattr(model, "data_preprocessor", None), "seg_pad_val", void)
    num_classes = getattr(head, "num_classes", 0)
    where = "model.ignore_index" if hasattr(model, "ignore_index") else "model.decode_head.ignore_index"
    if padding != void and not 0 <= padding < num_classes:
        raise InvalidValueError(
            f"{where} is {void}, but model.data_preprocessor.seg_pad_val is {padding}; expected padded labels "
            f"to be void as well. Set model.data_preprocessor.seg_pad_val={void}, or keep {IGNORE_INDEX} for void "
            f"everywhere and turn label {void} into it: mmseg_m2f.IgnoreLabels(labels=[{void}]) after loading, or "
            "reduce_zero_label."
        )
    metrics = runner.val_evaluator.metrics if runner.val_loop is not None else []
    for metric in metrics:
        evaluated = getattr(metric, "ignore_index", void)
        if evaluated != void and type(metric).__name__ in _SEMANTIC_METRICS and 0 <= void < num_classes:
            raise InvalidValueError(
                f"{where} is {void}, but {type(metric).__name__} of val_evaluator ignores {evaluated}; expected the "
                f"same, else the metric counts label {void}, which the model never learns, as missed. Set "
                f"val_evaluator.ignore_index={void}."
            )


def ignore_index_of(model: nn.Module) -> int:
    """The label that the model leaves out."""
    for part in (model, getattr(model, "decode_head", None)):
        value = getattr(part, "ignore_index", None)
        if isinstance(value, int):
            return value
    return IGNORE_INDEX


def _is_semantic(model: nn.Module, metrics: Sequence[object]) -> bool:
    """Whether each pixel gets the best class: not so with one score for two classes (mmseg's `out_channels=1`)."""
    head = getattr(model, "decode_head", None)
    if getattr(head, "out_channels", None) == 1 and getattr(head, "threshold", None) is not None:
        return False
    if not hasattr(model, "is_thing"):
        return head is not None
    return any(type(metric).__name__ in _SEMANTIC_METRICS for metric in metrics)


def _spread(length: int) -> Iterator[int]:
    number = min(length, _LOOKED_AT)
    yield from (index * length // number for index in range(number))


def _read_labels(dataset: object) -> Iterator[LabelFile]:
    """Label maps of classes, read by the loading transforms alone: what comes after them may crop or draw."""
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    for index in _spread(len(dataset)):  # type: ignore[arg-type]
        info = dataset.get_data_info(index)  # type: ignore[attr-defined]
        if "img" in info or "seg_map_path" not in info or "segments_info" in info or "instances" in info:
            return
        results: Mapping | None = info
        for transform in transforms:
            results = transform(results)
            if results is None or "gt_seg_map" in results:
                break
        if results is not None and "gt_seg_map" in results:
            values, counts = np.unique(np.asarray(results["gt_seg_map"]), return_counts=True)
            yield LabelFile(str(info["seg_map_path"]), values, counts)


def _check_values(files: Sequence[LabelFile], classes: Sequence[str], *, source: str, void: int) -> None:
    outside = [
        f for f in files if classes and (((f.values < 0) | (f.values >= len(classes))) & (f.values != void)).any()
    ]
    if not outside:
        return
    file = outside[0]
    is_wrong = ((file.values < 0) | (file.values >= len(classes))) & (file.values != void)
    shown = ", ".join(
        f"{v} ({n} pixels)" for v, n in zip(file.values[is_wrong][:6], file.counts[is_wrong], strict=False)
    )
    binary = set(np.unique(np.concatenate([f.values for f in outside])).tolist()) <= {0, 1, 255}
    hint = "Masks of 0 and 255 want the object as 1." if binary else "Numbers from 1 on want reduce_zero_label=True."
    raise InvalidValueError(
        f"{source}: label {file.path} has the values {shown}; expected classes 0...{len(classes) - 1}, or {void} for "
        f"void ({len(outside)} of {len(files)} labels looked at have others). {hint} Write the labels "
        "anew, or list all classes in metainfo.classes."
    )


def _warn_about_void(files: Sequence[LabelFile], classes: Sequence[str], *, source: str, void: int, total: int) -> None:
    looked_at = f"all {total}" if len(files) == total else f"{len(files)} of {total}"
    pixels = sum(int(f.counts.sum()) for f in files)
    known = sum(int(f.counts[f.values != void].sum()) for f in files)
    shown = ", ".join(f.path for f in files[:3])
    present = set(np.unique(np.concatenate([f.values for f in files])).tolist())
    if not known:
        warnings.warn(
            f"{source}: {looked_at} labels looked at are void everywhere ({pixels:,} pixels of {void}: {shown}); "
            "expected class indices from 0. Nothing can be learnt from them. Check the label files, reduce_zero_label "
            "and the label map.",
            stacklevel=3,
        )
    elif present == {0, IGNORE_INDEX} and len(classes) > 1 and void == IGNORE_INDEX:
        void_pixels = pixels - known
        warnings.warn(
            f"{source}: {looked_at} labels looked at hold 0 ({known:,} pixels) and 255 ({void_pixels:,} pixels) alone "
            f"({shown}). 255 is void, so that class 1, {classes[1]!r}, never occurs. If 255 means {classes[1]!r}, save "
            "it as 1.",
            stacklevel=3,
        )


def _warn_about_empty(dataset: object, *, source: str) -> None:
    """Annotations in lists: objects of COCO's format (`instances`), or segments (`segments_info`)."""
    total = len(dataset)  # type: ignore[arg-type]
    infos = [dataset.get_data_info(index) for index in _spread(total)]  # type: ignore[attr-defined]
    if not all("instances" in info or "segments_info" in info for info in infos):
        return
    objects = sum(not instance.get("ignore_flag") for info in infos for instance in info.get("instances", ()))
    segments = sum(
        label != IGNORE_INDEX and not crowd for info in infos for _, label, _, crowd in info.get("segments_info", ())
    )
    if not objects + segments:
        shown = ", ".join(str(info.get("img_path")) for info in infos[:3])
        warnings.warn(
            f"{source}: none of {len(infos)} samples looked at ({total} in all) has an object or segment of a class "
            f"({shown}); expected some. Nothing can be learnt from them. Check ann_file and metainfo.classes.",
            stacklevel=3,
        )
