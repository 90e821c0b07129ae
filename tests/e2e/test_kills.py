import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


def test_train__survives_kills(tmp_path: Path) -> None:
    command = [sys.executable, "tests/e2e/kills.py", "10", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills, 0 faults" in done.stdout
