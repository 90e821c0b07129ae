"""How many threads PyTorch takes beside other programs.

PyTorch's threads wait for each other actively: where another program holds one of the processors, all of them spin
until the slowest is done, and a training takes several times longer than its share of the machine. So tools leave busy
processors alone, and let threads sleep while they wait. Both are settings that OpenMP reads when it starts; this module
imports nothing that starts it.
"""

import os
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

_STATISTICS = Path("/proc/stat")
_WATCHED_SECONDS = 0.25
#: Below so many busy processors the machine counts as quiet.
_QUIET = 0.5
_SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")

#: What was decided, for the log of a run; empty on a quiet machine, or where the user has decided.
decision = ""


def share_processors(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set `OMP_NUM_THREADS` and `OMP_WAIT_POLICY` where other programs run; call it before torch is imported.

    Nothing happens on a quiet machine, where either is set already, or where torch has been imported.
    """
    global decision
    if "torch" in sys.modules or any(name in environ for name in _SETTINGS):
        return
    busy = busy_processors()
    if busy is None or busy < _QUIET:
        return
    processors = len(os.sched_getaffinity(0))
    threads = max(processors - round(busy), 1)
    environ["OMP_NUM_THREADS"], environ["OMP_WAIT_POLICY"] = str(threads), "PASSIVE"
    taken = "1 thread" if threads == 1 else f"{threads} threads, which sleep while they wait"
    decision = (
        f"Other programs keep {busy:.1f} of {processors} processors busy: PyTorch takes {taken}. "
        "Or set OMP_NUM_THREADS yourself."
    )


def busy_processors(statistics: Path = _STATISTICS, *, seconds: float = _WATCHED_SECONDS) -> float | None:
    """How many processors all programs together keep busy, over a moment; None where the system does not tell."""
    if not statistics.is_file():
        return None
    first = _ticks(statistics)
    time.sleep(seconds)
    last = _ticks(statistics)
    idle, total = (after - before for before, after in zip(first, last, strict=True))
    return (os.cpu_count() or 1) * (1 - idle / total) if total > 0 else None


def _ticks(statistics: Path) -> tuple[int, int]:
    """Idle and all ticks of all processors together."""
    first = statistics.read_text(encoding="ascii").split("\n", 1)[0].split()
    numbers = [int(number) for number in first[1:9]]  # user nice system idle iowait irq softirq steal
    return numbers[3] + numbers[4], sum(numbers)
