"""Run the commands of the quick start and store their output: `python -m docs.site.run_quick_start`."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from docs.site.sources import ROOT

PAGE = ROOT / "docs/quick_start.md"
#: Lines of an output that the page shows, the last ones.
SHOWN_LINES = 8
_BLOCK = re.compile(r"(<!-- run -->\n```console\n)\$ ([^\n]*)\n(.*?)(```)", re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page, in their order."""
    return [match[2] for match in _BLOCK.finditer(page)]


def with_outputs(page: str, output_of: Callable[[str], str]) -> str:
    """The page with the end of the output of each command."""

    def fill(match: re.Match[str]) -> str:
        lines = [line.rstrip() for line in output_of(match[2]).strip().splitlines()]
        skipped = ["…"] if len(lines) > SHOWN_LINES else []
        shown = "\n".join(["$ " + match[2], *skipped, *lines[-SHOWN_LINES:]])
        return f"{match[1]}{shown}\n{match[4]}"

    return _BLOCK.sub(fill, page)


def run_command(command: str, folder: Path) -> str:
    """The standard output of a command of the page, run in a folder where the paths of a checkout exist."""
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, sys.path)]), OMP_NUM_THREADS="1"
    )
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    printed = done.stdout.replace(f"{folder}{os.sep}", "")
    return "\n".join(line for line in printed.splitlines() if line != "Could not import OneDL")  # mmengine's notice


def main() -> None:
    """Store the outputs."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_outputs(page, lambda command: run_command(command, ROOT)), encoding="utf-8")


if __name__ == "__main__":
    main()
