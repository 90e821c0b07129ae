"""Tables of names that are read in both directions, and what happens to the tensors on the way."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

#: `{i}` is a number, `{i+1}` that number plus one; `*` is one of the ends that a layer's tensors have; `**` is
#: any rest of a name.
_PLACEHOLDER = re.compile(r"\{(\w)(?:\+(\d))?\}|(\*\*)|(\*)")
_ENDS = "weight|bias|running_mean|running_var|num_batches_tracked"


@dataclass(frozen=True)
class Row:
    """What one of our names is called elsewhere.

    Args:
        ours: template of our name.
        theirs: template of the other name; three templates where our tensor is three of theirs, stacked by rows.
        reorder: True for what reads four neighbouring patches of a Swin map: OpenMMLab orders these inputs by
            channel and then by place, row by row; the others by place, column by column, and then by channel.
    """

    ours: str
    theirs: str | tuple[str, str, str]
    reorder: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Their templates, in the order of rows."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True)
class KeyMap:
    """All names of a layout.

    Args:
        rows: the first row that fits a name applies.
        older: pattern and replacement for names of former releases, applied to a name before it is looked up.
        ignored: pattern of names that a model does without, such as the weights of a loss.
        rebuilds_index: this layout does not store Swin's `relative_position_index`; it follows from the table's size.
    """

    rows: tuple[Row, ...]
    older: tuple[tuple[str, str], ...] = ()
    ignored: str = r"criterion\.empty_weight"
    rebuilds_index: bool = False

    def modern(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The weights under the names of the newest release, and the names of those left out.

        Raises:
            KeyError: a weight is there twice, under an old and a new name.
        """
        kept: dict[str, Tensor] = {}
        dropped = []
        for name, value in state.items():
            new = name
            for pattern, replacement in self.older:
                new = re.sub(pattern, replacement, new)
            if re.fullmatch(self.ignored, new):
                dropped.append(name)
            elif new in kept:
                raise KeyError(
                    f"{name}: the newest name of this weight is {new}, and the file also holds a weight of that name. "
                    "Expected each weight once; leave one out."
                )
            else:
                kept[new] = value
        return kept, dropped

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our names and tensors for weights under the newest names.

        Raises:
            KeyError: names that are in no row, or of which a sibling is missing; all are listed.
        """
        ours: dict[str, Tensor] = {}
        pieces: dict[str, dict[int, Tensor]] = {}
        rows: dict[str, Row] = {}
        unknown = []
        for name, value in state.items():
            found = self._look_up(name, their_side=True)
            if found is None:
                unknown.append(name)
                continue
            row, target, part = found
            pieces.setdefault(target, {})[part] = value
            rows[target] = row
        unknown += [name for name, row in rows.items() if len(pieces[name]) != len(row.parts)]
        _refuse(unknown)
        for name, parts in pieces.items():
            value = torch.cat([parts[i] for i in range(len(parts))]) if len(parts) > 1 else parts[0]
            ours[name] = _channels_first(value) if rows[name].reorder else value
        if self.rebuilds_index:
            ours |= _position_indices(ours)
        return ours

    def from_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their names and tensors for weights under our names.

        Raises:
            KeyError: names that are in no row; all are listed.
        """
        theirs: dict[str, Tensor] = {}
        unknown = []
        for name, value in state.items():
            if self.rebuilds_index and name.endswith(".relative_position_index"):
                continue
            found = self._look_up(name, their_side=False)
            if found is None:
                unknown.append(name)
                continue
            row, _, _ = found
            value = _places_first(value) if row.reorder else value
            targets = [_fill(part, row.ours, name) for part in row.parts]
            theirs.update(zip(targets, value.chunk(len(targets)) if len(targets) > 1 else [value], strict=True))
        _refuse(unknown)
        return theirs

    def _look_up(self, name: str, *, their_side: bool) -> tuple[Row, str, int] | None:
        for row in self.rows:
            sources, target = (row.parts, row.ours) if their_side else ((row.ours,), row.parts[0])
            for part, source in enumerate(sources):
                if _compile(source).fullmatch(name):
                    return row, _fill(target, source, name), part
        return None


@cache
def _compile(template: str) -> re.Pattern[str]:
    pattern, end = "", 0
    for found in _PLACEHOLDER.finditer(template):
        number, _, rest, _ = found.groups()
        group = rf"(?P<{number}>\d+)" if number else r"(?P<rest>.+)" if rest else rf"(?P<end>{_ENDS})"
        pattern += re.escape(template[end : found.start()]) + group
        end = found.end()
    return re.compile(pattern + re.escape(template[end:]))


def _fill(target: str, source: str, name: str) -> str:
    """The name that `target` gives for what `source` finds in `name`."""
    match = _compile(source).fullmatch(name)
    assert match is not None
    found = match.groupdict()
    for number, shift, _, _ in _PLACEHOLDER.findall(source):
        if shift:
            found[number] = str(int(found[number]) - int(shift))
    filled, end = "", 0
    for place in _PLACEHOLDER.finditer(target):
        number, shift, rest, _ = place.groups()
        value = str(int(found[number]) + int(shift or 0)) if number else found["rest" if rest else "end"]
        filled += target[end : place.start()] + value
        end = place.end()
    return filled + target[end:]


def _refuse(unknown: Sequence[str]) -> None:
    if unknown:
        shown = ", ".join(unknown[:20]) + (", ..." if len(unknown) > 20 else "")
        raise KeyError(
            f"{len(unknown)} weights have no counterpart: {shown}. Expected a Mask2Former with the deformable pixel "
            "decoder; outside OpenMMLab its backbone must be ResNet or Swin. Leave out what does not belong to it."
        )


def _channels_first(value: Tensor) -> Tensor:
    """Inputs grouped by place (0,0), (1,0), (0,1), (1,1) → by channel, places row by row; on the last axis."""
    return value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


def _places_first(value: Tensor) -> Tensor:
    """The inverse of `_channels_first`."""
    return value.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2)


def _position_indices(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each of Swin's tables of relative positions the row that two pixels of a window look up."""
    indices = {}
    for name, table in state.items():
        if name.endswith(".relative_position_bias_table"):
            steps = math.isqrt(len(table))  # -(window - 1) ... window - 1
            window = (steps + 1) // 2
            place = torch.arange(window)
            flat = (place.unsqueeze(1) * steps + place).flatten()  # row by row
            index = flat.unsqueeze(1) - flat.unsqueeze(0) + (steps * steps - 1) // 2
            indices[name.replace("_bias_table", "_index")] = index
    return indices
