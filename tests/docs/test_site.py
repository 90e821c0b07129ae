"""The whole site: built without a warning, complete in itself, without a dead link."""

import html.parser
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.command_line import ROOT, environment

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Parser(html.parser.HTMLParser):
    """Collects what a page loads, what it links to, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {given["id"]} if given.get("id") else set()
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("script", "img", "link", "iframe") and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads += [value for key in ("src", "href") if (value := given.get(key))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Parser]:
    """The pages of the site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = environment() | dict(NO_MKDOCS_2_WARNING="1")
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return {page: Parser(page) for page in folder.rglob("*.html")}


def test_site__loads_nothing_from_elsewhere(site: dict[Path, Parser]) -> None:
    assert [(page.name, url) for page, found in site.items() for url in found.loads if "//" in url] == []


def test_site__has_no_dead_link(site: dict[Path, Parser]) -> None:
    dead = []
    for page, found in site.items():
        if page.name == "404.html":  # its links count from the root of a web server
            continue
        for url in [*found.links, *found.loads]:
            path, _, anchor = url.partition("#")
            if "//" in url or path.startswith(("mailto:", "data:")):
                continue
            target = Path(os.path.normpath(page.parent / unquote(path))) if path else page
            if target.is_dir():
                target /= "index.html"
            known = site[target].anchors if target in site else {anchor}
            if not target.exists() or (anchor and unquote(anchor) not in known):
                dead.append((page.name, url))
    assert dead == []


def test_site__code_in_tables_breaks_behind_marks(site: dict[Path, Parser]) -> None:
    [page] = [page for page in site if page.as_posix().endswith("methods/mask2former.html")]
    assert "<code>mask2former_<wbr>r18_<wbr>shapes_<wbr>demo</code>" in page.read_text(encoding="utf-8")


def test_site__draws_formulas_and_pictures(site: dict[Path, Parser]) -> None:
    pages = {page.relative_to(page.parents[1]).as_posix(): page.read_text(encoding="utf-8") for page in site}
    methods = [text for name, text in pages.items() if name.startswith("methods/") and "per_pixel" not in name]
    assert len(methods) == 11
    assert all("<math" in text for text in methods)
    assert "notebooks/first_steps.html" in pages
    assert "<img" in pages["notebooks/first_steps.html"]
