"""Every `type` of a config with the scope that it is found in."""

from collections.abc import Callable, Mapping

from mmseg_m2f.config.type_lookup import ROOT_SCOPE, default_argument, find_types
from mmseg_m2f.migration.reading import Value

#: Arguments whose value names a class, like `type`.
_NAMING_KEYS = ("resize_type", "constructor")
#: Below these, `type` names something outside the registries, or nothing.
_FOREIGN_TYPES = ("Albu",)
_FOREIGN_KEYS = ("metainfo",)


class Scopes:
    """Copies parts of a config, with scopes.

    Args:
        default: the scope of the source's names without one.
        keep_root: leave names of mmengine's root as they are, as layers (`BN`) and initialisers are written.
    """

    def __init__(self, default: str, *, keep_root: bool = False) -> None:
        self.default, self.keep_root = default, keep_root

    def apply(self, node: Value) -> Value:
        """A copy of a part of the config. Names that nothing is registered under stay as they are."""
        if isinstance(node, (list, tuple)):
            items = [self.apply(item) for item in node]
            return tuple(items) if isinstance(node, tuple) else items
        if not isinstance(node, Mapping):
            return node
        target = node.get("type")
        scope = str(node.get("_scope_") or self.default)
        if scope != self.default:
            return Scopes(scope, keep_root=self.keep_root).apply({**node, "_scope_": None})
        if isinstance(target, str) and target.rpartition(".")[2] in _FOREIGN_TYPES:
            return {**node, "type": self.name(target)}
        copied = {
            key: value if key in _FOREIGN_KEYS else self.apply(value)
            for key, value in node.items()
            if key not in ("_scope_", "type")
        }
        if not isinstance(target, str) and not callable(target):
            return copied if target is None else {"type": target, **copied}
        return {"type": self.name(target), **copied, **self._named_arguments(target, copied)}

    def name(self, target: str | Callable[..., object]) -> str:
        """The full name of what a `type` stands for."""
        if not isinstance(target, str):
            return self._name_of_class(target)
        head, _, bare = target.rpartition(".")
        for scope in (head,) if head else (self.default, ROOT_SCOPE):
            if scope and find_types(f"{scope}.{bare}", scope=scope):
                return bare if scope == ROOT_SCOPE and self.keep_root else f"{scope}.{bare}"
        return target

    def _name_of_class(self, target: Callable[..., object]) -> str:
        name = getattr(target, "__name__", str(target))
        library = target.__module__.partition(".")[0]
        for scope in (library, ROOT_SCOPE):
            if target in find_types(f"{scope}.{name}", scope=scope):
                return f"{scope}.{name}"
        return f"{target.__module__}.{name}"

    def _named_arguments(self, target: str | Callable[..., object], node: Mapping) -> dict[str, str]:
        """Arguments that name a class, written out where the class has a default that depends on the scope."""
        named = {}
        found = find_types(target, scope=self.default) if isinstance(target, str) else [target]
        for key in _NAMING_KEYS:
            value = node.get(key) or next(filter(None, (default_argument(cls, key) for cls in found)), None)
            if isinstance(value, str):
                named[key] = self.name(value)
        return named
