"""Work in a process of its own, with limits of time and memory: why it failed, and which served operators it called."""

import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmseg_m2f import compat
from mmseg_m2f.files import save_json
from mmseg_m2f.json_files import read_json

_LONGEST_REASON = 300
_PATIENCE = 10.0  # times the seconds of a processor that a stage may take on a busy machine


@dataclass(frozen=True)
class Limits:
    """What a trial may use.

    Args:
        sides: of the generated images, in pixels, ascending; the next is tried where a model does not take one.
        seconds: of a processor, of each stage.
        gigabytes: of memory of each process.
    """

    sides: tuple[int, ...] = (64, 256, 640)
    seconds: float = 300.0
    gigabytes: float = 12.0


@dataclass(frozen=True)
class StageResult:
    """What came of a stage.

    Args:
        reason: of the failure; empty where the stage works.
        operators: those of `mmcv._ext` that the stage called and that this package computes, sorted. Without this
            package the first of them raises. Unknown, hence empty, where the stage ran into a limit.
    """

    reason: str = ""
    operators: tuple[str, ...] = ()


def stored_result(stored: Mapping[str, Any]) -> StageResult:
    """A result that was stored as JSON, by `vars`."""
    return StageResult(stored["reason"], tuple(stored["operators"]))


def run_limited(
    work: Callable[[], Mapping[str, object] | None], log: Path, limits: Limits, *, stages: int = 1
) -> tuple[StageResult, Mapping[str, Any]]:
    """Do `work` in a forked process that may take the time of so many stages; gives its result, and what it returned.

    What the work prints, and the traceback of an exception that ends it, is appended to `log`. The last line of that is
    the reason.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    report = log.with_name(log.name + ".report.json")
    report.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work, log, report, limits))
    process.start()
    process.join(_PATIENCE * limits.seconds * stages)
    if process.is_alive():
        process.kill()
        process.join()
        return StageResult(f"more than {_PATIENCE * limits.seconds * stages:.0f} s by the clock"), {}
    found: dict[str, Any] = {}
    if report.exists():
        found = read_json(report, what="the report of a trial", remedy="Run the command again.")
    report.unlink(missing_ok=True)
    if process.exitcode == 0:
        return stored_result(found), found["returned"]
    if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return StageResult(f"more than {limits.seconds:.0f} s of a processor"), {}
    if found:
        return stored_result(found), {}
    signalled = -(process.exitcode or 0)
    return StageResult(f"ended by signal {signalled}: more than {limits.gigabytes:g} GB of memory, or a crash"), {}


class _ServedOperators(logging.Handler):
    """Keeps the names of the operators that `compat` says it serves."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("mmcv._ext.%s") and isinstance(record.args, tuple):
            self.names.add(str(record.args[0]))


def _child(work: Callable[[], Mapping[str, object] | None], log: Path, report: Path, limits: Limits) -> None:
    """Set limits, send what is printed to the log, do the work, and leave the result in `report`."""
    most = int(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    used = int(time.process_time() + limits.seconds)  # a fork starts at 0, the system counts whole seconds
    resource.setrlimit(resource.RLIMIT_CPU, (used + 1, resource.RLIM_INFINITY))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.manual_seed(0)
    served = _ServedOperators()
    compat.log_served.cache_clear()  # a fork remembers what the first process said
    logger = logging.getLogger("mmseg_m2f")
    logger.setLevel(logging.INFO)
    logger.addHandler(served)
    returned: Mapping[str, object] | None = None
    try:
        returned = work()
    finally:
        error = sys.exc_info()[1]
        line = "" if error is None else " ".join("".join(traceback.format_exception_only(error)).split())
        found = dict(reason=line[:_LONGEST_REASON], operators=sorted(served.names), returned=dict(returned or {}))
        save_json(found, report)
        sys.stdout.flush()
        sys.stderr.flush()
