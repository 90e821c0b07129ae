"""What the files of a config assign and read: its own file, and those that it is based on."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

_TEMPLATE = re.compile(r"\{\{\s*_base_\.(\w+)")  # mmengine's older way to read a variable of a base


@dataclass(frozen=True)
class Source:
    """One Python file of a config.

    Attributes:
        bases: The files that it lists in `_base_`.
        assigned: Its top-level variables, in order, each with the expression assigned last.
        own_reads: Names that the file reads as variables of its own.
        base_reads: Names that it reads of its bases, `_base_.NAME` or `{{_base_.NAME}}`.
    """

    path: Path
    bases: tuple["Source", ...]
    assigned: Mapping[str, ast.expr]
    own_reads: frozenset[str]
    base_reads: frozenset[str]
    constants: Mapping[str, object] = field(default_factory=dict)

    def family(self) -> Iterator["Source"]:
        """The file and all that it is based on."""
        yield self
        for base in self.bases:
            yield from base.family()

    @property
    def is_ingredient(self) -> bool:
        """Whether it is a part of configs and no config: it lies in a folder `_base_`, or nothing in it is a model."""
        return "_base_" in self.path.parts or not any("model" in source.assigned for source in self.family())


def read_sources(path: str | Path) -> Source | None:
    """The files of a config; None for JSON, YAML and configs that import each other as Python modules."""
    path = Path(path).resolve()
    if path.suffix != ".py" or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if any(isinstance(node, ast.Name) and node.id == "read_base" for node in ast.walk(tree)):
        return None
    bases = [read_sources(base) for base in _base_files(path, tree)]
    assigned: dict[str, ast.expr] = {}
    for statement in tree.body:
        for name, value in _assignments(statement):
            assigned[name] = value
    assigned.pop("_base_", None)
    return Source(
        path=path,
        bases=tuple(base for base in bases if base is not None),
        assigned=assigned,
        own_reads=frozenset(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        ),
        base_reads=frozenset(_reads_of_bases(tree, text)),
        constants=dict(_constants(assigned)),
    )


def leaves(source: Source) -> list[Source]:
    """The files of a config that are configs themselves: its own first, then those that it is based on.

    A file without `_base_` is none of them: a dumped config, in which every helper variable of its former ingredients
    stands, or one that sets each key itself.
    """
    return [file for file in source.family() if file.bases and (file is source or not file.is_ingredient)]


def value_before(source: Source, name: str) -> object | None:
    """A top-level variable as the file's bases have it; None where they have none."""
    for base in source.bases:
        cfg = Config.fromfile(base.path, import_custom_modules=False)
        if name in cfg:
            return cfg[name]
    return None


def _base_files(path: Path, tree: ast.Module) -> list[Path]:
    for statement in tree.body:
        for name, value in _assignments(statement):
            if name == "_base_":
                try:
                    listed = ast.literal_eval(value)
                except ValueError:  # an expression
                    listed = Config._get_base_files(str(path))
                names = [listed] if isinstance(listed, str) else list(listed)
                return [Path(Config._get_cfg_path(str(name), str(path))[0]) for name in names]
    return []


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, value


def _reads_of_bases(tree: ast.Module, text: str) -> Iterator[str]:
    yield from _TEMPLATE.findall(text)
    for node in ast.walk(tree):
        of_base = isinstance(node, (ast.Attribute, ast.Subscript)) and (
            isinstance(node.value, ast.Name) and node.value.id == "_base_"
        )
        if of_base and isinstance(node, ast.Attribute):
            yield node.attr
        elif of_base and isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            yield str(node.slice.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "_base_.get" and node.args:
            yield str(getattr(node.args[0], "value", ""))


def _constants(assigned: Mapping[str, ast.expr]) -> Iterator[tuple[str, object]]:
    """Dotted keys of dicts, and the values written there as they are: `train_cfg.val_interval`."""
    for name, value in assigned.items():
        if fields(value) is not None:
            yield from _leaves_of(name, value)


def fields(value: ast.expr) -> Mapping[str, ast.expr] | None:
    """The entries of `dict(a=1)` and `{"a": 1}`; None for other expressions."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        return {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg is not None}
    if isinstance(value, ast.Dict):
        return {
            str(key.value): item
            for key, item in zip(value.keys, value.values, strict=True)
            if isinstance(key, ast.Constant)
        }
    return None


def _leaves_of(key: str, value: ast.expr) -> Iterator[tuple[str, object]]:
    entries: Mapping[str, ast.expr] | None = fields(value)
    if entries is None:
        try:
            yield key, ast.literal_eval(value)
        except ValueError:  # not a constant
            return
        return
    for name, entry in entries.items():
        if name != "_delete_":
            yield from _leaves_of(f"{key}.{name}", entry)
