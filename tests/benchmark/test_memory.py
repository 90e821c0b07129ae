"""The probe sees a known allocation."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
import torch

from mmseg_m2f.benchmark.memory import peak_above

MEGABYTE = 2**20


def allocate(peak: int, kept: int) -> None:
    """Touches `peak` megabytes, lets them go, and holds `kept`."""
    torch.ones(peak * MEGABYTE // 4)
    torch.ones(kept * MEGABYTE // 4)


def probe() -> list[float]:
    """Peaks in megabytes, of three programs; run in a fresh process."""
    before = torch.ones(50 * MEGABYTE // 4)  # held all along: belongs to no peak
    peaks = [peak_above(partial(allocate, *sizes)) / MEGABYTE for sizes in ((80, 10), (20, 5), (0, 0))]
    assert before.sum() > 0
    return peaks


def test_peak_above__known_allocations() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        large, small, nothing = process.submit(probe).result()
    assert large == pytest.approx(80, abs=3)
    assert small == pytest.approx(20, abs=3)
    assert nothing == pytest.approx(0, abs=1)
