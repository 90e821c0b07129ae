"""Peak memory of a training step and of inference, above what model, gradients and optimizer hold anyway."""

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from mmseg_m2f.benchmark.implementations import build_all
from mmseg_m2f.benchmark.implementations.interface import Implementation
from mmseg_m2f.benchmark.setting import Batch, Setting, make_batch
from mmseg_m2f.benchmark.timing import run_inference, train_step
from mmseg_m2f.errors import InvalidValueError

_STATUS = Path("/proc/self/status")
_RECORDING_STEPS = 2  # after these CUDA graphs are recorded
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_above(run: Callable[[], object], device: str = "cpu") -> int:
    """Bytes that `run` needs at its peak, beyond those held before.

    On the CPU this is resident memory of the whole process: pages that torch keeps for reuse lower it, so measure in
    a fresh process, after a small warm-up.

    Raises:
        ValueError: on the CPU, elsewhere than on Linux.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        for _ in range(_RECORDING_STEPS):
            run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() + _unused_in_graphs() - before
    if not _CLEAR_REFS.exists():
        raise InvalidValueError(
            f"Peak memory is read from /proc, which {sys.platform} lacks. Leave memory out of --what."
        )
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text("5", encoding="ascii")  # sets the peak back to what is resident now
    before = _kilobytes("VmRSS")
    run()
    return max(_kilobytes("VmHWM") - before, 0) * 1024


def _unused_in_graphs() -> int:
    """Bytes that CUDA graphs hold for their replays, and that torch does not count as allocated."""
    pools = [segment for segment in torch.cuda.memory_snapshot() if tuple(segment["segment_pool_id"]) != (0, 0)]
    return sum(segment["total_size"] - segment["allocated_size"] for segment in pools)


def measure_peaks(name: str, setting: Setting, *, first: str, threads: int) -> dict[str, int]:
    """Bytes of `training` (one step) and `inference`, each measured in a fresh process.

    Args:
        first: the implementation that the others are built to match.
    """
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for part, measure in dict(training=_training_peak, inference=_inference_peak).items():
        with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
            peaks[part] = process.submit(measure, name, setting, first, threads).result()
    return peaks


def _training_peak(name: str, setting: Setting, first: str, threads: int) -> int:
    implementation, small, batch = _prepare(name, setting, first, threads)
    train_step(implementation, small, setting)  # from here on, gradients and the optimizer's state exist

    def train() -> None:
        if setting.device == "cuda":  # as training goes: gradients of the last step are gone, or where graphs hold them
            implementation.model.zero_grad(set_to_none=True)
        train_step(implementation, batch, setting)

    return peak_above(train, setting.device)


def _inference_peak(name: str, setting: Setting, first: str, threads: int) -> int:
    implementation, small, batch = _prepare(name, setting, first, threads)
    implementation.model.eval()
    run_inference(implementation, small, setting)
    return peak_above(lambda: run_inference(implementation, batch, setting), setting.device)


def _prepare(name: str, setting: Setting, first: str, threads: int) -> tuple[Implementation, Batch, Batch]:
    """An implementation, a small batch to warm up with, and the batch."""
    torch.set_num_threads(threads)
    implementation = build_all(list(dict.fromkeys([first, name])), setting)[-1]
    small = replace(setting, size=implementation.least_size)
    return implementation, make_batch(small, seed=0), make_batch(setting, seed=0)


def _kilobytes(entry: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == entry:
            return int(value.split()[0])
    raise AssertionError(f"{_STATUS} has no {entry}")
