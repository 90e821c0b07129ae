"""Which weights of a checkpoint fit a model, by name and shape, and a table that says so."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

_COUNTERS = ("num_batches_tracked",)  # of batch norms: no weights
_SHOWN = 8  # names in a line of the table


class ClassRows(NamedTuple):
    """The classes of a model, of a checkpoint, and which row of its class layer each class of the model takes.

    Attributes:
        names: the model's K classes.
        stored: the checkpoint's classes.
        rows: K numbers of rows; None for a class that the checkpoint does not have.
    """

    names: Sequence[str]
    stored: Sequence[str]
    rows: Sequence[int | None]


class Fit(NamedTuple):
    """What a model starts from.

    Attributes:
        state: all tensors of the model; its own where the checkpoint gives none.
        taken: names of tensors that are the checkpoint's, as a whole or by rows.
        initial: names of tensors that stay as they were initialised, each with the reason.
        unused: names of the checkpoint's weights that nothing takes, each with the reason.
        rows: names of class layers, each with what was taken by rows, in words.
    """

    state: dict[str, Tensor]
    taken: list[str]
    initial: dict[str, str]
    unused: dict[str, str]
    rows: dict[str, str]


def fit_weights(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    *,
    class_layers: Collection[str] = (),
    classes: ClassRows | None = None,
    new_class_layers: bool = False,
) -> Fit:
    """Take every tensor that fits by name and shape; of class layers, the rows of classes that have equal names.

    A row behind those of the classes, "no object", is taken where both have one. Where the names of the classes are not
    known, a class layer is taken as a whole or not at all.

    Args:
        own: the model's tensors as they were initialised.
        weights: the checkpoint's, under the model's names.
        class_layers: names of the model's tensors whose first axis counts classes.
        new_class_layers: take none of them.
    """
    state, taken, initial, rows = dict(own), [], {}, {}
    for name, value in own.items():
        stored = weights.get(name)
        if stored is None:
            initial[name] = "the checkpoint has none"
        elif name in class_layers and new_class_layers:
            initial[name] = "decode_head.replace_classifier is True"
        elif name in class_layers and classes is not None and value.shape[1:] == stored.shape[1:]:
            merged, found = _merge_rows(value, stored, classes)
            if found is None:
                initial[name] = f"{len(stored)} rows there for {len(classes.stored)} classes"
            else:
                state[name], rows[name] = merged, found
                taken.append(name)
        elif value.shape == stored.shape:
            state[name] = stored
            taken.append(name)
        else:
            why = ", and class names are not known" if name in class_layers else ""
            initial[name] = f"shape {tuple(stored.shape)} there, {tuple(value.shape)} here{why}"
    unused = {name: "the model has none" for name in weights if name not in own}
    return Fit(state, taken, initial, unused, rows)


def check_fit(fit: Fit, weights: Mapping[str, Tensor], *, source: str, layout: str) -> None:
    """Raise ValueError where the model takes nothing of the checkpoint."""
    if any(not name.endswith(_COUNTERS) and fit.state[name].is_floating_point() for name in fit.taken):
        return
    expected = ", ".join(_with_shape(name, fit.state[name]) for name in _weights_of(fit.initial)[:2])
    got = ", ".join(_with_shape(name, value) for name, value in list(weights.items())[:2])
    raise InvalidValueError(
        f"pretrained={source}: none of its {len(weights)} weights ({layout}) fits the model by name and shape; "
        f"expected such as {expected}, got {got or 'none'}. Choose a config with the method and backbone of "
        "the checkpoint, or start without it: pretrained=off."
    )


def fit_table(fit: Fit, *, source: str, layout: str) -> str:
    """One line for each part of the model: how many tensors it took and how many stay initial, and why.

    Counters of batch norms are not counted. Parts are the backbone, the parts of the head, and class layers.
    """
    groups: dict[str, list[str]] = {}
    for name in _weights_of(fit.state):
        groups.setdefault(_part(name, fit), []).append(name)
    taken = set(fit.taken)
    lines = [("part of the model", "taken", "new", "why new")]
    for part, names in groups.items():
        new = [name for name in names if name not in taken]
        by_rows = next((fit.rows[name] for name in names if name in fit.rows), "")
        reasons = _reasons({name: fit.initial[name] for name in new}, part)
        lines.append((part, str(len(names) - len(new)), str(len(new)), "; ".join(filter(None, (by_rows, reasons)))))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    shown = [
        f"  {line[0]:{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]}".rstrip() for line in lines
    ]
    unused = _weights_of(fit.unused)
    if unused:
        shown.append(f"  left in the checkpoint, because the model has none: {len(unused)}")
        left: dict[str, int] = {}
        for name in unused:
            left[_part(name, fit)] = left.get(_part(name, fit), 0) + 1
        listed = [f"{part} ({count})" for part, count in left.items()]
        shown.append(f"    {', '.join(listed[:_SHOWN])}{' …' if len(listed) > _SHOWN else ''}")
    return "\n".join([f"Weights of {source} ({layout}):", *shown])


def _merge_rows(own: Tensor, stored: Tensor, classes: ClassRows) -> tuple[Tensor, str | None]:
    """The model's rows with those of equal names replaced, and what was replaced; None where rows cannot be named."""
    extra, stored_extra = len(own) - len(classes.names), len(stored) - len(classes.stored)
    if extra not in (0, 1) or stored_extra not in (0, 1):
        return own, None
    merged = own.clone()
    pairs = [(row, source) for row, source in enumerate(classes.rows) if source is not None]
    if extra and stored_extra:
        pairs.append((len(own) - 1, len(stored) - 1))
    if pairs:
        here, there = (torch.tensor(index) for index in zip(*pairs, strict=True))
        merged[here] = stored[there].to(merged)
    kept = [name for name, source in zip(classes.names, classes.rows, strict=True) if source is not None]
    new = [name for name, source in zip(classes.names, classes.rows, strict=True) if source is None]
    if not new and len(kept) == len(classes.stored):
        return merged, f"all {len(kept)} classes by name"
    found = f"rows of {len(kept)} of {len(classes.names)} classes by name ({_listed(kept)})"
    return merged, f"{found}, new: {_listed(new)}"


def _part(name: str, fit: Fit) -> str:
    """The part of the model that a tensor belongs to."""
    module = name.rpartition(".")[0]
    if name in fit.rows or any(module == row.rpartition(".")[0] for row in fit.rows):
        return module
    names = name.split(".")
    return ".".join(names[: 2 if names[0].endswith("_head") else 1])


def _reasons(initial: Mapping[str, str], part: str) -> str:
    """The first tensor of each kind of reason, and how many there are."""
    kinds: dict[str, list[str]] = {}
    for name, reason in initial.items():
        kinds.setdefault(reason.split(" ")[0], []).append(name)
    said = []
    for names in kinds.values():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        said.append(f"{names[0].removeprefix(f'{part}.')}{more}: {initial[names[0]]}")
    return "; ".join(said)


def _weights_of(names: Collection[str]) -> list[str]:
    return [name for name in names if not name.endswith(_COUNTERS)]


def _with_shape(name: str, value: Tensor) -> str:
    return f"{name} {tuple(value.shape)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") or "none"
