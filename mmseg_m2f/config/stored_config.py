"""Configs that travel with weights, inside exported files and published folders: data of unknown origin, not code."""

import ast
from collections.abc import Iterator, Mapping, Sequence

from mmengine.config import Config

from mmseg_m2f.config.type_lookup import is_registered
from mmseg_m2f.errors import InvalidValueError

#: Libraries whose registered types a stored config may name.
_SCOPES = ("mmseg_m2f", "mmseg", "mmdet", "mmengine")
#: Entries that would import modules or read files of the machine where the config was written.
_LEFT_OUT = ("custom_imports", "load_from", "resume", "work_dir")


def read_stored_config(text: str, *, source: str) -> Config:
    """A config that was stored as literals. Nothing in it is executed, and no type outside of the registries is used.

    Args:
        source: What to call it in a message.

    Raises:
        ValueError: It is no such text, or names types that are not registered.
    """
    try:
        content = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _wrong(source, "plain values", "something else") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        raise _wrong(source, "a config with a model", "one without")
    scope = content.get("default_scope", "mmengine")
    for name in _types(content):
        if not isinstance(name, str) or not is_registered(name, default_scope=str(scope), scopes=_SCOPES):
            raise _wrong(source, f"registered types of {', '.join(_SCOPES)}", f"the type {name!r}")
    return Config({key: value for key, value in content.items() if key not in _LEFT_OUT})


def _types(node: object) -> Iterator[object]:
    if isinstance(node, Mapping):
        if "type" in node:
            yield node["type"]
        for value in node.values():
            yield from _types(value)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _types(value)


def _wrong(source: str, expected: str, got: str) -> InvalidValueError:
    return InvalidValueError(
        f"{source}: expected its config to hold {expected}, got {got}. Give the config beside the "
        f"weights: CONFIG {source}."
    )
