"""Run the notebooks and store what they print and draw: `python -m docs.site.run_notebooks` (`make notebooks`)."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from docs.site.notebook_pages import NOTEBOOKS
from docs.site.sources import ROOT


def run_notebook(path: Path, folder: Path, *, timeout_s: int = 1200) -> nbformat.NotebookNode:
    """A notebook with the output of its cells, run in a folder with the package of this checkout.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    paths = [str(ROOT), *filter(None, sys.path)]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout_s, resources=dict(metadata=dict(path=str(folder)))).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def main() -> None:
    """Run all of them, each in a folder of its own."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run_notebook(path, Path(folder)), path)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
