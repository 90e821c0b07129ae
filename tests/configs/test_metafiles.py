"""`mim`'s look-up: from `model-index.yml` over the metafiles to every published config."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmseg_m2f.config.finding import published_configs
from tests.configs.metafiles import INDEX, MEASURED, NOT_RUN, PUBLISHED, ROOT, folders, index, metafile, read, section


def models() -> Iterator[dict[str, Any]]:
    """As mim reads them: the index, the files it imports, their models."""
    for name in read(INDEX)["Import"]:
        yield from read(INDEX.parent / name)["Models"]


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_metafile__says_what_the_leaves_say(folder: Path) -> None:
    assert read(folder / "metafile.yml") == metafile(folder), "python -m tests.configs.metafiles"


def test_index__names_every_metafile() -> None:
    assert read(INDEX) == index()


def test_index__finds_every_published_config_by_name() -> None:
    found = {model["Name"]: ROOT / model["Config"] for model in models()}
    assert found == published_configs()


def test_collections__are_those_of_the_models() -> None:
    for folder in folders():
        content = read(folder / "metafile.yml")
        names = {collection["Name"] for collection in content["Collections"]}
        assert {model["In Collection"] for model in content["Models"]} == names
        assert all((ROOT / collection["README"]).is_file() for collection in content["Collections"])


def test_metrics__are_the_published_ones_of_the_readme() -> None:
    for model in models():
        metrics = {name: value for result in model["Results"] for name, value in result["Metrics"].items()}
        figures = model["Metadata"]["Figures"]
        assert (figures == PUBLISHED) == bool(metrics)
        assert figures in (PUBLISHED, MEASURED, NOT_RUN)
        text = section((ROOT / model["Config"]).with_name("README.md").read_text(encoding="utf-8"), "Published")
        rows = [row for row in text.splitlines() if f"`{model['Name']}`" in row and row.startswith("|")]
        for value in metrics.values():
            assert re.search(rf"(?<![\d.]){value}0*(?!\d|\.\d)", "\n".join(rows) or text), (model["Name"], value)
