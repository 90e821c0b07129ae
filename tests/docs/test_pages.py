"""Every page has the skeleton of its kind."""

import ast
import itertools
import re
from pathlib import Path

import pytest
import yaml

from docs.site.sources import PAGES, ROOT, outside_code
from mmseg_m2f.config.finding import published_configs

METHOD = [
    "Train and predict",
    "Measured here",
    "Published, not trained here",
    "Differences from the release",
    "Variants",
]
TASK = ["Train", "Evaluate", "Predict", "Your own data", "Export"]
PAGE_FILES = sorted(
    [*(ROOT / "docs").glob("**/*.md"), *(ROOT / source for source in PAGES if (ROOT / source).is_file())]
)


def without_code(path: Path) -> str:
    """The text of a page without its fenced code."""
    kept: list[str] = []
    outside_code(path.read_text(encoding="utf-8"), lambda text: kept.append(text) or text)
    return "".join(kept)


def headings(path: Path, level: int) -> list[str]:
    return re.findall(rf"^#{{{level}}} (.*)$", without_code(path), re.MULTILINE)


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page__has_one_title_then_what_it_is_about(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# \S.*\n\n", text), "the first line is the title, the second is empty"
    assert len(headings(path, 1)) == 1
    levels = [len(marks) for marks in re.findall(r"^(#+) ", without_code(path), re.MULTILINE)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "a level is skipped"


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page__names_the_language_of_its_code(path: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= {"bash", "console", "python", "text", "math"}


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_tasks__share_their_headings(task: str) -> None:
    assert headings(ROOT / f"docs/tasks/{task}.md", 2) == TASK


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*/README.md")), ids=lambda path: path.parent.name)
def test_methods__share_their_headings(path: Path) -> None:
    found = [heading for heading in headings(path, 2) if heading in METHOD]
    needed = ["Train and predict", "Measured here"] if path.parent.name == "per_pixel" else METHOD
    assert found == needed
    if path.parent.name != "per_pixel":  # heads of mmseg: their formula is a sentence
        assert "```math\n" in path.read_text(encoding="utf-8").partition("\n## ")[0], "the formula comes first"


def test_pages__python_in_them_can_be_read() -> None:
    for path in PAGE_FILES:
        for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            ast.parse(code.replace("…", "..."))


def test_pages__name_configs_that_exist() -> None:
    known = {*published_configs()}
    for path in (ROOT / "docs").glob("tasks/*.md"):
        assert set(re.findall(r"\b(?:mask2former|segnext)_\w+[\w-]*", path.read_text(encoding="utf-8"))) <= known


def test_navigation__has_every_page() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    nav = str(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    for path in (ROOT / "docs").glob("**/*.md"):
        assert f"'{path.relative_to(ROOT / 'docs').as_posix()}'" in nav
    for page in PAGES.values():
        assert f"'{page}'" in nav
