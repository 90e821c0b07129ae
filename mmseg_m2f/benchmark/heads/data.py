"""The data of a budget in the place of a config's, whichever library its model is of."""

import copy
import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.options import config_nodes
from mmseg_m2f.config.type_lookup import find_types
from mmseg_m2f.datasets.shapes import GeneratedShapes
from mmseg_m2f.errors import InvalidValueError, MissingFileError

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DATASETS = Path(__file__).parents[3] / "configs/_base_/datasets"
_DATA_KEYS = (*LOADERS, "val_evaluator", "test_evaluator", "tta_pipeline")
_MMDET_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction", "instances")
_PACKINGS = ("PackSegInputs", "PackDetInputs")
# What a metric needs of a detector of mmdet; label maps (SemanticIoU) none of them gives.
_NEEDS = {"PanopticQuality": "panoptic", "MaskAP": "masks", "ObjectMatching": "masks", "CocoMetric": "boxes"}


def replace_data(cfg: Config, name: str) -> None:
    """Put the data of an ingredient, a name or a path, in the place of a config's, and fit the model's classes to them.

    Raises:
        FileNotFoundError, ValueError: there is no such ingredient, or the model cannot learn from it.
    """
    data = Config.fromfile(_find_data(name))
    bases = _model_bases(cfg)
    _check_samples(cfg, data, bases, name)
    if "BaseDetector" in bases and not str(cfg.model.type).startswith("mmseg_m2f."):
        _serve_mmdet(cfg, data, name)
    for key in _DATA_KEYS:
        if key in data:
            cfg[key] = data[key]
    cfg.data_root = data.get("data_root")
    cfg.model.data_preprocessor = data.data_preprocessor
    _set_classes(cfg.model, num_classes=data.num_classes, thing_classes=_thing_classes(data))


def _set_classes(model: ConfigDict, *, num_classes: int, thing_classes: Sequence[int]) -> None:
    apart = _counts_things(model)
    if "thing_classes" in model:
        model.thing_classes = list(thing_classes)
    for node in config_nodes(model):
        if "num_things_classes" in node:
            node["num_things_classes"] = len(thing_classes)
            node["num_stuff_classes"] = num_classes - len(thing_classes)
        if "num_classes" in node:  # beside a head for stuff, the others find things
            node["num_classes"] = len(thing_classes) if apart else num_classes
        weights = node.get("class_weight")
        if isinstance(weights, list) and weights:
            node["class_weight"] = [weights[0]] * num_classes + [weights[-1]]  # the last one: no object


def _counts_things(model: Mapping) -> bool:
    """Whether things and stuff have numbers of their own, as in mmdet's panoptic models: things come first there."""
    return any("num_things_classes" in node for node in config_nodes(model))


def _thing_classes(data: Config) -> list[int]:
    return list(data.get("thing_classes") or range(data.num_classes))


def _model_bases(cfg: Config) -> set[str]:
    """Names of the classes that the model's type is made of; none for an unknown one, which `check_config` names."""
    kind = cfg.model.get("type")
    found = find_types(kind, scope=cfg.get("default_scope") or "mmengine") if isinstance(kind, str) else [kind]
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
                f"--data {name}: the model {cfg.model.type} learns from {takes}; expected data whose training pipeline "
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
    if _counts_things(cfg.model) and things != list(range(len(things))):
        order = [*things, *(number for number in range(data.num_classes) if number not in things)]
    for key in LOADERS:
        data[key] = copy.deepcopy(data[key])  # validation and test may share theirs
        for node in list(config_nodes(data[key])):
            if "pipeline" in node:
                node["pipeline"] = _mmdet_pipeline(node["pipeline"], order)
                if order is not None:
                    node["metainfo"] = _reordered_metainfo(node, order, len(things), name)
    for key in ("val_evaluator", "test_evaluator"):
        data[key] = _answered_metrics(cfg.get(key), data[key], name)
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
            f"--data {name}: the model numbers things before stuff (num_things_classes), as mmdet's do; expected data "
            f"with thing_classes 0…{num_things - 1}, got {sorted(order[:num_things])}. Choose data like "
            "shapes_panoptic or coco_panoptic_640, or a MaskDetector, which takes any order."
        )
    before = GeneratedShapes.METAINFO | dict(dataset.get("metainfo") or {})
    after = {key: [before[key][number] for number in order] for key in ("classes", "palette")}  # type: ignore[index]
    return after | dict(thing_ids=list(range(num_things)), stuff_ids=list(range(num_things, len(order))))


def _answered_metrics(own: object, metrics: object, name: str) -> list[dict[str, object]]:
    """Those of the data's metrics whose question the model answers, which its own metrics tell; else box AP."""
    answers = set()
    for node in config_nodes(own):
        metric = node.get("metric") or ()
        segments = "segm" in ((metric,) if isinstance(metric, str) else metric) or is_a(node, "CityScapesMetric")
        answers |= {"panoptic"} if "Panoptic" in str(node.get("type")) else {"boxes", *(("masks",) if segments else ())}
    listed = [metrics] if isinstance(metrics, Mapping) else list(metrics)  # type: ignore[call-overload]
    kept = [dict(metric) for metric in listed if _NEEDS.get(str(metric["type"]).rpartition(".")[2]) in answers]
    if not kept and "boxes" in answers:
        kept = [dict(type="mmdet.CocoMetric", metric=["bbox"])]
    if not kept:
        types = ", ".join(str(metric["type"]) for metric in listed)
        raise InvalidValueError(
            f"--data {name}: expected a metric of what the model answers by its own evaluators "
            f"({', '.join(sorted(answers)) or 'nothing'}), got {types}. Choose data whose metrics fit: shapes_panoptic "
            "for a panoptic model."
        )
    return kept


def _find_data(name: str) -> Path:
    path = Path(name) if name.endswith(".py") else _DATASETS / f"{name}.py"
    if path.is_file():
        return path
    known = [file.stem for file in sorted(_DATASETS.glob("*.py"))]
    near = difflib.get_close_matches(Path(name).stem, known, n=3, cutoff=0.4) or known
    raise MissingFileError(
        f"--data {name}: expected the name of a file in {_DATASETS}, or a path, got none at {path}. "
        f"Nearest: {', '.join(near)}."
    )


def is_a(node: Mapping[str, object], name: str) -> bool:
    """Whether a part is of this class, in any scope."""
    return str(node.get("type")).rpartition(".")[2] == name
