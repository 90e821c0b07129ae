"""The index of error messages: each text in the code that a `UserError` is raised with, its cause, and what to do."""

import ast
import html
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from docs.site.sources import ROOT

PACKAGE = ROOT / "mmseg_m2f"
#: Folder or file of the package -> heading, in the order of the page.
AREAS = {
    "config": "Configs and options",
    "datasets": "Data and annotations",
    "samples": "Data and annotations",
    "checkpoints": "Checkpoints and weights",
    "models": "Models",
    "layers": "Models",
    "core": "Models",
    "structures": "Models",
    "engine": "Training",
    "evaluation": "Metrics",
    "inference": "Prediction",
    "predictions": "Prediction",
    "visualization": "Pictures",
    "export": "Export and exported files",
    "runtime": "Export and exported files",
    "migration": "Migration",
    "analysis": "Analysis",
    "benchmark": "Benchmarks",
    "command_line": "Command line",
    "compat": "Installation",
    "registry": "Installation",
    "files": "Files and machine",
    "json_files": "Files and machine",
    "processors": "Files and machine",
}


class ErrorEntry(NamedTuple):
    """One message: `…` stands for what is filled in when it is raised."""

    area: str
    kind: str
    text: str
    cause: str
    remedy: str


def error_classes(trees: dict[Path, ast.Module]) -> set[str]:
    """The names of `UserError`'s subclasses, at any depth."""
    bases = {
        node.name: {ast.unparse(base).split(".")[-1] for base in node.bases}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"UserError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found - {"UserError"}


def error_entries(package: Path = PACKAGE) -> list[ErrorEntry]:
    """Every message of the package, in the order of areas, files and lines."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    kinds = error_classes(trees)
    entries = []
    for path, tree in trees.items():
        area = AREAS.get(path.relative_to(package).parts[0].removesuffix(".py"), "Others")
        module = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
        for place, call in _calls(tree, kinds, _Place(module)):
            for text in _texts(call.args[0], place.function):
                message, remedy = split_message(text)
                entries.append(ErrorEntry(area, ast.unparse(call.func), message, _cause(place), remedy))
    order = [*dict.fromkeys(AREAS.values()), "Others"]
    return sorted(dict.fromkeys(entries), key=lambda entry: order.index(entry.area))


class _Place(NamedTuple):
    """Where in a file something stands: the nearest documentation around it, function and condition."""

    summary: str
    function: ast.AST | None = None
    condition: str = ""


def _calls(tree: ast.AST, kinds: set[str], place: _Place) -> Iterator[tuple[_Place, ast.Call]]:
    """Calls that make an error, each with its place."""
    for node in ast.iter_child_nodes(tree):
        inside = place
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            document = ast.get_docstring(node)
            summary = " ".join(document.split("\n\n")[0].split()) if document else place.summary
            inside = _Place(summary, node if isinstance(node, ast.FunctionDef) else None)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in kinds and node.args:
            yield place, node
        if isinstance(node, ast.If):
            yield from _calls_below([node.test], kinds, inside)
            yield from _calls_below(node.body, kinds, inside._replace(condition=ast.unparse(node.test)))
            yield from _calls_below(node.orelse, kinds, inside._replace(condition=f"not ({ast.unparse(node.test)})"))
        else:
            yield from _calls(node, kinds, inside)


def _calls_below(nodes: Sequence[ast.AST], kinds: set[str], place: _Place) -> Iterator[tuple[_Place, ast.Call]]:
    block = ast.Module(body=list(nodes), type_ignores=[])  # type: ignore[arg-type]
    yield from _calls(block, kinds, place)


def _texts(node: ast.expr, function: ast.AST | None) -> list[str]:
    """The literal texts that an expression can have, `…` for all that is computed."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
        return ["".join(parts)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in _texts(node.left, function) for b in _texts(node.right, function)]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, function), *_texts(node.orelse, function)]
    if isinstance(node, ast.Name) and function is not None:
        values = [
            statement.value
            for statement in ast.walk(function)
            if isinstance(statement, ast.Assign) and any(ast.unparse(target) == node.id for target in statement.targets)
        ]
        return [text for value in values for text in _texts(value, None)]
    return []


def split_message(text: str) -> tuple[str, str]:
    """What a message says, and what it says to do: all after its first sentence."""
    found = re.search(r"(?<![ .][a-z])[.;](?= [A-Z…-])", text)
    if found is None:
        return text.strip(), ""
    return text[: found.end()].strip(), text[found.end() :].strip(" …")


def _cause(place: _Place) -> str:
    """What the code around it does, and the condition under which it raises."""
    condition = place.condition if len(place.condition) <= 90 and not place.condition.isidentifier() else ""
    return f"{place.summary}\n{condition}".strip()


def expected(text: str) -> str:
    """The part of a message that says what was expected; empty if it does not say."""
    found = re.search(
        r"(?:expected|must be|is a|needs|has only) (.*?)(?:, got |, because |\.$|; |$)", text, re.IGNORECASE
    )
    return found[1] if found else ""


def error_page(entries: list[ErrorEntry]) -> str:
    """The page, as Markdown."""
    groups: dict[str, list[ErrorEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.area].append(entry)
    lines = [
        "# Error messages",
        "",
        "Every message with which this package refuses something on purpose, written from its code. `…` stands for",
        "what is filled in. Search this page for the part of a message that does not change. The cause is what the",
        "code around it does, and the condition that raises it. Other errors are faults of the program: report them.",
        "",
    ]
    for area, members in groups.items():
        lines += [f"## {area}", "", "| Message | Cause | What to do |", "|---|---|---|"]
        for entry in members:
            summary, _, condition = entry.cause.partition("\n")
            cause = f"{table_cell(summary)} Raised where {table_code(condition)}." if condition else table_cell(summary)
            lines.append(f"| {table_code(entry.text)} | {cause} | {table_cell(remedy_of(entry))} |")
        lines.append("")
    return "\n".join(lines)


def remedy_of(entry: ErrorEntry) -> str:
    """What to do: the message's own words, or to give what it expects."""
    if entry.remedy:
        return entry.remedy
    wanted = expected(entry.text)
    return f"Give what is expected: {wanted}." if wanted.strip("… ") else "Change what the message names."


def table_code(text: str) -> str:
    """Code in a cell: a bar in it would end the cell."""
    return f"<code>{html.escape(' '.join(text.split()), quote=False)}</code>".replace("|", "&#124;") if text else ""


def table_cell(text: str) -> str:
    """Text of a cell: marks of Markdown as they are, but for code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [part if part.startswith("`") else re.sub(r"([<>*_])", r"\\\1", part) for part in parts]
    return "".join(plain).replace("|", "\\|")
