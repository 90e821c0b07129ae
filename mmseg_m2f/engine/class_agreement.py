"""Classes are names: data, checkpoint and head agree on the order of names, or the data is read in the head's order."""

import copy
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

from mmengine.fileio import load
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmseg_m2f.errors import InvalidValueError


class NamedClasses(NamedTuple):
    """Class names in the order of their numbers, and what a message calls the place that they come from."""

    names: tuple[str, ...]
    source: str


def dataset_classes(dataset: object, *, loop: str) -> NamedClasses | None:
    """The classes of a dataset; None where it names none."""
    names = (getattr(dataset, "metainfo", None) or {}).get("classes")
    return NamedClasses(tuple(map(str, names)), f"{loop}_dataloader.dataset") if names else None


def checkpoint_classes(checkpoint: Mapping, *, source: object) -> NamedClasses | None:
    """The classes that a checkpoint was trained on, as mmengine stores them; None where it does not say."""
    meta = checkpoint.get("meta")
    stored = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    names = stored.get("classes") if isinstance(stored, Mapping) else None
    return NamedClasses(tuple(map(str, names)), f"checkpoint {source}") if names else None


def same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two lists name the same classes in the same order; case, spaces and punctuation do not count."""
    return list(map(_plain, first)) == list(map(_plain, second))


def matching_rows(names: Sequence[str], stored: Sequence[str]) -> list[int | None]:
    """For each name its number among the stored ones; None where it is not among them, or not the only such name."""
    exact = {name: number for number, name in enumerate(stored) if list(stored).count(name) == 1}
    plain = list(map(_plain, stored))
    rows: list[int | None] = []
    for name in names:
        unique = plain.count(_plain(name)) == 1
        rows.append(exact.get(name, plain.index(_plain(name)) if unique else None))
    return rows


def check_same_classes(found: NamedClasses | None, expected: NamedClasses | None, *, remedy: str) -> None:
    """Raise ValueError where both are known and differ."""
    if found is not None and expected is not None and not same_names(found.names, expected.names):
        raise InvalidValueError(_difference(found, expected, remedy=remedy))


def check_initial_classes(found: NamedClasses | None, initial: NamedClasses | None) -> None:
    """Raise ValueError where training starts from a class layer for the same classes in another order.

    A class layer for other classes is only a start; that is said once.
    """
    if found is None or initial is None or len(found.names) != len(initial.names):
        return
    if same_names(found.names, initial.names):
        return
    remedy = "Give train_dataloader.dataset.metainfo.classes that order, or start with a new class layer: "
    remedy += "model.decode_head.replace_classifier=True."
    if sorted(map(_plain, found.names)) == sorted(map(_plain, initial.names)):
        raise InvalidValueError(_difference(found, initial, remedy=remedy))
    warnings.warn(
        _difference(found, initial, remedy="The class layer starts from theirs; to start with a new one, set ")
        + "model.decode_head.replace_classifier=True.",
        stacklevel=2,
    )


def agreed_metainfo(known: Mapping, trained_on: Mapping, *, source: object) -> Mapping:
    """Names, colours and ids of what a model predicts, where a config and a checkpoint both name the classes.

    A model numbers classes as it was trained. Where the config lists the same names in another order, the checkpoint's
    order holds, with the config's colours; other names are only shown, and that is said.

    Args:
        known: Metainfo of the config.
        trained_on: Metainfo that the checkpoint holds; may be empty.
        source: The checkpoint, for messages.
    """
    found = NamedClasses(tuple(map(str, known["classes"])), "test_dataloader.dataset")
    trained = NamedClasses(tuple(map(str, trained_on.get("classes") or ())), f"checkpoint {source}")
    if not trained.names or len(trained.names) != len(found.names) or same_names(found.names, trained.names):
        return known
    if sorted(map(_plain, found.names)) != sorted(map(_plain, trained.names)):
        remedy = "Results carry the names of test_dataloader.dataset; remove its metainfo.classes for the checkpoint's."
        print_log(_difference(found, trained, remedy=remedy), logger="current", level=30)
        return known
    remedy = "Results are numbered and named as in the checkpoint."
    print_log(_difference(found, trained, remedy=remedy), logger="current", level=30)
    ids = {key: trained_on[key] for key in ("category_ids",) if key in trained_on}
    return _reordered(dict(known), known, trained.names) | ids


def align_dataset(runner: Runner, loop: str, expected: NamedClasses | None) -> None:
    """Let a validation or test set number its classes as `expected` does.

    Where the names differ in order or number, the dataset is built anew with `metainfo.classes` as expected. That works
    for datasets that find classes by name: ours of COCO's formats, and those of mmseg that know their classes.

    Raises:
        ValueError: The dataset cannot be read in that order.
    """
    loader = getattr(runner, f"{loop}_dataloader")
    found = dataset_classes(loader.dataset, loop=loop)
    if found is None or expected is None or same_names(found.names, expected.names):
        return
    remedy = (
        f"Set {loop}_dataloader.dataset.metainfo.classes to the names in that order if its labels follow it, or write "
        "the annotations anew in that order."
    )
    config = copy.deepcopy(runner.cfg.get(f"{loop}_dataloader") or {})
    cause = _why_fixed(loader.dataset) or _why_metric_fixed(runner, loop)
    if cause is None and isinstance(config.get("dataset"), MutableMapping):
        for leaf in _leaf_configs(config["dataset"]):
            leaf["metainfo"] = _reordered(dict(leaf.get("metainfo") or {}), loader.dataset.metainfo, expected.names)
        try:
            dataset = DATASETS.build(config["dataset"])
            _complete(dataset)
        except (ValueError, KeyError, TypeError) as error:
            cause = str(error)
        else:
            _replace_loader(runner, loop, config=config, dataset=dataset)
            left_out = [name for name in found.names if _plain(name) not in set(map(_plain, expected.names))]
            print_log(
                f"{found.source}: classes are numbered as in {expected.source}: {', '.join(expected.names[:8])}"
                f"{' …' if len(expected.names) > 8 else ''}."
                + (f" Left out, because they are not among them: {', '.join(left_out)}." if left_out else ""),
                logger="current",
                level=30 if left_out else 20,
            )
            return
    raise InvalidValueError(_difference(found, expected, remedy=remedy, cause=cause))


def check_category_order(dataset: object, *, loop: str) -> None:
    """Raise ValueError where mmdet numbers categories in the file's order, and `metainfo.classes` lists another.

    mmdet's COCO datasets select categories by name, but number them as the file lists them.
    """
    for leaf in leaf_datasets(dataset):
        category_ids = getattr(leaf, "cat_ids", None)
        names = (getattr(leaf, "metainfo", None) or {}).get("classes")
        known = getattr(type(leaf), "METAINFO", {}).get("classes")
        if not category_ids or not names or (known and list(known) == list(names)):
            continue
        categories = load(leaf.ann_file)["categories"]  # type: ignore[attr-defined]
        name_of_id = {category["id"]: str(category["name"]) for category in categories}
        in_file = [name_of_id[i] for i in category_ids]
        if list(map(str, names)) != in_file:
            raise InvalidValueError(
                f"{loop}_dataloader.dataset: {type(leaf).__name__} numbers categories in the file's order, "
                f"{_show(in_file)}, but metainfo.classes is {_show(names)}. List metainfo.classes in the file's order, "
                "or take mmseg_m2f.CocoInstance or mmseg_m2f.CocoPanoptic, which follow the list."
            )


def leaf_datasets(dataset: object) -> Iterator[object]:
    """The datasets that read data, below wrappers."""
    if inner := getattr(dataset, "datasets", None):
        for part in inner:
            yield from leaf_datasets(part)
    elif (part := getattr(dataset, "dataset", None)) is not None:
        yield from leaf_datasets(part)
    else:
        yield dataset


def _why_fixed(dataset: object) -> str | None:
    """Why a dataset cannot number its classes otherwise; None where it can."""
    for leaf in leaf_datasets(dataset):
        by_name = getattr(leaf, "finds_classes_by_name", False)
        knows_classes = hasattr(leaf, "label_map") and getattr(type(leaf), "METAINFO", {}).get("classes")
        if getattr(leaf, "things_only", False):
            return "with things_only=True, metainfo.classes would make stuff void"
        if not by_name and not knows_classes:
            return f"the labels of {type(leaf).__name__} are numbers without names"
    return None


def _why_metric_fixed(runner: Runner, loop: str) -> str | None:
    """Metrics of mmdet that read an annotation file number its categories in the file's order."""
    for metric in getattr(runner, f"{loop}_evaluator").metrics:
        if type(metric).__module__.startswith("mmdet."):
            return f"{type(metric).__name__} numbers classes in the order of its own annotation file"
    return None


def _reordered(metainfo: dict, found: Mapping, expected: Sequence[str]) -> dict:
    """`metainfo` with other classes; the colours that a dataset has follow the names, unless one has no colour."""
    for key in ("palette", "thing_ids", "stuff_ids"):
        metainfo.pop(key, None)
    metainfo["classes"] = list(expected)
    palette, names = found.get("palette") or (), found["classes"]
    if len(palette) == len(names):
        colours = dict(zip(map(_plain, names), palette, strict=True))
        if all(_plain(name) in colours for name in expected):
            metainfo["palette"] = [colours[_plain(name)] for name in expected]
    return metainfo


def _replace_loader(runner: Runner, loop: str, *, config: MutableMapping, dataset: object) -> None:
    """What `runner.build_val_loop` has set up, with another dataset."""
    config["dataset"] = dataset
    loader: DataLoader = runner.build_dataloader(config, seed=runner.seed)
    setattr(runner, f"_{loop}_dataloader", loader)
    running = getattr(runner, f"{loop}_loop")
    running.dataloader = loader
    running.evaluator.dataset_meta = runner.visualizer.dataset_meta = dataset.metainfo  # type: ignore[attr-defined]


def _leaf_configs(node: object) -> Iterator[MutableMapping]:
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _leaf_configs(item)
    elif isinstance(node, MutableMapping):
        inner = [key for key in ("dataset", "datasets") if key in node]
        for key in inner:
            yield from _leaf_configs(node[key])
        if not inner:
            yield node


def _complete(dataset: object) -> None:
    if hasattr(dataset, "full_init"):
        dataset.full_init()


def _difference(found: NamedClasses, expected: NamedClasses, *, remedy: str, cause: str | None = None) -> str:
    """The message: both lists around the first difference."""
    pairs = list(zip(map(_plain, found.names), map(_plain, expected.names), strict=False))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    kind = (
        "the same classes in another order"
        if sorted(map(_plain, found.names)) == sorted(map(_plain, expected.names))
        else "other classes"
    )
    because = f" They cannot be mapped by name: {cause.rstrip('. ')}." if cause else ""
    return (
        f"{found.source} has {kind} than {expected.source}: expected {_show(expected.names, first)}, got "
        f"{_show(found.names, first)} (number {first} differs first).{because} {remedy}"
    )


def _show(names: Sequence[str], around: int = 0) -> str:
    start = max(around - 3, 0)
    shown = ", ".join(map(repr, names[start : start + 8]))
    return f"[{'… ' if start else ''}{shown}{' …' if len(names) > start + 8 else ''}]"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", str(name).casefold()) or str(name)
