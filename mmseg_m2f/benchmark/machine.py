"""What a measurement ran on, and whether the machine is quiet enough for one."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mmseg_m2f.errors import InvalidValueError

_PACKAGES = ("onedl-mmengine", "onedl-mmdetection", "onedl-mmsegmentation", "mmengine", "mmdet", "mmsegmentation")


def check_load(threads: int, *, even_if_loaded: bool) -> None:
    """Refuse a machine on which other programs would take time from the measured one.

    Raises:
        ValueError: the load average of the last minute leaves fewer than `threads` cores free, or `threads` is no
            number of cores.
    """
    cores, load = num_cores(), os.getloadavg()[0]
    if not 1 <= threads <= cores:
        raise InvalidValueError(f"threads: expected 1…{cores}, the cores of this process, got {threads}.")
    if load > cores - threads and not even_if_loaded:
        raise InvalidValueError(
            f"This machine is busy: expected a load average of at most {cores - threads} ({cores} cores less {threads} "
            f"threads), got {load:.2f}. Wait until it falls, or give --even-if-loaded; the load is then printed "
            "with the figures."
        )


def describe_machine(threads: int, device: str) -> dict[str, object]:
    """Processor, versions, load and time, for the report."""
    return dict(
        processor=_processor(),
        cores=num_cores(),
        gpu=torch.cuda.get_device_name() if device == "cuda" else None,
        threads=threads,
        load_before=os.getloadavg()[0],
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        python=platform.python_version(),
        torch=torch.__version__,
        packages={name: found for name in (*_PACKAGES, "transformers") if (found := _version(name))},
    )


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
