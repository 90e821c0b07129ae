import runpy
import sys
from collections.abc import Callable

import pytest

from tests.benchmark.tiny import ROOT


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        """Run the tool in this process and give its exit status."""
        monkeypatch.setattr(sys, "argv", ["tools/benchmark.py", *arguments])
        try:
            runpy.run_path(str(ROOT / "tools/benchmark.py"), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run
