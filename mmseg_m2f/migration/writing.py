"""Configs as text that people read: in the order they were put, laid out as the formatter would."""

import keyword
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmseg_m2f.errors import InvalidValueError

_WIDTH = 120
_INDENT = 4


class Reference(NamedTuple):
    """An expression that stands in the text as it is, such as the name of a variable."""

    text: str


class Section(NamedTuple):
    """Variables under a title, in order."""

    title: str
    variables: Mapping[str, object]


def config_text(header: Sequence[str], sections: Sequence[Section]) -> str:
    """A config file: the header as comments, then each section that has variables.

    Raises:
        ValueError: a value that no Python literal stands for.
    """
    blocks = ["".join(f"# {line}\n" for line in header)]
    for section in sections:
        if section.variables:
            lines = [_assignment(name, value) for name, value in section.variables.items()]
            blocks.append("\n".join([f"# {section.title}", *lines]) + "\n")
    return "\n".join(blocks)


def _assignment(name: str, value: object) -> str:
    return _layout(f"{name} = ", value, "", indent=0, path=name)


def _layout(before: str, value: object, after: str, *, indent: int, path: str) -> str:
    """`before`, the value and `after`: on one line where it fits, else one line for each of its items."""
    line = " " * indent + before + _flat(value, path) + after
    if (
        len(line) <= _WIDTH
        or not isinstance(value, (Mapping, list, tuple))
        or isinstance(value, Reference)
        or not value
    ):
        return line
    opening, items, closing = _pieces(value)
    inner = [_layout(label, item, ",", indent=indent + _INDENT, path=_below(path, label)) for label, item in items]
    return "\n".join([" " * indent + before + opening, *inner, " " * indent + closing + after])


def _flat(value: object, path: str) -> str:
    if isinstance(value, Reference):
        return value.text
    if isinstance(value, (Mapping, list, tuple)):
        opening, items, closing = _pieces(value)
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return opening + ", ".join(label + _flat(item, _below(path, label)) for label, item in items) + comma + closing
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    raise InvalidValueError(
        f"{path}: {value!r} is a {type(value).__name__}; expected numbers, strings, lists and dicts, which a config "
        "file can hold. Write it as one in a copy of the source config."
    )


def _below(path: str, label: str) -> str:
    return f"{path}.{label.rstrip('=: ')}" if label else path


def _pieces(value: Mapping | Sequence) -> tuple[str, list[tuple[str, object]], str]:
    """Opening bracket, items with what stands before each, closing bracket."""
    if isinstance(value, tuple):
        return "(", [("", item) for item in value], ")"
    if not isinstance(value, Mapping):
        return "[", [("", item) for item in value], "]"
    if all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value):
        return "dict(", [(f"{key}=", item) for key, item in value.items()], ")"
    return "{", [(f"{_flat(key, 'key')}: ", item) for key, item in value.items()], "}"
