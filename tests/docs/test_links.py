"""Links between the Markdown files of the repository lead somewhere."""

import re
from pathlib import Path

import pytest

from docs.site.sources import links
from tests.command_line import ROOT

FILES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*/README.md"), *ROOT.glob(".github/**/*.md")]
)


def anchors(markdown: str) -> set[str]:
    """The names of the headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    names = set()
    for title in re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).strip().lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if name in found else name)
        found[name] = found.get(name, 0) + 1
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links__lead_to_files_and_headings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    dead = []
    for target in links(text):
        if re.match(r"(https?|mailto):", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        named = (
            anchors(linked.read_text(encoding="utf-8"))
            if anchor and linked.suffix == ".md" and linked.exists()
            else {anchor}
        )
        if not linked.exists() or anchor not in named:
            dead.append(target)
    assert dead == []


def test_links__of_a_text() -> None:
    text = "[a](b.md#c) ![p](q.png)\n```bash\n[no](x)\n```\n`[no](y)` [`code`](z.md) [![i](j.png)](k.md)"
    assert sorted(links(text)) == ["b.md#c", "k.md", "q.png", "z.md"]


def test_anchors__of_headings() -> None:
    text = "# Other people's checkpoints\n## Speed\n## Speed\n```\n# no\n```\n## `a_b`, c"
    assert anchors(text) == {"other-peoples-checkpoints", "speed", "speed-1", "a_b-c"}
