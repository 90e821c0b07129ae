"""The check that mmcv's operators that a model names are there, before anything is built.

An operator is known by the file of `mmcv.ops` that loads it. A part needs it if its class comes from such a file, or if
its module imports something from one.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from mmengine.config import Config

from mmseg_m2f.compat import is_served, missing_operator_message
from mmseg_m2f.config.nodes import classes_of, short_type
from mmseg_m2f.errors import ResourceError

_FOLDER = "mmcv.ops."


def check_operators(cfg: Config) -> None:
    """Check that no part of the model needs an operator that is neither compiled nor served.

    Raises:
        RuntimeError: The message names the operator, the config's key and what installs it.
    """
    for path, node in _parts(cfg.get("model"), "model"):
        for target in _targets(node, cfg):
            for operator in sorted(unserved_operators(target)):
                place = f"Config {cfg.filename}: {path} ({short_type(node)})"
                raise ResourceError(f"{place} cannot run. {missing_operator_message(operator)}")


def unserved_operators(target: object) -> set[str]:
    """The operators that a class, or what its module imports of `mmcv.ops`, loads and that do not work here.

    A file that loads several, some of which work, counts for the functions named like the others alone.
    """
    home = getattr(target, "__module__", None) or ""
    imported = [] if home.startswith(_FOLDER) or home not in sys.modules else vars(sys.modules[home]).values()
    found: set[str] = set()
    for item in (target, *imported):
        name = getattr(item, "__module__", None)
        if not isinstance(name, str) or not name.startswith(_FOLDER):
            continue
        loaded = _loaded_operators(sys.modules[name])
        missing = {operator for operator in loaded if not is_served(operator)}
        if missing == loaded:
            found |= missing
        elif getattr(item, "__name__", "") in missing:
            found.add(item.__name__)
    return found


def _parts(node: object, path: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    if isinstance(node, Mapping):
        if "type" in node:
            yield path, node
        for key, value in node.items():
            yield from _parts(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _parts(value, f"{path}[{index}]")


def _targets(node: Mapping[str, object], cfg: Config) -> list[object]:
    """The registered classes; layers of regions are looked up in `mmcv.ops` by mmdet, not registered."""
    found: list[object] = list(classes_of(node, cfg))
    layer = getattr(import_module("mmcv.ops"), short_type(node), None)
    return found or ([] if layer is None else [layer])


def _loaded_operators(module: ModuleType) -> set[str]:
    """The names that a file of `mmcv.ops` gives to `load_ext`."""
    found: set[str] = set()
    for call in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "load_ext" and len(call.args) == 2:
            found |= set(ast.literal_eval(call.args[1]))
    return found
