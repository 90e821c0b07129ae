"""Data sets, loaders and evaluators: carried over, but for mmdet's panoptic ones, which ours replace."""

from collections.abc import Mapping

from mmseg_m2f.config.type_lookup import accepted_arguments, find_types
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.migration.reading import Config, MigrationReport

_LOADER = "mmdet.LoadPanopticAnnotations"
_PACKER = "mmdet.PackDetInputs"
_METRICS = {f"coco_panoptic/{name}": name for name in ("PQ", "SQ", "RQ")}
_ALWAYS_LOADED = ("with_bbox", "with_label", "with_mask", "with_seg")
#: Looks at boxes, which ours does not load.
_FILTER = "mmdet.FilterAnnotations"


def migrate_loader(loader: Config, path: str, report: MigrationReport) -> Config:
    """A data loader whose types have their scope, without mmdet's panoptic parts."""
    return {**loader, "dataset": _migrate_dataset(loader.get("dataset"), f"{path}.dataset", report)}


def without_mask_padding(preprocessor: Config, report: MigrationReport) -> Config:
    """A data preprocessor for `SegmentsToObjects`, whose masks are tensors: mmdet pads only masks of its own kind."""
    migrated = {**preprocessor, "pad_mask": False}
    if preprocessor.get("batch_augments"):
        migrated["batch_augments"] = [{**one, "pad_mask": False} for one in preprocessor["batch_augments"]]
    _note(report.changed, "data_preprocessor.pad_mask: False; masks get the batch's size when targets are read")
    return migrated


def migrate_evaluator(evaluator: object, *, thing_classes: object, report: MigrationReport) -> object:
    """An evaluator or a list of them, whose types have their scope, with PQ computed by ours."""
    if isinstance(evaluator, list):
        return [migrate_evaluator(one, thing_classes=thing_classes, report=report) for one in evaluator]
    if not isinstance(evaluator, Mapping) or evaluator.get("type") != "mmdet.CocoPanopticMetric":
        return evaluator
    _note(
        report.changed,
        "mmdet.CocoPanopticMetric → mmseg_m2f.PanopticQuality, without panopticapi: fractions in place of percent, "
        "under the names PQ, SQ, RQ, PQ_things, PQ_stuff …; writes no files for COCO's server",
    )
    kept = {key: evaluator[key] for key in ("collect_device", "prefix") if key in evaluator}
    return dict(type="mmseg_m2f.PanopticQuality", thing_classes=thing_classes, **kept)


def migrate_hooks(hooks: Config, report: MigrationReport) -> Config:
    """`default_hooks` that name the metrics as our evaluators do.

    Raises:
        ValueError: the best checkpoint is chosen by a metric that ours does not give.
    """
    checkpoint = hooks.get("checkpoint")
    best = checkpoint.get("save_best") if isinstance(checkpoint, Mapping) else None
    if not isinstance(best, str) or not best.startswith("coco_panoptic/"):
        return hooks
    if best not in _METRICS:
        raise InvalidValueError(
            f"default_hooks.checkpoint.save_best: expected one of {sorted(_METRICS)}, got {best!r}, which "
            "mmseg_m2f.PanopticQuality does not give under that name. Change it in a copy of the source config."
        )
    _note(report.changed, f"default_hooks.checkpoint.save_best: {best} → {_METRICS[best]}")
    return {**hooks, "checkpoint": {**hooks["checkpoint"], "save_best": _METRICS[best], "rule": "greater"}}


def _migrate_dataset(dataset: object, path: str, report: MigrationReport) -> object:
    """A data set, and those it wraps."""
    if isinstance(dataset, (list, tuple)):
        return type(dataset)(_migrate_dataset(one, f"{path}[{index}]", report) for index, one in enumerate(dataset))
    if not isinstance(dataset, Mapping):
        return dataset
    migrated = dict(dataset)
    for key in ("dataset", "datasets"):
        if key in dataset:
            migrated[key] = _migrate_dataset(dataset[key], f"{path}.{key}", report)
    if isinstance(dataset.get("pipeline"), (list, tuple)):
        migrated["pipeline"] = _migrate_pipeline(list(dataset["pipeline"]), f"{path}.pipeline", report)
    if dataset.get("type") == "mmdet.CocoDataset":
        return _without_unread_labels(migrated, path, report)
    if dataset.get("type") != "mmdet.CocoPanopticDataset":
        return migrated
    _note(
        report.changed,
        "mmdet.CocoPanopticDataset → mmseg_m2f.CocoPanoptic, without panopticapi: classes are things, then stuff, in "
        "the order of the annotation file; images with stuff alone are trained on as well",
    )
    for old, new in (("img", "img_path"), ("seg", "seg_map_path")):
        prefix = migrated["data_prefix"] = dict(migrated.get("data_prefix") or {})
        if old in prefix:
            prefix[new] = prefix.pop(old)
    kept = dict(migrated.pop("filter_cfg", None) or {})
    for old, new in (("filter_empty_gt", "drop_empty"), ("min_size", "min_size")):
        if old in kept:
            migrated[new] = kept.pop(old)
    return _accepted("mmseg_m2f.CocoPanoptic", {**migrated, **kept}, path, report)


def _migrate_pipeline(pipeline: list, path: str, report: MigrationReport) -> list:
    """A pipeline whose types have their scope, without mmdet's panoptic loading."""
    names = [step.get("type") if isinstance(step, Mapping) else None for step in pipeline]
    if _LOADER not in names:
        return pipeline
    if _FILTER in names:
        raise InvalidValueError(
            f"{path}: {_FILTER} needs the boxes of {_LOADER}, but mmseg_m2f.LoadPanoptic gives one map of segments. "
            "Remove it: SegmentsToObjects lists only what is still visible."
        )
    if _PACKER not in names:
        raise InvalidValueError(f"{path}: {_LOADER} without {_PACKER} behind it; expected both in one pipeline.")
    migrated: list = []
    for index, (name, step) in enumerate(zip(names, pipeline, strict=True)):
        if name == _LOADER:
            rest = {key: value for key, value in step.items() if key not in _ALWAYS_LOADED or not value}
            migrated.append(_accepted("mmseg_m2f.LoadPanoptic", rest, f"{path}[{index}]", report))
        elif name == _PACKER:
            migrated += [dict(type="mmseg_m2f.SegmentsToObjects"), step]
        else:
            migrated.append(step)
    _note(
        report.changed,
        f"{_LOADER} → mmseg_m2f.LoadPanoptic and SegmentsToObjects, without panopticapi: segments that a crop empties "
        "are dropped, and no crop is drawn anew for want of objects",
    )
    return migrated


def _without_unread_labels(dataset: Config, path: str, report: MigrationReport) -> Config:
    """The data set without the folder of label maps that upstream's instance configs name and nothing loads."""
    prefix, pipeline = dataset.get("data_prefix"), dataset.get("pipeline") or []
    if not isinstance(prefix, Mapping) or "seg" not in prefix or any(step.get("with_seg") for step in pipeline):
        return dataset
    report.left_out.append(f"{path}.data_prefix.seg: nothing loads label maps, and the folder need not exist")
    return {**dataset, "data_prefix": {key: value for key, value in prefix.items() if key != "seg"}}


def _accepted(name: str, node: Mapping, path: str, report: MigrationReport) -> Config:
    """The node with another type, and of its arguments those which that takes."""
    names = set().union(*(accepted_arguments(target) or set() for target in find_types(name, scope="mmseg_m2f")))
    for key in node:
        if key != "type" and key not in names and node[key] is not None:
            _note(report.left_out, f"{path}.{key}: {name} has no such argument")
    return {"type": name, **{key: value for key, value in node.items() if key in names}}


def _note(entries: list[str], entry: str) -> None:
    if entry not in entries:
        entries.append(entry)
