"""Other data in the place of a config's, whichever library its model is of."""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.class_names import counts_things, set_model_classes
from mmseg_m2f.config.crops import crop_in_use, set_model_crop
from mmseg_m2f.config.ingredients import find_ingredient
from mmseg_m2f.config.nodes import LOADERS, classes_of, config_nodes, hold, is_a, loader_datasets, short_type
from mmseg_m2f.config.type_lookup import find_types
from mmseg_m2f.errors import InvalidValueError

_DATA_KEYS = (*LOADERS, "val_evaluator", "test_evaluator", "tta_pipeline")
_NORMALIZATION = ("mean", "std", "bgr_to_rgb")  # what the backbone's weights expect, whichever data it sees
_MMDET_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction", "instances")
_PACKINGS = ("PackSegInputs", "PackDetInputs")
# The metric by which the best checkpoint is chosen, of the first evaluator that is here.
_BEST = {"PanopticQuality": "PQ", "MaskAP": "AP", "CocoMetric": "coco/bbox_mAP", "SemanticIoU": "mIoU"}
# What a metric needs of a detector of mmdet; label maps (SemanticIoU) none of them gives.
_NEEDS = {"PanopticQuality": "panoptic", "MaskAP": "masks", "ObjectMatching": "masks", "CocoMetric": "boxes"}


def replace_data(cfg: Config, name: str, *, beside: str | Path | None = None) -> None:
    """Put the data of an ingredient, a name or a path, in the place of a config's, and fit the model to them.

    The model's classes and the size that it is built for follow; mean, std and channel order stay its own.

    Args:
        beside: The file next to whose `_base_` folder ingredients are looked for first.

    Raises:
        FileNotFoundError, ValueError: There is no such ingredient, or the model cannot learn from it.
    """
    data = Config.fromfile(find_ingredient("datasets", name, beside=beside, option="data"))
    bases = _model_bases(cfg)
    _check_samples(cfg, data, bases, name)
    if "BaseDetector" in bases and not str(cfg.model.type).startswith("mmseg_m2f."):
        _serve_mmdet(cfg, data, name)
    crop_before, metrics_before = crop_in_use(cfg), _metrics(cfg)
    for key in _DATA_KEYS:
        if key in data:
            cfg[key] = data[key]
    normalization = {key: v for key, v in (cfg.model.get("data_preprocessor") or {}).items() if key in _NORMALIZATION}
    cfg.model.data_preprocessor = ConfigDict(dict(data.data_preprocessor, **normalization))
    set_model_classes(cfg.model, num_classes=data.num_classes, thing_classes=_thing_classes(data))
    if crop := crop_in_use(cfg):
        set_model_crop(cfg, crop_before, crop)
    if _metrics(cfg) != metrics_before:
        _set_best(cfg)
    cfg.data_root = data.get("data_root")
    for key in ("num_classes", "thing_classes", "crop_size"):
        if key in data:
            hold(cfg, key, data[key])


def set_data_root(cfg: Config, data_root: str, *, before: str | None = None) -> None:
    """Set `data_root` wherever the former one stands, alone or at the beginning of a path.

    Args:
        before: The former one; the config's own `data_root`, or that of the first dataset, if not given.

    Raises:
        ValueError: No dataset has a `data_root`.
    """
    nodes = [node for value in cfg.values() for node in config_nodes(value)]
    roots = [dataset["data_root"] for _, dataset in loader_datasets(cfg) if dataset.get("data_root")]
    former = before or cfg.get("data_root") or next(iter(roots), None)
    if former is None or not roots:
        raise InvalidValueError(
            f"data_root={data_root}: no dataset of {cfg.filename} has a data_root; expected one that reads files. "
            "Leave the option out, or choose a config with such a dataset."
        )
    start = re.compile(re.escape(former.rstrip("/")) + "(?=/|$)")
    for node in nodes:
        for key, value in node.items():
            if isinstance(value, str) and (found := start.match(value)):
                node[key] = data_root.rstrip("/") + value[found.end() :]
    hold(cfg, "data_root", data_root)


def set_batch_size(cfg: Config, batch_size: int) -> None:
    """Train on batches of so many images per process.

    Raises:
        ValueError: Fewer than one, or a config without training data or with a batch sampler of its own size.
    """
    loader = cfg.get("train_dataloader")
    if not isinstance(loader, Mapping):
        raise InvalidValueError(f"batch_size={batch_size}: expected a train_dataloader, got none. Leave it out.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidValueError(f"batch_size={batch_size}: expected at least 1 image.")
    loader["batch_size"] = batch_size  # type: ignore[index]
    hold(cfg, "batch_size", batch_size)


def _metrics(cfg: Config) -> list[str]:
    return [short_type(node) for node in config_nodes(cfg.get("val_evaluator")) if "type" in node]


def _set_best(cfg: Config) -> None:
    """Choose the best checkpoint by a metric that the data's evaluators have."""
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if "save_best" in checkpoint:
        checkpoint["save_best"] = next((_BEST[metric] for metric in _metrics(cfg) if metric in _BEST), "auto")


def _thing_classes(data: Config) -> list[int]:
    return list(data.get("thing_classes") or range(data.num_classes))


def _model_bases(cfg: Config) -> set[str]:
    """Names of the classes that the model's type is made of; none for an unknown one, which `check_config` names."""
    found = classes_of(cfg.model, cfg)
    return {base.__name__ for part in found if inspect.isclass(part) for base in inspect.getmro(part)}


def _check_samples(cfg: Config, data: Config, bases: set[str], name: str) -> None:
    """Raise unless the data's samples are of the library that the model's shell is one of."""
    packed = {packing for node in config_nodes(data.train_dataloader) for packing in _PACKINGS if is_a(node, packing)}
    for shell, packing, takes, choice in (
        ("BaseSegmentor", "PackSegInputs", "label maps", "shapes, camvid_96x128 or ade20k_512"),
        ("BaseDetector", "PackDetInputs", "objects", "shapes_panoptic, shapes_instance or coco_panoptic_640"),
    ):
        if shell in bases and packed and packing not in packed:
            raise InvalidValueError(
                f"data={name}: the model {cfg.model.type} learns from {takes}; expected data whose training pipeline "
                f"has {packing}, got {', '.join(sorted(packed))}. Choose data like {choice}, or a config whose model "
                f"fits {name}."
            )


def _serve_mmdet(cfg: Config, data: Config, name: str) -> None:
    """Change the data to what models of mmdet itself need: boxes, masks of its classes, its metadata, its order.

    Raises:
        ValueError: the order of classes or the metrics do not fit the model.
    """
    things = _thing_classes(data)
    order = None
    if counts_things(cfg.model) and things != list(range(len(things))):
        order = [*things, *(number for number in range(data.num_classes) if number not in things)]
    for key in LOADERS:
        data[key] = copy.deepcopy(data[key])  # validation and test may share theirs
        for node in list(config_nodes(data[key])):
            if "pipeline" in node:
                node["pipeline"] = _mmdet_pipeline(node["pipeline"], order)
                if order is not None:
                    node["metainfo"] = _reordered_metainfo(node, order, len(things), name)
    for key in ("val_evaluator", "test_evaluator"):
        data[key] = _fitting_metrics(cfg.get(key), data[key], name)
        for metric in data[key] if order is not None else ():
            if "thing_classes" in metric:
                metric["thing_classes"] = list(range(len(things)))
    data.data_preprocessor = ConfigDict(dict(pad_size_divisor=32) | data.data_preprocessor, pad_mask=True)


def _mmdet_pipeline(pipeline: Sequence[Mapping], order: Sequence[int] | None) -> list[Mapping]:
    own_masks = any(is_a(step, "SegmentsToObjects") for step in pipeline)
    describe = dict(type="mmseg_m2f.DescribeObjects", class_order=order)
    load = [dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)] if own_masks else []
    steps: list[Mapping] = []
    for step in pipeline:
        if is_a(step, "PackDetInputs"):
            steps += [describe, *load, dict(step, meta_keys=_MMDET_META)]
        elif not is_a(step, "CompactSegments"):
            steps.append(step)
    return steps


def _reordered_metainfo(dataset: Mapping, order: Sequence[int], num_things: int, name: str) -> Mapping[str, object]:
    """Names and colours in another order. Data read from files find their classes by names, and keep their order."""
    if not is_a(dataset, "GeneratedShapes"):
        raise InvalidValueError(
            f"data={name}: the model numbers things before stuff (num_things_classes), as mmdet's do; expected data "
            f"with thing_classes 0…{num_things - 1}, got {sorted(order[:num_things])}. Choose data like "
            "shapes_panoptic or coco_panoptic_640, or a MaskDetector, which takes any order."
        )
    (scenes,) = find_types("mmseg_m2f.GeneratedShapes", scope="mmengine")
    before = dict(vars(scenes)["METAINFO"]) | dict(dataset.get("metainfo") or {})
    after = {key: [before[key][number] for number in order] for key in ("classes", "palette")}
    return after | dict(thing_ids=list(range(num_things)), stuff_ids=list(range(num_things, len(order))))


def _fitting_metrics(own: object, metrics: object, name: str) -> list[dict[str, object]]:
    """Those of the data's metrics that measure what the model predicts, as its own metrics tell; else box AP."""
    predicted = set()
    for node in config_nodes(own):
        metric = node.get("metric") or ()
        segments = "segm" in ((metric,) if isinstance(metric, str) else metric) or is_a(node, "CityScapesMetric")
        predicted |= (
            {"panoptic"} if "Panoptic" in str(node.get("type")) else {"boxes", *(("masks",) if segments else ())}
        )
    listed = [metrics] if isinstance(metrics, Mapping) else list(metrics)  # type: ignore[call-overload]
    kept = [dict(metric) for metric in listed if _NEEDS.get(short_type(metric)) in predicted]
    if not kept and "boxes" in predicted:
        kept = [dict(type="mmdet.CocoMetric", metric=["bbox"])]
    if not kept:
        types = ", ".join(str(metric["type"]) for metric in listed)
        raise InvalidValueError(
            f"data={name}: expected a metric of what the model predicts by its own evaluators "
            f"({', '.join(sorted(predicted)) or 'nothing'}), got {types}. Choose data whose metrics fit: "
            "shapes_panoptic for a panoptic model."
        )
    return kept
