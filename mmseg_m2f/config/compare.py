"""What differs between two configs, place by place."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mmengine.config import Config

from mmseg_m2f.config.keys import READ_KEYS
from mmseg_m2f.config.options import OPTIONS

#: Stands for a value that one of the two does not have.
ABSENT = "(absent)"


class Difference(NamedTuple):
    """One place and its values, as Python writes them with lists for tuples, or `ABSENT`.

    Attributes:
        key: The dotted key, `train_dataloader.dataset.pipeline.2.scale`; indices are those of the left config, or of
            the right one where the left has no such entry.
    """

    key: str
    left: str
    right: str


def differences(left: Config, right: Config) -> list[Difference]:
    """What differs in the keys that runs and options read; other variables only help to write these.

    Steps of a pipeline that one config inserts do not shift the others: equal entries of lists are matched first.
    Tuples equal lists.
    """
    sides = [{key: value for key, value in cfg.to_dict().items() if _is_read(key)} for cfg in (left, right)]
    return list(_compare(sides[0], sides[1], ""))


def _is_read(key: str) -> bool:
    return key in READ_KEYS or key in OPTIONS


def _compare(left: object, right: object, key: str) -> Iterator[Difference]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in dict.fromkeys([*left, *right]):
            place = f"{key}.{name}" if key else str(name)
            if name in left and name in right:
                yield from _compare(left[name], right[name], place)
            else:
                yield Difference(place, *(_text(side[name]) if name in side else ABSENT for side in (left, right)))
    elif _is_list(left) and _is_list(right):
        yield from _compare_lists(list(left), list(right), key)  # type: ignore[call-overload]
    elif left != right:
        yield Difference(key, _text(left), _text(right))


def _compare_lists(left: Sequence[object], right: Sequence[object], key: str) -> Iterator[Difference]:
    if len(left) == len(right) and any(isinstance(item, Mapping) or _is_list(item) for item in left):
        for number, (before, after) in enumerate(zip(left, right, strict=True)):
            yield from _compare(before, after, f"{key}.{number}")
        return
    if not any(isinstance(item, Mapping) for item in (*left, *right)):
        if _text(left) != _text(right):
            yield Difference(key, _text(left), _text(right))
        return
    texts = [[_text(item) for item in side] for side in (left, right)]
    matcher = difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False)
    for kind, start, end, other, other_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        if end - start == other_end - other:
            for offset in range(end - start):
                yield from _compare(left[start + offset], right[other + offset], f"{key}.{start + offset}")
            continue
        yield from (Difference(f"{key}.{number}", _text(left[number]), ABSENT) for number in range(start, end))
        yield from (Difference(f"{key}.{number}", ABSENT, _text(right[number])) for number in range(other, other_end))


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _text(value: object) -> str:
    return repr(_plain(value))


def _plain(value: object) -> object:
    """The value with lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
