"""Pages of the API reference: one for each folder of the package, which mkdocstrings fills from the docstrings."""

from docs.site.sources import ROOT

#: Folder or file of the package -> what it is for. Registered parts are in the config reference.
ROOMS = {
    "inference": "Predicting images in Python.",
    "config": "Finding, loading, changing and checking configs.",
    "checkpoints": "Reading, checking and converting weights.",
    "runtime": "Running exported files.",
    "predictions": "Results as arrays and files.",
    "structures": "What parts hand to each other, and what a part must offer.",
    "core": "Functions on tensors.",
    "layers": "Modules without configs.",
    "errors": "Errors that tell a user what to change.",
    "files": "The only writer of files.",
}
#: Folders that serve others of their room and are called by nobody else.
INNER = ("kernels", "mmcv_operators")


def api_pages() -> dict[str, str]:
    """Page -> Markdown."""
    pages = {}
    for room, purpose in ROOMS.items():
        folder = ROOT / "mmseg_m2f" / room
        lines = [f"# mmseg_m2f.{room}", "", f"{purpose} Shapes are letters: see the [glossary](../../glossary.md).", ""]
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
        for path in files:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if path.name != "__init__.py" and path.parent.name not in INNER:
                lines += [f"::: {module}", ""]
        pages[f"reference/api/{room}.md"] = "\n".join(lines)
    return pages
