"""Tables of names that are read in both directions, and what happens to the tensors on the way."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError, UnknownNameError

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
        beside: one of their names, where `theirs` alone does not tell which of our tensors it is; the row applies
            to files that also hold a weight of this name.
        batched: ours has a first axis, of one entry, that theirs lacks.
    """

    ours: str
    theirs: str | tuple[str, str, str]
    reorder: bool = False
    beside: str | None = None
    batched: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Their templates, in the order of rows."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def within(ours: str, theirs: str, rows: Mapping[str, str]) -> tuple[Row, ...]:
    """Rows whose names begin alike: ours → theirs, behind the two prefixes."""
    return tuple(Row(ours + our, theirs + their) for our, their in rows.items())


def thirds(ours: str, theirs: str, names: tuple[str, str, str]) -> Row:
    """A packed projection of ours; theirs are three layers, behind the prefix."""
    query, key, value = (f"{theirs}{name}.*" for name in names)
    return Row(ours, (query, key, value))


@dataclass(frozen=True)
class KeyMap:
    """All names of one model in one layout.

    Args:
        expects: what the layout has names for, in words; for messages.
        rows: the first row that fits a name applies.
        older: pattern and replacement for names of former releases, applied to a name before it is looked up.
        ignored: pattern of their names that a model does without, such as the weights of a loss.
        left_out: pattern of our names that change no prediction and that this layout has no place for.
        rebuilds_index: this layout may lack Swin's `relative_position_index`; it follows from the table's size.
        plain_layers: this layout has other names for gated layers, whose `mlp.fc1` gives twice what `mlp.fc2` takes.
        constants: what files of this layout must also hold, and we have elsewhere; `ignored` when read.
        copies: pattern and replacement for names under which files hold a weight again; the copies must be equal.
        arrange: their weights before names are looked up, e.g. with the levels in our order.
        restore: the inverse of `arrange`.
    """

    expects: str
    rows: tuple[Row, ...]
    older: tuple[tuple[str, str], ...] = ()
    ignored: str = r"criterion\.empty_weight"
    left_out: str = ""
    rebuilds_index: bool = False
    plain_layers: bool = False
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()
    arrange: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    restore: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict

    def modern_name(self, name: str) -> str:
        """What the newest release calls this weight."""
        for pattern, replacement in self.older:
            name = re.sub(pattern, replacement, name)
        return name

    def our_name(self, name: str) -> str | None:
        """Our name of a weight under its newest name, None if no row has it; for layouts with our tensors."""
        found = self._find_ours(name, {})
        return None if found is None else found[1]

    def modern(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The weights under the names of the newest release, and the names of those left out.

        Raises:
            KeyError: a weight is there twice, under an old and a new name.
            ValueError: copies of a weight differ.
        """
        kept: dict[str, Tensor] = {}
        dropped = []
        for name, value in state.items():
            new = self.modern_name(name)
            if re.fullmatch(self.ignored, new) or self._is_copy(new, state):
                dropped.append(name)
            elif new in kept:
                raise UnknownNameError(
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
        state = self.arrange(state)
        for name, value in state.items():
            found = self._find_ours(name, state)
            if found is None:
                unknown.append(name)
                continue
            row, target, part = found
            pieces.setdefault(target, {})[part] = value
            rows[target] = row
        unknown += [name for name, row in rows.items() if len(pieces[name]) != len(row.parts)]
        self._refuse(unknown)
        for name, parts in pieces.items():
            value = torch.cat([parts[i] for i in range(len(parts))]) if len(parts) > 1 else parts[0]
            value = _channels_first(value) if rows[name].reorder else value
            ours[name] = value.unsqueeze(0) if rows[name].batched else value
        if self.rebuilds_index:
            ours = _position_indices(ours) | ours
        return ours

    def from_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their names and tensors for weights under our names, less those that `leaves_out` names.

        Raises:
            KeyError: names that are in no row; all are listed.
        """
        theirs: dict[str, Tensor] = {}
        unknown = []
        for name, value in state.items():
            row = None if self.plain_layers and _is_gated(name, state) else self._row_of_ours(name)
            if row is not None:
                value = _places_first(value) if row.reorder else value
                value = value.squeeze(0) if row.batched else value
                targets = [_fill(part, row.ours, name) for part in row.parts]
                theirs.update(zip(targets, value.chunk(len(targets)) if len(targets) > 1 else [value], strict=True))
            elif not self.leaves_out(name) and not self._rebuilds(name):
                unknown.append(name)
        self._refuse(unknown)
        return self.restore(theirs)

    def _is_copy(self, name: str, state: Mapping[str, Tensor]) -> bool:
        """Whether the file holds this weight under another name, which counts."""
        for pattern, replacement in self.copies:
            original = re.sub(f"^{pattern}", replacement, name)
            if original != name and original in state:
                if torch.equal(state[name], state[original]):
                    return True
                raise InvalidValueError(
                    f"{name} differs from {original}. Expected two copies of one layer, as published; a model whose "
                    "layers do not share it has no counterpart here."
                )
        return False

    def knows(self, name: str, state: Mapping[str, Tensor]) -> bool:
        """Whether a row has their name, under its newest spelling, in a file with the weights of `state`."""
        return self._find_ours(name, state) is not None

    def leaves_out(self, name: str) -> bool:
        """Whether this layout has no place for a weight of ours, and converting back does not restore it."""
        return re.fullmatch(self.left_out, name) is not None

    def _rebuilds(self, name: str) -> bool:
        return self.rebuilds_index and name.endswith(".relative_position_index")

    def _row_of_ours(self, name: str) -> Row | None:
        if self.leaves_out(name):
            return None
        return next((row for row in self.rows if _compile(row.ours).fullmatch(name)), None)

    def _find_ours(self, name: str, state: Mapping[str, Tensor]) -> tuple[Row, str, int] | None:
        """The row of their name, our name, and which part of our tensor it is."""
        for row in self.rows:
            if row.beside is None or row.beside in state:
                for part, source in enumerate(row.parts):
                    if _compile(source).fullmatch(name):
                        return row, _fill(row.ours, source, name), part
        return None

    def _refuse(self, unknown: Sequence[str]) -> None:
        if unknown:
            shown = ", ".join(unknown[:20]) + (", ..." if len(unknown) > 20 else "")
            raise UnknownNameError(
                f"{len(unknown)} weights have no counterpart: {shown}. Expected {self.expects}. "
                "Leave out what does not belong to it."
            )


def _is_gated(name: str, state: Mapping[str, Tensor]) -> bool:
    second = state.get(name.replace(".mlp.fc1.weight", ".mlp.fc2.weight"))
    return name.endswith(".mlp.fc1.weight") and second is not None and len(state[name]) != second.shape[1]


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
