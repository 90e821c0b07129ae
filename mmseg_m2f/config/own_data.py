"""Data of one's own in the place of a config's: folders found by convention, classes read from COCO's files.

The recipe stays the config's: pipelines, batch size, metrics. Where a split has other folders, patterns name them.
"""

import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

from mmseg_m2f.config.class_names import set_model_classes
from mmseg_m2f.config.nodes import LOADERS, config_nodes, hold, is_a
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, MissingFileError

Kind = Literal["label maps", "objects", "panoptic segments"]


class _Convention(NamedTuple):
    """Where a kind of data lies below its root: settings that name a place -> where it is looked for, first to last."""

    places: Mapping[str, tuple[str, ...]]
    reads: tuple[str, ...]  # settings besides `root`, `splits` and places


_IMAGES = ("images/{split}",)
_CONVENTIONS: dict[Kind, _Convention] = {
    "label maps": _Convention(
        dict(images=_IMAGES, labels=("labels/{split}", "annotations/{split}")),
        reads=("classes", "palette", "reduce_zero_label", "void_labels"),
    ),
    "objects": _Convention(
        dict(images=_IMAGES, annotations=("instances_{split}.json", "annotations/instances_{split}.json")),
        reads=("classes", "palette"),
    ),
    "panoptic segments": _Convention(
        dict(
            images=_IMAGES,
            annotations=("panoptic_{split}.json", "annotations/panoptic_{split}.json"),
            segments=("panoptic_{split}", "annotations/panoptic_{split}"),
        ),
        reads=("classes", "palette", "things"),
    ),
}


def use_own_data(cfg: Config, settings: Mapping[str, object]) -> None:
    """Put one's own data in the place of a config's, of the same kind, and fit the model's classes to them.

    Label maps: `images/{train,val}` and `labels/{train,val}` (or `annotations/…`), with `classes`. Objects:
    `images/{train,val}` and `instances_{train,val}.json`. Panoptic segments: `images/{train,val}`,
    `panoptic_{train,val}.json` and the PNGs in `panoptic_{train,val}/`. JSON files and their folders may lie in
    `annotations/`.

    Args:
        settings: `root`, the folder. Patterns with `{split}` name other places: `images`, `labels`, `annotations`,
            `segments`. `splits` are the names for training and validation, ("train", "val") if not given. `classes` and
            `palette` name and colour the classes; those of a JSON file are its own, unless given, which restricts and
            orders them. Label maps: `reduce_zero_label` makes label 0 void and class 0 of label 1, `void_labels` are
            values that become void. Panoptic segments: `things` names the countable classes of a file without
            `isthing`.

    Raises:
        TypeError: A setting that the kind of data does not have.
        FileNotFoundError: A folder or file is missing; the message says where it was looked for.
        ValueError: The config's data are none of the three kinds, or the classes are missing or wrong.
    """
    kind = _kind_of(cfg)
    _check_settings(settings, kind)
    root = os.fspath(settings["root"])  # type: ignore[call-overload]
    train_split, val_split = _splits(settings)
    train, val = (_find_places(root, split, kind, settings) for split in (train_split, val_split))
    if kind == "label maps":
        metainfo = _given_classes(settings, root)
        describe = _label_maps
    else:
        describe = _objects if kind == "objects" else _panoptic
        metainfo = _classes_of_file(describe(root, train, settings), settings)
    for loader, places in zip(LOADERS, (train, val, val), strict=True):
        old = cfg[loader].dataset
        new = dict(describe(root, places, settings), metainfo=_without_ids(metainfo), pipeline=old.pipeline)
        cfg[loader] = ConfigDict(
            {**cfg[loader], "dataset": new | (dict(test_mode=True) if loader != LOADERS[0] else {})}
        )
    if kind == "label maps":
        _set_void(cfg, settings.get("void_labels") or ())  # type: ignore[arg-type]
    _fit(cfg, root, metainfo, val.get("annotations"))


def _kind_of(cfg: Config) -> Kind:
    """What the config's training data are annotated with."""
    dataset = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    steps = list(config_nodes(dataset.get("pipeline")))
    if any(is_a(step, "LoadPanoptic") for step in steps):
        return "panoptic segments"
    if any(_loads_labels(step) for step in steps):
        return "label maps" if any(is_a(step, "PackSegInputs") for step in steps) else "objects"
    raise InvalidValueError(
        f"data: expected a config that reads label maps, COCO objects or COCO panoptic segments from files, got "
        f"{dataset.get('type')} in {cfg.filename}. Base yours on one like mask2former_r50_ade20k-512_160k, "
        "mask2former_r50_coco-instance-1024_50e or mask2former_r50_coco-panoptic-1024_50e."
    )


def _check_settings(settings: Mapping[str, object], kind: Kind) -> None:
    convention = _CONVENTIONS[kind]
    known = ("root", "splits", *convention.places, *convention.reads)
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InvalidTypeError(
            f"data: for {kind} expected root and optionally {', '.join(known[1:])}, got {', '.join(settings)}. Remove "
            f"{', '.join(unknown)}."
        )


def _splits(settings: Mapping[str, object]) -> tuple[str, str]:
    splits = settings.get("splits", ("train", "val"))
    if isinstance(splits, str) or not isinstance(splits, Sequence) or len(splits) != 2:
        raise InvalidValueError(
            f"data.splits: expected the names for training and validation, as ('train', 'val'), got {splits!r}."
        )
    return str(splits[0]), str(splits[1])


def _find_places(root: str, split: str, kind: Kind, settings: Mapping[str, object]) -> dict[str, str]:
    """Each place of a split below the root.

    Raises:
        FileNotFoundError: One is missing.
    """
    found = {}
    for name, convention in _CONVENTIONS[kind].places.items():
        patterns = (str(settings[name]),) if name in settings else convention
        candidates = [pattern.format(split=split) for pattern in patterns]
        found[name] = next((place for place in candidates if Path(root, place).exists()), "")
        if not found[name]:
            holds = sorted(os.listdir(root))[:8] if Path(root).is_dir() else None
            has = "does not exist" if holds is None else f"holds {', '.join(holds) or 'nothing'}"
            raise MissingFileError(
                f"data.root {root} (working directory {os.getcwd()}) {has}; for the {name} of split '{split}' expected "
                f"{' or '.join(candidates)}. Put them there, or name the place: data = dict(..., {name}="
                f'"{convention[0]}"), or the splits: splits=("train", "val").'
            )
    return found


def _given_classes(settings: Mapping[str, object], root: str) -> dict[str, object]:
    """Names and colours of label maps, which nothing else knows."""
    classes = settings.get("classes")
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
        raise InvalidValueError(
            f'data.classes: expected the names of the classes of {root}, as classes=("road", "car"), in the order of '
            f"the label values 0, 1 and so on; got {classes!r}."
        )
    palette = settings.get("palette")
    if palette is not None and len(palette) != len(classes):  # type: ignore[arg-type]
        raise InvalidValueError(
            f"data.palette: expected a colour for each of the {len(classes)} classes, got {len(palette)}."  # type: ignore[arg-type]
        )
    return dict(classes=tuple(classes), **({} if palette is None else dict(palette=palette)))


def _classes_of_file(dataset: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """Classes, colours and things as the dataset for training reads them from its file."""
    given = {name: settings[name] for name in ("classes", "palette") if name in settings}
    metainfo = DATASETS.build(dict(dataset, metainfo=given)).metainfo
    return {key: metainfo[key] for key in ("classes", "palette", "thing_ids") if key in metainfo}


def _label_maps(root: str, places: Mapping[str, str], settings: Mapping[str, object]) -> dict[str, object]:
    return dict(
        type="mmseg.BaseSegDataset",
        data_root=root,
        data_prefix=dict(img_path=places["images"], seg_map_path=places["labels"]),
        img_suffix=_suffix(Path(root, places["images"]), "images"),
        seg_map_suffix=_suffix(Path(root, places["labels"]), "labels"),
        reduce_zero_label=bool(settings.get("reduce_zero_label", False)),
    )


def _objects(root: str, places: Mapping[str, str], settings: Mapping[str, object]) -> dict[str, object]:
    return dict(
        type="mmseg_m2f.CocoInstance",
        data_root=root,
        ann_file=places["annotations"],
        data_prefix=dict(img_path=places["images"]),
    )


def _panoptic(root: str, places: Mapping[str, str], settings: Mapping[str, object]) -> dict[str, object]:
    things = dict(thing_classes=settings["things"]) if "things" in settings else {}
    return dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root=root,
        ann_file=places["annotations"],
        data_prefix=dict(img_path=places["images"], seg_map_path=places["segments"]),
        **things,
    )


def _suffix(folder: Path, what: str) -> str:
    """The suffix of the files of a folder and its subfolders."""
    counts = Counter(file.suffix for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    if len(counts) != 1:
        got = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts.most_common()) or "none"
        raise InvalidValueError(
            f"data: expected files with one suffix, the {what}, below {folder}, got {got}. Convert or move the others."
        )
    return next(iter(counts))


def _loads_labels(step: Mapping) -> bool:
    """Whether a step of a pipeline reads label maps or objects."""
    return is_a(step, "LoadAnnotations") or is_a(step, "LoadLabelMap")


def _set_void(cfg: Config, labels: Sequence[int]) -> None:
    """Let these label values be void wherever label maps are loaded, instead of those of the config's former data."""
    own = [dict(type="mmseg_m2f.IgnoreLabels", labels=list(labels))] if labels else []
    for key in (*LOADERS, "tta_pipeline"):
        if key not in cfg:
            continue
        cfg[key] = copy.deepcopy(cfg[key])
        for node in list(config_nodes(cfg[key])):
            steps = node.get("transforms") or ()
            if is_a(node, "CheckedLoading") and any(_loads_labels(step) for step in steps):
                node["transforms"] = [*(step for step in steps if not is_a(step, "IgnoreLabels")), *own]


def _without_ids(metainfo: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in metainfo.items() if key != "thing_ids"}


def _fit(cfg: Config, root: str, metainfo: Mapping, val_annotations: str | None) -> None:
    """The model, the metrics and the variables of a config for other classes."""
    num_classes = len(metainfo["classes"])
    things = list(metainfo.get("thing_ids", range(num_classes)))
    set_model_classes(cfg.model, num_classes=num_classes, thing_classes=things)
    for key in ("val_evaluator", "test_evaluator"):
        for node in config_nodes(cfg.get(key)):
            if "thing_classes" in node:
                node["thing_classes"] = things
            if "ann_file" in node:
                node["ann_file"] = os.path.join(root, val_annotations or "")
    values = dict(
        num_classes=num_classes, thing_classes=things, data_root=root, dataset_metainfo=_without_ids(metainfo)
    )
    for name, value in values.items():
        hold(cfg, name, value)
