"""Reading JSON: broken, deeply nested or of another structure, each is an error with the file and the entry."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mmseg_m2f.errors import InvalidValueError, MissingFileError

#: What a value has to be. A type: `bool`, `int`, `float` (also whole numbers), `str`, `list`, `dict`, `object`
#: (anything); `None` for null; a tuple of structures: one of them; `[S]`: a list of S; `{str: S}`: names with S each;
#: `{"key": S, "other?": S}`: these keys, the second one only where it is there. Further keys are not looked at.
Structure: TypeAlias = Any
Content: TypeAlias = Any  # of the structure that was asked for

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "names"}


def read_json(path: str | os.PathLike[str], *, what: str, structure: Structure = object, remedy: str) -> Content:
    """The content of a file.

    Args:
        what: What the file should be, for messages.
        remedy: What to do about a wrong one: the end of the message.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON in UTF-8, or does not have that structure.
    """
    try:
        data = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingFileError(
            f"{path}: expected {what}, got no such file (working directory {os.getcwd()}). {remedy}"
        ) from error
    return parse_json(data, source=str(path), what=what, structure=structure, remedy=remedy)


def parse_json(text: str | bytes, *, source: str, what: str, structure: Structure = object, remedy: str) -> Content:
    """The content of a text; see `read_json`.

    Args:
        source: Where the text is from, for messages.
    """
    try:
        content = json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError as error:
        raise InvalidValueError(
            f"{source}: expected {what}, got lists or entries inside each other beyond what Python reads. {remedy}"
        ) from error
    except ValueError as error:
        raise InvalidValueError(f"{source}: expected {what}, got no JSON ({error}). {remedy}") from error
    for place, expected, found in _differences(content, structure, ""):
        at = f" at {place}" if place else ""
        raise InvalidValueError(f"{source}: expected {what}, got {_shown(found)} instead of {expected}{at}. {remedy}")
    return content


def _differences(value: object, structure: Structure, place: str) -> Iterable[tuple[str, str, object]]:
    """Place, what is expected, and what is there, of each value that is something else."""
    if not _is_kind(value, structure):
        yield place, in_words(structure), value
    elif isinstance(structure, list):
        for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            yield from _differences(item, structure[0], f"{place}[{index}]")
    elif isinstance(structure, tuple):
        if all(list(_differences(value, each, place)) for each in structure):
            fitting = next(each for each in structure if _is_kind(value, each))
            yield from _differences(value, fitting, place)
    elif isinstance(structure, Mapping):
        yield from _different_entries(value, structure, place)  # type: ignore[arg-type]


def _different_entries(value: Mapping, structure: Mapping, place: str) -> Iterable[tuple[str, str, object]]:
    for key, inner in structure.items():
        if key is str:
            for name, item in value.items():
                yield from _differences(item, inner, _below(place, name))
        elif (name := key.removesuffix("?")) in value:
            yield from _differences(value[name], inner, _below(place, name))
        elif name == key:
            yield place, f"the entry '{key}'", value


def _is_kind(value: object, structure: Structure) -> bool:
    """Whether the value itself fits, whatever it holds."""
    if isinstance(structure, tuple):
        return any(_is_kind(value, each) for each in structure)
    if isinstance(structure, (list, Mapping)):
        return isinstance(value, list if isinstance(structure, list) else dict)
    if structure is None:
        return value is None
    if structure is float:
        return isinstance(value, float) or (type(value) is int and abs(value) < 2**1023)
    return type(value) is structure if structure in (int, bool) else isinstance(value, structure)


def in_words(structure: Structure) -> str:
    """A structure as a message says it."""
    if isinstance(structure, tuple):
        return " or ".join(in_words(each) for each in structure)
    if isinstance(structure, list):
        return "a list"
    if isinstance(structure, Mapping):
        keys = [key for key in structure if key is not str and not key.endswith("?")]
        return f"entries {', '.join(keys)}" if keys else "entries"
    return "null" if structure is None else _WORDS[structure]


def _below(place: str, name: str) -> str:
    name = name if len(name) <= 40 else f"{name[:40]}…"
    return f"{place}.{name}" if place else name


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        keys = ", ".join(map(str, [*value][:5]))
        return f"entries {keys[:60] or 'none'}" if isinstance(value, dict) else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
