"""Files of the repository as pages: their links lead to pages."""

import pytest

from docs.site.sources import page_of, site_markdown, source_of


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("README.md", "index.md"),
        ("docs/tasks/semantic.md", "tasks/semantic.md"),
        ("configs/cac/README.md", "methods/cac.md"),
        ("configs/cac", "methods/cac.md"),
        ("docs/notebooks/export.ipynb", "notebooks/export.md"),
        ("docs/demo.jpg", "demo.jpg"),
        ("mmseg_m2f/errors.py", None),
        ("LICENSE", None),
    ],
)
def test_page_of(path: str, page: str | None) -> None:
    assert page_of(path) == page


def test_source_of__is_its_opposite() -> None:
    assert source_of("index.md") == "README.md"
    assert source_of("methods/cac.md") == "configs/cac/README.md"
    assert source_of("configs.md") == "docs/configs.md"


def test_site_markdown__relinks_outside_of_code() -> None:
    text = "[a](../../docs/heads.md#camvid) "
    text += "[b](../cac) [c](#x) [d](https://e.org) [l](../../LICENSE)\n```\n[a](../x)\n```\n"
    wanted = "[a](../heads.md#camvid) [b](cac.md) [c](#x) [d](https://e.org) l\n```\n[a](../x)\n```\n"
    assert site_markdown(text, "configs/segnext/README.md") == wanted
    assert site_markdown("![p](docs/demo.jpg)", "README.md") == "![p](demo.jpg)"
