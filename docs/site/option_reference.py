"""The reference of all `type`s that configs can name: arguments with types and defaults, read from the code."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.site.error_index import table_cell, table_code
from docs.site.sources import ROOT

PACKAGE = ROOT / "mmseg_m2f"
#: Registry -> heading, in the order of the page.
REGISTRIES = {
    "MODELS": "Models and their parts",
    "TASK_UTILS": "Assigners, match costs and sampling",
    "DATASETS": "Data sets",
    "TRANSFORMS": "Transforms",
    "METRICS": "Metrics",
    "HOOKS": "Hooks",
    "OPTIM_WRAPPERS": "Optimizer wrappers",
    "OPTIM_WRAPPER_CONSTRUCTORS": "Optimizer constructors",
    "VISUALIZERS": "Visualizers",
}


class Argument(NamedTuple):
    """One argument of a constructor; `default` is None where it has to be given."""

    name: str
    kind: str
    default: str | None
    meaning: str


class PartEntry(NamedTuple):
    """One registered class or function."""

    registry: str
    name: str
    module: str
    summary: str
    arguments: tuple[Argument, ...]


def registered_parts(package: Path = PACKAGE) -> list[PartEntry]:
    """All of them, by registry, file and line."""
    parts = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                parts += [_part(node, registry, name, module) for registry, name in _registrations(node)]
    order = list(REGISTRIES)
    return sorted(parts, key=lambda part: order.index(part.registry))


def _registrations(node: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for decorator in node.decorator_list:
        found = re.fullmatch(r"(\w+)\.register_module\((?:name=['\"](\w+)['\"])?.*\)", ast.unparse(decorator))
        if found and found[1] in REGISTRIES:
            yield found[1], found[2] or node.name


def _part(node: ast.ClassDef | ast.FunctionDef, registry: str, name: str, module: str) -> PartEntry:
    document = ast.get_docstring(node) or ""
    constructor: ast.FunctionDef | None = node if isinstance(node, ast.FunctionDef) else None
    fields: list[Argument] = []
    if isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        constructor = methods[0] if methods else None
        fields = [
            Argument(item.target.id, ast.unparse(item.annotation), ast.unparse(item.value) if item.value else None, "")
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]
    meanings = argument_meanings(document + "\n\n" + (ast.get_docstring(constructor) or "" if constructor else ""))
    arguments = list(_arguments(constructor)) if constructor else fields
    return PartEntry(
        registry,
        name,
        module,
        " ".join(document.split("\n\n")[0].split()),
        tuple(argument._replace(meaning=meanings.get(argument.name, "")) for argument in arguments),
    )


def _arguments(function: ast.FunctionDef) -> Iterator[Argument]:
    positional = [*function.args.posonlyargs, *function.args.args]
    defaults = [None] * (len(positional) - len(function.args.defaults)) + list(function.args.defaults)
    for argument, default in zip(
        [*positional, *function.args.kwonlyargs], [*defaults, *function.args.kw_defaults], strict=True
    ):
        if argument.arg != "self":
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            yield Argument(argument.arg, kind, ast.unparse(default) if default else None, "")
    if function.args.kwarg:
        yield Argument(f"**{function.args.kwarg.arg}", "", "", "The arguments of the class that it extends.")


def argument_meanings(document: str) -> dict[str, str]:
    """The explanations below `Args:`, by argument."""
    meanings: dict[str, str] = {}
    for block in re.findall(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", document, re.MULTILINE):
        for names, text in re.findall(r"^ {4}([\w*, ]+): (.*(?:\n {8,}.*)*)", block, re.MULTILINE):
            meanings |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return meanings


def option_page(parts: list[PartEntry]) -> str:
    """The page, as Markdown."""
    groups: dict[str, list[PartEntry]] = defaultdict(list)
    for part in parts:
        groups[part.registry].append(part)
    lines = [
        "# Config reference",
        "",
        "Every `type` of this package that a config can name, with the arguments of its constructor, written from",
        "the code. Arguments without a default have to be given, by the config or by the part that holds this one.",
        "What goes for a whole config, such as `crop_size` or `max_iters`, are [options](../configs.md#options).",
        "",
    ]
    for registry, members in groups.items():
        lines += [f"## {REGISTRIES[registry]}", ""]
        for part in members:
            lines += [f"### `mmseg_m2f.{part.name}`", "", f"{part.summary} (`{part.module}`)", ""]
            if part.arguments:
                lines += ["| Argument | Type | Default | Meaning |", "|---|---|---|---|"]
                lines += [_row(argument) for argument in part.arguments]
                lines.append("")
    return "\n".join(lines)


def _row(argument: Argument) -> str:
    cells = (table_code(argument.name), table_code(argument.kind), _default(argument), table_cell(argument.meaning))
    return f"| {' | '.join(cells)} |"


def _default(argument: Argument) -> str:
    return "required" if argument.default is None else table_code(argument.default)
