"""Notebooks as pages, with the output that they hold."""

import base64
from collections.abc import Iterator

import nbformat

from docs.site.sources import ROOT

NOTEBOOKS = ROOT / "docs/notebooks"


def notebook_pages() -> dict[str, str | bytes]:
    """Page or picture -> content."""
    pages: dict[str, str | bytes] = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        title, _, rest = notebook.cells[0].source.partition("\n\n")
        blocks = [title, f"This page is a [notebook]({path.name}).", rest]
        for index, cell in enumerate(notebook.cells[1:], start=1):
            if cell.cell_type == "markdown":
                blocks.append(cell.source)
                continue
            blocks.append(f"```python\n{cell.source}\n```")
            for number, (text, picture) in enumerate(_outputs(cell)):
                if picture:
                    name = f"{path.stem}_{index}_{number}.png"
                    pages[f"notebooks/{name}"] = picture
                    blocks.append(f"![Output of the cell above]({name})")
                else:
                    blocks.append(f"```text\n{text.rstrip()}\n```")
        pages[f"notebooks/{path.stem}.md"] = "\n\n".join(blocks) + "\n"
    return pages


def _outputs(cell: nbformat.NotebookNode) -> Iterator[tuple[str, bytes]]:
    """Of each output its text, or its picture (PNG)."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield "", base64.b64decode(data["image/png"])
        elif text := output.get("text") or data.get("text/plain"):
            yield text, b""
