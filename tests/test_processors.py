import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_m2f import processors
from mmseg_m2f.processors import busy_processors, share_processors


def written(path: Path, *ticks: int) -> str:
    path.write_text("cpu  " + " ".join(map(str, ticks)) + " 0 0\ncpu0 1 1\n", encoding="ascii")
    return str(path)


@pytest.fixture
def machine(monkeypatch):
    """As a tool meets it: torch is not imported, four processors."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(processors, "decision", "")
    return lambda busy: monkeypatch.setattr(processors, "busy_processors", lambda: busy)


@pytest.mark.parametrize(("busy", "threads"), [(0.5, "4"), (1.2, "3"), (2.6, "1"), (9.0, "1")])
def test_share_processors__leaves_busy_ones_alone(machine, busy, threads):
    machine(busy)
    environ: dict[str, str] = {}
    share_processors(environ)
    assert environ == dict(OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="PASSIVE")
    assert f"{busy:.1f} of 4 processors busy: PyTorch takes {threads} thread" in processors.decision


@pytest.mark.parametrize("busy", [0.0, 0.4, None])
def test_share_processors__nothing_on_a_quiet_machine(machine, busy):
    machine(busy)
    environ: dict[str, str] = {}
    share_processors(environ)
    assert (environ, processors.decision) == ({}, "")


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_WAIT_POLICY"])
def test_share_processors__the_user_decides(machine, name):
    machine(3.0)
    environ = {name: "2"}
    share_processors(environ)
    assert environ == {name: "2"}


def test_share_processors__too_late_once_torch_is_imported(monkeypatch):
    monkeypatch.setattr(processors, "busy_processors", lambda: 3.0)
    monkeypatch.setitem(sys.modules, "torch", sys)
    environ: dict[str, str] = {}
    share_processors(environ)
    assert environ == {}


def test_busy_processors__of_the_time_between_two_readings(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    path = tmp_path / "stat"
    written(path, 100, 0, 50, 800, 50, 0, 0, 0)  # user nice system idle iowait irq softirq steal
    monkeypatch.setattr(processors.time, "sleep", lambda _: written(path, 130, 10, 60, 840, 60, 0, 0, 0))
    assert busy_processors(path) == pytest.approx(2 * 50 / 100)


def test_busy_processors__where_the_system_does_not_tell(tmp_path):
    assert busy_processors(tmp_path / "stat") is None


def test_command_line__decides_before_torch_is_imported():
    code = (
        "import sys, mmseg_m2f.processors as p\n"
        "p.share_processors = lambda: print('torch' in sys.modules)\n"
        "import mmseg_m2f.command_line.train"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "False"
