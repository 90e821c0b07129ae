"""Reading a foreign config key by key, so that nothing in it goes unnoticed."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from mmseg_m2f.config.type_lookup import default_argument, find_types
from mmseg_m2f.errors import InvalidValueError

#: Whatever a config file holds.
Value: TypeAlias = Any
Config: TypeAlias = dict[str, Value]


@dataclass
class MigrationReport:
    """What became of a config; entries of the lists read `key: reason`.

    Args:
        method: the upstream method and library, for example "mmseg's Mask2Former".
        num_classes: K.
        num_parameters: of the model, which was built once.
        carried: top-level keys that mean the same as before.
    """

    method: str = ""
    num_classes: int = 0
    num_parameters: int = 0
    carried: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Part:
    """One dict of a config. Every key is asked for, and `finish` refuses those that nobody asked for.

    A key that is not there has its default: of `defaults`, else of the class that `type` names.

    Args:
        content: the dict.
        path: its place in the config, for messages.
        scope: where a `type` without scope is looked up.
        report: where to write down what is left out.
    """

    def __init__(
        self,
        content: object,
        path: str,
        *,
        scope: str,
        report: MigrationReport,
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        if not isinstance(content, Mapping):
            raise InvalidValueError(f"{path}: expected a dict, got {content!r}. Complete the source config.")
        self.content, self.path, self.scope, self.report = content, path, scope, report
        self.defaults = dict(defaults or {})
        self._asked = {"type", "_scope_"}

    @property
    def name(self) -> str:
        """The `type` without its scope."""
        target = self.content.get("type", "")
        return str(getattr(target, "__name__", target)).rpartition(".")[2]

    @property
    def library(self) -> str:
        """The package of the class that `type` stands for; empty where there is none."""
        return next((cls.__module__.partition(".")[0] for cls in self._classes()), "")

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def take(self, key: str) -> Value:
        """The value of a key, or its default.

        Raises:
            ValueError: there is neither.
        """
        self._asked.add(key)
        if key in self.content:
            return self.content[key]
        if key in self.defaults:
            return self.defaults[key]
        return self._class_default(key)

    def number(self, key: str) -> float:
        """The value of a key, or its default, which must be a number."""
        value = self.take(key)
        if not isinstance(value, (int, float)):
            raise InvalidValueError(f"{self.path}.{key}: expected a number, got {value!r}. Correct the source config.")
        return float(value)

    def count(self, key: str) -> int:
        """The value of a key, or its default, which must be an integer."""
        value = self.take(key)
        if not isinstance(value, int):
            raise InvalidValueError(
                f"{self.path}.{key}: expected an integer, got {value!r}. Correct the source config."
            )
        return value

    def expect(self, key: str, *allowed: object, because: str) -> None:
        """Refuse any value of a key but those of which our model has the equal."""
        value = self.take(key)
        if not any(value == choice for choice in allowed):
            self.refuse(key, f"expected {' or '.join(map(repr, allowed))}, got {value!r}: {because}")

    def choose(self, known: Mapping[str, Callable[["Part"], Value]]) -> Value:
        """What the function of this part's `type`, a class of mmdet, makes of it.

        Raises:
            ValueError: another type; the message has the nearest names that are known.
        """
        if self.name not in known or self.library != "mmdet":
            near = difflib.get_close_matches(self.name, known, n=3, cutoff=0.4) or sorted(known)
            names = ", ".join(f"mmdet.{name}" for name in near)
            self.refuse("type", f"{self.content.get('type')!r} has no counterpart here. Nearest: {names}")
        return known[self.name](self)

    def part(self, key: str, defaults: Mapping[str, object] | None = None) -> "Part":
        """The dict below a key; a missing one is empty where `defaults` are given."""
        self._asked.add(key)
        content = self.content.get(key)
        if content is None and defaults is None:
            content = self._class_default(key)
        return Part(
            {} if content is None else content,
            f"{self.path}.{key}",
            scope=self.scope,
            report=self.report,
            defaults=defaults,
        )

    def leave_out(self, key: str, reason: str) -> None:
        """Note that a key has no counterpart; nothing is noted where it is not set."""
        self._asked.add(key)
        if self.content.get(key) is not None:
            self.report.left_out.append(f"{self.path}.{key}: {reason}")

    def finish(self) -> None:
        """Refuse the first key that nobody asked for.

        Raises:
            ValueError: there is one; the message names the nearest of those that are known.
        """
        for key, value in self.content.items():
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=3, cutoff=0.5) or sorted(self._asked)
                self.refuse(key, f"{value!r} has no counterpart here. Nearest known: {', '.join(near)}")

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raise a ValueError about a key."""
        raise InvalidValueError(
            f"{self.path}.{key}: {reason}. Change or remove it in a copy of the source config and migrate that."
        )

    def _class_default(self, key: str) -> Value:
        defaults = [default_argument(cls, key) for cls in self._classes()]
        value = next((default for default in defaults if default not in (None, ...)), None)
        if value is None:
            raise InvalidValueError(
                f"{self.path}.{key}: expected this key, got {sorted(self.content)}. Add it to the source."
            )
        return value

    def _classes(self) -> list[Callable[..., object]]:
        target = self.content.get("type")
        if isinstance(target, str):
            return find_types(target, scope=self.scope)
        return [target] if callable(target) else []
