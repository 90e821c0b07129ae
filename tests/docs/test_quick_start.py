"""The quick start's commands give the output that the page shows."""

import re
import shutil
from pathlib import Path

import pytest

from docs.site.run_quick_start import PAGE, commands, run_command, with_outputs
from tests.command_line import ROOT


def without_numbers(text: str) -> str:
    """What does not depend on machine, time and rounding, which also order the classes."""
    text = re.sub(r"(Best|Worst) classes:.*", r"\1 classes", text)
    return re.sub(r"[\d.:]*\d[\d.:]*", "0", re.sub(r" +", " ", text))


@pytest.mark.e2e
@pytest.mark.exhaustive  # two minutes: tests/tools runs the same tools each time
def test_page__shows_what_its_commands_print(tmp_path: Path) -> None:
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/demo.jpg", tmp_path / "docs")
    page = PAGE.read_text(encoding="utf-8")
    assert len(commands(page)) == 4
    found = with_outputs(page, lambda command: run_command(command, tmp_path))
    assert without_numbers(found) == without_numbers(page)


def test_outputs__are_cut_to_their_end() -> None:
    page = "a\n<!-- run -->\n```console\n$ ls x\nold\n```\nb\n"
    assert with_outputs(page, lambda command: "one\ntwo \n") == page.replace("old", "one\ntwo")
    long = with_outputs(page, lambda command: "\n".join(str(number) for number in range(20)))
    assert "$ ls x\n…\n12\n13" in long
