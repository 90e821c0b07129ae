"""What a `type` in a config stands for, which arguments it takes, and which names are near a wrong one."""

import ast
import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable
from importlib import import_module

import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry, root
from mmengine.utils import get_object_from_string

ROOT_SCOPE = "mmengine"
# Importing these fills mmengine's root registries; `mmcv.ops` holds the operators that mmdet and mmseg name.
_ROOT_MODULES = (
    "mmengine.dataset",
    "mmengine.evaluator",
    "mmengine.hooks",
    "mmengine.model",
    "mmengine.optim",
    "mmengine.runner",
    "mmengine.visualization",
    "mmcv.cnn",
    "mmcv.transforms",
    "mmcv.ops",
)
_OWN_STACK = ("mmseg", "mmdet", "mmcv")


def find_types(name: str, *, scope: str) -> list[Callable[..., object]]:
    """Everything that `type=name` may stand for; empty when nothing does.

    One name can be registered in several registries (a transform and a model); the config does not say which
    one is meant, so all are returned.

    Args:
        name: the `type`, with or without a scope; a dotted import path works too, as in mmengine.
        scope: the default scope that a name without scope is looked up in, before mmengine's root.
    """
    head, _, rest = name.partition(".")
    if rest and _is_scope(head):
        found = _registered(rest, scopes=[head])
    else:
        found = _registered(name, scopes=[scope, ROOT_SCOPE])
    if found or "." not in name:
        return found
    imported = get_object_from_string(name)
    return [imported] if callable(imported) else []


def is_registered(name: str, *, default_scope: str, scopes: Iterable[str]) -> bool:
    """Whether a `type` is registered in one of some scopes; a dotted import path never is.

    Args:
        default_scope: the scope that a name without scope is looked up in, before mmengine's root.
        scopes: where names may come from; nothing else is imported to find out.
    """
    head, _, rest = name.rpartition(".")
    wanted = [head] if head else [default_scope, ROOT_SCOPE]
    return any(scope in scopes and bool(_registered(rest, scopes=[scope])) for scope in wanted)


def missing_package(name: str) -> str | None:
    """The command that installs the package which the scope of `name` needs; None when it is installed."""
    head, _, rest = name.partition(".")
    if not rest or _is_importable(head):
        return None
    if head in _OWN_STACK:
        return 'pip install "mmseg-m2f[onedl]"'
    return f"pip install {MODULE2PACKAGE.get(head, head)}"


def nearest_types(name: str, *, scopes: Iterable[str]) -> list[str]:
    """Up to four registered names near `name`, each with its scope, the nearest first."""
    bare = name.rpartition(".")[2]
    known: dict[str, set[str]] = {}
    for registry in _registries(scopes):
        for registered in registry.module_dict:
            known.setdefault(registered, set()).add(f"{registry.scope}.{registered}")
    by_lower: dict[str, list[str]] = {}
    for registered in known:
        by_lower.setdefault(registered.lower(), []).append(registered)
    near = difflib.get_close_matches(bare.lower(), by_lower, n=4, cutoff=0.6)
    return [full for low in near for key in by_lower[low] for full in sorted(known[key])][:4]


def accepted_arguments(target: Callable[..., object]) -> set[str] | None:
    """Names of the arguments `target` takes; None when it takes any (its `**kwargs` go elsewhere than `super`)."""
    if not inspect.isclass(target):
        return _function_arguments(target)
    names: set[str] = set()
    for cls in target.__mro__:
        if cls in (object, torch.nn.Module):
            return names
        init = cls.__dict__.get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]  # without self
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        names |= _former_names(init)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
        if not _forwards_to_super(init, cls.__name__):
            return None
    return names


def default_argument(target: Callable[..., object], name: str) -> object | None:
    """The default of the argument `name` in the first `__init__` of a class's line that has one."""
    for cls in getattr(target, "__mro__", ()):
        init = cls.__dict__.get("__init__")
        parameter = inspect.signature(init).parameters.get(name) if inspect.isfunction(init) else None
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return None


def _function_arguments(target: Callable[..., object]) -> set[str] | None:
    if isinstance(target, functools.partial):
        return _function_arguments(target.func)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _former_names(init: Callable[..., object]) -> set[str]:
    """Old argument names that mmengine's `deprecated_api_warning` around an `__init__` still takes."""
    if not hasattr(init, "__wrapped__") or not inspect.isfunction(init):
        return set()
    renamed = inspect.getclosurevars(init).nonlocals.get("name_dict")
    return set(renamed) if isinstance(renamed, dict) else set()


def _forwards_to_super(init: Callable[..., object], owner: str) -> bool:
    """Whether the only use of an `__init__`'s `**kwargs` is to hand them to the next `__init__` in line."""
    name = next(p.name for p in inspect.signature(init).parameters.values() if p.kind is p.VAR_KEYWORD)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):  # no source at hand
        return False
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    forwarded = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "super().__init__",
            f"super({owner}, self).__init__",
        ):
            stars = [keyword.value for keyword in node.keywords if keyword.arg is None]
            forwarded += sum(isinstance(value, ast.Name) and value.id == name for value in stars)
    return forwarded == uses > 0


@functools.cache
def _root_registries() -> tuple[Registry, ...]:
    for module in _ROOT_MODULES:
        import_module(module)
    return tuple(value for value in vars(root).values() if isinstance(value, Registry))


def _registries(scopes: Iterable[str]) -> list[Registry]:
    """All registries of the scopes, without importing what they would register."""
    wanted = [scope for scope in dict.fromkeys((*scopes, ROOT_SCOPE)) if _is_scope(scope)]
    return [
        registry
        for base in _root_registries()
        for scope in wanted
        if (registry := base if scope == ROOT_SCOPE else base.children.get(scope)) is not None
    ]


def _registered(name: str, *, scopes: Iterable[str]) -> list[Callable[..., object]]:
    for scope in scopes:
        registries = [registry for registry in _registries([scope]) if registry.scope == scope]
        found = [registry.module_dict[name] for registry in registries if name in registry.module_dict]
        for registry in registries:  # imports modules, hence only while nothing is found
            if found:
                return found
            registry.import_from_location()
            found = [r.module_dict[name] for r in registries if name in r.module_dict]
        if found:
            return found
    return []


@functools.cache
def _is_importable(module: str) -> bool:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return False
    return True


@functools.cache
def _is_scope(scope: str) -> bool:
    """Whether a package of that name brings registries."""
    if scope == ROOT_SCOPE:
        return True
    if not _is_importable(scope):
        return False
    try:
        import_module(f"{scope}.registry")
    except ModuleNotFoundError as error:
        if error.name != f"{scope}.registry":
            raise
        return False
    return True
