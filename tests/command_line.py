"""Running the tools as a user does, on one thread; the package need not be installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=paths)


def run(*command: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; fails with the end of its output unless its exit status is `expect`."""
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def run_tool(name: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `tools/<name>.py`."""
    return run(sys.executable, f"tools/{name}.py", *arguments, expect=expect)
