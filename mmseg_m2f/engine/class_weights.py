"""Class weights of losses: lists in the order of the classes, or numbers by the classes' names."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from mmengine.logging import print_log
from torch import nn

from mmseg_m2f.engine.class_agreement import matching_rows
from mmseg_m2f.errors import InvalidValueError


def settle_class_weights(model: nn.Module, classes: Sequence[str]) -> None:
    """Put weights by name into the order of the training data's classes, and check and log lists.

    A list has no names. Where its weights differ, the log pairs them with the names, so that a list made for another
    order shows. A further weight at the end is that of "no object".

    Raises:
        ValueError: A loss has another number of weights, or names other classes.
    """
    said = set()
    for path, part in model.named_modules():
        named = getattr(part, "class_weight", None)
        if isinstance(named, Mapping):
            in_order = _in_order(named, classes, key=f"model.{path}.class_weight")
            setter = getattr(part, "set_class_weight", None)  # of our losses, which keep a tensor besides
            setattr(part, "class_weight", in_order) if setter is None else setter(in_order)
            continue
        weights = _numbers(named)
        if weights is None:
            continue
        if len(weights) not in (len(classes), len(classes) + 1):
            names = ", ".join(map(str, classes[:8])) + (" …" if len(classes) > 8 else "")
            raise InvalidValueError(
                f"model.{path}.class_weight has {len(weights)} entries, but train_dataloader.dataset has "
                f"{len(classes)} classes ({names}); expected one weight for each, in this order. Correct the list, "
                f"or name them: class_weight={{{classes[0]!r}: 1.0, …}}."
            )
        if len(set(weights[: len(classes)])) > 1 and tuple(weights) not in said:
            said.add(tuple(weights))
            pairs = [f"{name} {weight:g}" for name, weight in zip([*classes, "no object"], weights, strict=False)]
            print_log(f"model.{path}.class_weight, by position: {', '.join(pairs)}.", logger="current")


def _in_order(weights: Mapping, classes: Sequence[str], *, key: str) -> list[float]:
    """The weights by name as a list in the order of the classes; case, spaces and punctuation do not count."""
    stored = list(map(str, weights))
    rows = matching_rows(classes, stored)
    unknown = [name for number, name in enumerate(stored) if number not in rows]
    missing = [name for name, row in zip(classes, rows, strict=True) if row is None]
    if unknown or missing:
        near = [f"'{name}'" for each in unknown for name in difflib.get_close_matches(each, missing, n=1)]
        raise InvalidValueError(
            f"{key}: expected one weight for each of the {len(classes)} classes of train_dataloader.dataset, got "
            f"{len(stored)}"
            + (f", {_listed(unknown)} of no such class" if unknown else "")
            + (f", none for {_listed(missing)}" if missing else "")
            + f". Correct the names{f' (did you mean {near[0]}?)' if near else ''}."
        )
    numbers = list(weights.values())
    for name, number in zip(stored, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number) or number < 0:
            raise InvalidValueError(f"{key}['{name}']: expected a number from 0 on, got {number!r}. Correct it.")
    return [float(numbers[cast(int, row)]) for row in rows]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (" …" if len(names) > 8 else "")


def _numbers(weights: object) -> list[float] | None:
    """Weights as a list; None where there are none, one for all, or the name of a file."""
    if isinstance(weights, torch.Tensor):
        weights = weights.tolist()
    if not isinstance(weights, Sequence) or isinstance(weights, str) or not weights:
        return None
    return [float(weight) for weight in weights]
