"""Notebooks as pages, with the output that they hold."""

import base64
from collections.abc import Iterator

import nbformat

from docs.site.sources import ROOT

NOTEBOOKS = ROOT / "docs/notebooks"
_OTHERS = ("Could not import OneDL", "Loads checkpoint by ")  # what mmdet and mmengine print


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
    """Texts and pictures (PNG) of a cell; texts that follow each other together, without lines of other libraries."""
    text = ""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            if text:
                yield text, b""
            yield "", base64.b64decode(data["image/png"])
            text = ""
        else:
            lines = (output.get("text") or data.get("text/plain") or "").splitlines(keepends=True)
            text += "".join(line for line in lines if not line.startswith(_OTHERS))
    if text:
        yield text, b""
