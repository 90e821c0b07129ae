"""Changing what a config's classes are: in heads, class weights, things, metrics and datasets."""

import warnings
from collections.abc import Mapping, MutableMapping, Sequence

from mmengine.config import Config

from mmseg_m2f.config.nodes import classes_of, config_nodes, hold, is_a, loader_datasets, short_type
from mmseg_m2f.errors import InvalidValueError


def set_class_names(cfg: Config, names: str | Sequence[str]) -> None:
    """Let the datasets have these classes and the model as many.

    Raises:
        ValueError: The names are no list of different names, a dataset does not have them, or it is not clear which of
            them are things.
    """
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or len(set(names)) < len(names):
        raise InvalidValueError(
            f"classes={names!r}: expected different names, as classes=car,road on the command line or "
            'classes = ("car", "road") in a config.'
        )
    _check_weights(cfg.model, classes_in_use(cfg), len(names))
    for path, dataset in loader_datasets(cfg):
        _name_dataset_classes(cfg, dataset, path, tuple(map(str, names)))
    _set_count(cfg, len(names), option=f"classes={','.join(map(str, names))}")
    hold(cfg, "classes", tuple(names))


def set_num_classes(cfg: Config, num_classes: int) -> None:
    """Let the model have so many classes, and the datasets that do not know their names by themselves.

    A dataset whose config names another number of classes gets "class 0", "class 1" and so on, with a warning; one that
    reads the names from its annotation file reads all of them.

    Raises:
        ValueError: Fewer than one class, or a dataset whose classes are fixed and not so many.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise InvalidValueError(f"num_classes={num_classes}: expected at least 1 class.")
    _check_weights(cfg.model, classes_in_use(cfg), num_classes)
    for path, dataset in loader_datasets(cfg):
        _count_dataset_classes(cfg, dataset, path, num_classes)
    _set_count(cfg, num_classes, option=f"num_classes={num_classes}")


def set_thing_classes(cfg: Config, thing_classes: Sequence[int]) -> None:
    """Let these classes be things, the others stuff, in the model, its metrics, and generated scenes.

    Raises:
        ValueError: They are no numbers of classes.
    """
    num_classes = classes_in_use(cfg)
    things = sorted(thing_classes) if isinstance(thing_classes, Sequence) else [-1]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in things) or (
        things and (things[0] < 0 or (num_classes is not None and things[-1] >= num_classes))
    ):
        raise InvalidValueError(
            f"thing_classes={thing_classes}: expected numbers of classes, 0…{(num_classes or 1) - 1}, as "
            "thing_classes=[3,4]."
        )
    if "thing_classes" in cfg.model:
        cfg.model.thing_classes = list(things)
    for key in ("val_evaluator", "test_evaluator"):
        for node in config_nodes(cfg.get(key)):
            if "thing_classes" in node:
                node["thing_classes"] = list(things)
    for _, dataset in loader_datasets(cfg):
        metainfo = dataset.get("metainfo")
        if is_a(dataset, "GeneratedShapes") and (metainfo or num_classes is not None):
            stuff = [number for number in range(num_classes or 0) if number not in things]
            dataset["metainfo"] = dict(metainfo or {}, thing_ids=list(things), stuff_ids=stuff)
    hold(cfg, "thing_classes", list(things))


def set_model_classes(model: MutableMapping, *, num_classes: int, thing_classes: Sequence[int]) -> None:
    """Give a model its number of classes, of class weights, and of things and stuff, whichever library it is of."""
    apart, before = counts_things(model), count_classes(model)
    if "thing_classes" in model:
        model["thing_classes"] = list(thing_classes)
    for node in config_nodes(model):
        if "num_things_classes" in node:
            node["num_things_classes"] = len(thing_classes)
            node["num_stuff_classes"] = num_classes - len(thing_classes)
        if "num_classes" in node:  # beside a head for stuff, the others find things
            node["num_classes"] = len(thing_classes) if apart else num_classes
        weights = node.get("class_weight")
        if isinstance(weights, list) and weights:
            no_object = [] if len(weights) == before else [weights[-1]]
            node["class_weight"] = [weights[0]] * num_classes + no_object


def counts_things(model: Mapping) -> bool:
    """Whether things and stuff have numbers of their own, as in mmdet's panoptic models: things come first there."""
    return any("num_things_classes" in node for node in config_nodes(model))


def classes_in_use(cfg: Config) -> int | None:
    """The number of classes of the model's head; None where no head says it."""
    return count_classes(cfg.get("model") or {})


def count_classes(model: Mapping) -> int | None:
    """The number of classes that a model's config gives its head; None where no head says it."""
    for node in config_nodes(model):
        if "num_things_classes" in node:
            return int(node["num_things_classes"]) + int(node.get("num_stuff_classes") or 0)
    counts = [node["num_classes"] for node in config_nodes(model.get("decode_head", model)) if "num_classes" in node]
    return counts[0] if counts else None


def _set_count(cfg: Config, num_classes: int, *, option: str) -> None:
    before = classes_in_use(cfg)
    things = cfg.model.get("thing_classes")
    if things is None or (before is not None and list(things) == list(range(before))):
        kept = list(range(num_classes))
    else:
        kept = [number for number in things if number < num_classes]
        if len(kept) < len(things):
            raise InvalidValueError(
                f"{option}: model.thing_classes are {list(things)}, which a model of {num_classes} classes does not "
                "have all. Give thing_classes=[...] as well."
            )
    if counts_things(cfg.model):
        raise InvalidValueError(
            f"{option}: the model numbers things and stuff apart (num_things_classes, num_stuff_classes), which one "
            "number does not say. Set both by their dotted keys."
        )
    set_model_classes(cfg.model, num_classes=num_classes, thing_classes=kept)
    hold(cfg, "num_classes", num_classes)
    if things is not None:
        set_thing_classes(cfg, kept)


def _check_weights(model: Mapping, before: int | None, num_classes: int) -> None:
    """Refuse to make up class weights that differ from class to class."""
    for node in config_nodes(model):
        weights = node.get("class_weight")
        if isinstance(weights, list) and num_classes != before and len(set(weights[:-1])) > 1:
            raise InvalidValueError(
                f"num_classes={num_classes}: expected the same weight for all classes, got class_weight={weights[:4]}… "
                f"of {len(weights)} entries. Set the weights of the {num_classes} classes by their dotted key."
            )


def _name_dataset_classes(cfg: Config, dataset: MutableMapping, path: str, names: tuple[str, ...]) -> None:
    fixed = _fixed_names(cfg, dataset)
    metainfo = dict(dataset.get("metainfo") or {})
    unknown = [name for name in names if name not in fixed] if fixed else []
    if unknown or (_loads_numbers(dataset) and names != tuple(metainfo.get("classes") or fixed)):
        raise InvalidValueError(
            f"classes={','.join(names)}: {path} ({short_type(dataset)}) has classes of its own, "
            f"{', '.join(fixed[:4])}, … ({len(fixed)}){', without ' + ', '.join(unknown[:4]) if unknown else ''}. "
            "Choose among these, or take an ingredient for your own files: data=NAME."
        )
    if list(metainfo.get("classes") or fixed) == list(names):
        return
    known = _known_colours(dataset, cfg, metainfo)
    metainfo["classes"] = names
    if fixed or not all(name in known for name in names):
        metainfo.pop("palette", None)
        if not fixed and _class_palette(cfg, dataset):
            metainfo["palette"] = []  # that of the class has other entries
    else:
        metainfo["palette"] = [known[name] for name in names]
    dataset["metainfo"] = metainfo


def _count_dataset_classes(cfg: Config, dataset: MutableMapping, path: str, num_classes: int) -> None:
    metainfo = dict(dataset.get("metainfo") or {})
    fixed = _fixed_names(cfg, dataset)
    named = list(metainfo.get("classes") or fixed or _class_meta(cfg, dataset).get("classes") or ())
    if len(named) == num_classes or (not named and _reads_names(dataset)):
        return
    if fixed or _loads_numbers(dataset):
        raise InvalidValueError(
            f"num_classes={num_classes}: {path} ({short_type(dataset)}) has {len(named)} classes of its own, "
            f"{', '.join(map(str, named[:4]))}, …. Give classes=[...], {num_classes} of these, or take an ingredient "
            "for your own files: data=NAME."
        )
    if _reads_names(dataset):
        metainfo = {key: value for key, value in metainfo.items() if key not in ("classes", "palette")}
    else:
        metainfo |= dict(classes=tuple(f"class {number}" for number in range(num_classes)), palette=[])
        warnings.warn(
            f"num_classes={num_classes}: {path} had the names of {len(named)} classes; now they are called class 0…"
            f"{num_classes - 1}. Name them with classes=[...].",
            stacklevel=2,
        )
    dataset["metainfo"] = metainfo


def _fixed_names(cfg: Config, dataset: Mapping) -> tuple[str, ...]:
    """The names among which a dataset of mmseg lets choose; none where any names will do."""
    for target in classes_of(dataset, cfg):
        if hasattr(target, "get_label_map"):  # label maps whose pixels the class itself numbers
            return tuple(getattr(target, "METAINFO", {}).get("classes") or ())
    return ()


def _class_meta(cfg: Config, dataset: Mapping) -> Mapping:
    return next((meta for target in classes_of(dataset, cfg) if (meta := getattr(target, "METAINFO", None))), {})


def _class_palette(cfg: Config, dataset: Mapping) -> Sequence:
    return _class_meta(cfg, dataset).get("palette") or ()


def _known_colours(dataset: Mapping, cfg: Config, metainfo: Mapping) -> dict[str, object]:
    meta = {**_class_meta(cfg, dataset), **metainfo}
    names, palette = meta.get("classes") or (), meta.get("palette") or ()
    return dict(zip(names, palette, strict=True)) if len(names) == len(palette) else {}


def _reads_names(dataset: Mapping) -> bool:
    """Whether the class names stand in an annotation file."""
    return short_type(dataset) in ("CocoInstance", "CocoPanoptic")


def _loads_numbers(dataset: Mapping) -> bool:
    """Whether a transform numbers the classes, whatever the dataset names."""
    return any(is_a(node, "LoadCityscapesSegments") for node in config_nodes(dataset.get("pipeline")))
