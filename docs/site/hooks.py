"""MkDocs' hooks: pages that stand elsewhere in the repository or are written from the code, and links between them."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.site.api_pages import api_pages
from docs.site.error_index import error_entries, error_page
from docs.site.notebook_pages import notebook_pages
from docs.site.option_reference import option_page, registered_parts
from docs.site.sources import PAGES, ROOT, site_markdown, source_of

_CELL = re.compile(r"<td.*?</td>", re.DOTALL)
_CODE = re.compile(r"(?<=<code>)[^<]*")
_MARK = re.compile(r"[_/.,=(\[](?=\w)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that `docs/` does not hold."""
    pages: dict[str, str | bytes] = {
        page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items() if (ROOT / source).is_file()
    }
    pages["reference/errors.md"] = error_page(error_entries())
    pages["reference/config.md"] = option_page(registered_parts())
    pages |= api_pages()
    pages |= notebook_pages()
    for name, content in pages.items():
        if (standing := files.get_file_from_path(name)) is not None:
            files.remove(standing)
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links between files of the repository lead to their pages."""
    name = page.file.src_uri
    return markdown if name.startswith(("reference/", "notebooks/")) else site_markdown(markdown, source_of(name))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let code in tables break behind marks, such as those of paths and names, and not within words."""
    return _CELL.sub(lambda cell: _CODE.sub(lambda code: _MARK.sub(r"\g<0><wbr>", code[0]), cell[0]), html)
