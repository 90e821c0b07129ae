"""Which file of the repository is which page of the site, and links between them."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Files outside of `docs/` -> their pages. Those of the methods follow from the folders of `configs/`.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "CHANGELOG.md": "project/changelog.md",
    **{
        f"configs/{readme.parent.name}/README.md": f"methods/{readme.parent.name}.md"
        for readme in sorted(ROOT.glob("configs/*/README.md"))
    },
}
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\(([^)\s]+)\)")


def page_of(path: str) -> str | None:
    """The page of a file or folder of the repository; None if it has none."""
    if path in PAGES:
        return PAGES[path]
    if f"{path}/README.md" in PAGES:
        return PAGES[f"{path}/README.md"]
    if path.startswith("docs/notebooks/") and path.endswith(".ipynb"):
        return path.removeprefix("docs/").removesuffix(".ipynb") + ".md"
    return path.removeprefix("docs/") if path.startswith("docs/") and (ROOT / path).is_file() else None


def source_of(page: str) -> str:
    """The file of the repository that a page stands in."""
    return {page: source for source, page in PAGES.items()}.get(page, f"docs/{page}")


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """A text of which all but the fenced code is changed."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def links(markdown: str) -> list[str]:
    """The targets of all links and pictures outside of code."""
    found: list[str] = []

    def collect(text: str) -> str:
        found.extend(match[3] for match in _LINK.finditer(re.sub(r"`[^`\n]*`(?!\])", "", text)))
        return text

    outside_code(markdown, collect)
    return found


def site_markdown(markdown: str, source: str) -> str:
    """A file's Markdown as its page: links lead to pages; a link to a file without a page is its text alone."""
    page = page_of(source) or source

    def relink(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        linked = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if linked is None:
            return text
        return f"{picture}[{text}]({posixpath.relpath(linked, posixpath.dirname(page) or '.')}{mark}{anchor})"

    return outside_code(markdown, lambda text: _LINK.sub(relink, text))
