"""Batches as plain values and tensors, which a file may hold and `torch.load(weights_only=True)` reads."""

import importlib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from mmseg_m2f.errors import InvalidValueError

# Numbers, texts, tensors, and lists, tuples and mappings of them.
Plain: TypeAlias = "object"

_ELEMENT, _ARRAY, _MASKS, _BOXES, _OTHER = "__element__", "__array__", "__masks__", "__boxes__", "__other__"


def to_plain(value: object) -> Plain:
    """A batch, or a part of it; what is no data (a file handle, say) becomes its text."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(value.copy())} if value.dtype.kind in "bif" else {_OTHER: repr(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, (list, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, BaseDataElement):
        parts = {"metainfo": dict(value.metainfo_items()), "fields": dict(value.items())}
        return {_ELEMENT: type(value).__name__, **{name: to_plain(part) for name, part in parts.items()}}
    if hasattr(value, "to_ndarray") and hasattr(value, "height"):  # mmdet's masks
        masks = torch.from_numpy(value.to_ndarray().copy())
        return {_MASKS: masks, "height": value.height, "width": value.width}  # type: ignore[attr-defined]
    if isinstance(getattr(value, "tensor", None), torch.Tensor):  # mmdet's boxes
        return {_BOXES: value.tensor.detach().cpu().clone()}  # type: ignore[attr-defined]
    return {_OTHER: repr(value)}


def from_plain(value: Plain) -> object:
    """The batch that `to_plain` was given.

    Raises:
        ValueError: It holds a container of a class that is not loaded.
    """
    if isinstance(value, Mapping):
        if _ELEMENT in value:
            element = _element_class(str(value[_ELEMENT]))(metainfo=from_plain(value["metainfo"]))
            for name, field in dict(value["fields"]).items():
                element.set_field(from_plain(field), name)
            return element
        if _ARRAY in value:
            return value[_ARRAY].numpy()
        if _MASKS in value:
            masks = importlib.import_module("mmdet.structures.mask")
            return masks.BitmapMasks(value[_MASKS].numpy(), value["height"], value["width"])
        if _BOXES in value:
            return importlib.import_module("mmdet.structures.bbox").HorizontalBoxes(value[_BOXES])
        if _OTHER in value:
            return value[_OTHER]
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(item) for item in value)
    return value


def sample_metainfos(batch: object) -> Iterator[Mapping]:
    """The metainfo of each sample of a batch, in order."""
    samples = batch.get("data_samples", ()) if isinstance(batch, Mapping) else ()
    for sample in samples or ():
        yield sample.metainfo if isinstance(sample, BaseDataElement) else {}


def _element_class(name: str) -> type[BaseDataElement]:
    known, waiting = {}, [BaseDataElement]
    while waiting:
        kind = waiting.pop()
        known[kind.__name__] = kind
        waiting += kind.__subclasses__()
    if name not in known:
        raise InvalidValueError(f"The batch holds a {name}; expected one of {', '.join(sorted(known))}.")
    return known[name]
