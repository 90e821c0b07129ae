"""The notebooks run, and the site shows what they print and draw."""

from pathlib import Path

import nbformat
import pytest

from docs.site.notebook_pages import NOTEBOOKS, notebook_pages
from docs.site.run_notebooks import run_notebook

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of outputs of each cell."""
    return [
        sorted({kind for output in cell.outputs for kind in output.get("data", {"text": ""})})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_notebook__runs_and_gives_what_it_holds(path: Path, tmp_path: Path) -> None:
    assert printed(run_notebook(path, tmp_path)) == printed(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_notebook__holds_its_output_and_no_error(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" for output in outputs)
    assert path.stat().st_size < 800_000
    assert notebook.cells[0].source.startswith("# ")


def test_pages__have_pictures_beside_them() -> None:
    pages = notebook_pages()
    assert {name for name in pages if name.endswith(".md")} == {f"notebooks/{path.stem}.md" for path in FILES}
    text = pages["notebooks/first_steps.md"]
    pictures = [name for name in pages if name.startswith("notebooks/first_steps_")]
    assert isinstance(text, str)
    assert "```text\niterations: 40\n```" in text  # without what other libraries print
    assert pictures
    assert all(f"]({Path(name).name})" in text for name in pictures)
