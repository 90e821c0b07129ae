"""`tools/benchmark.py step` and `scaling`: their files, and their exit status."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmseg_m2f.benchmark import machine
from tests.benchmark.tiny import CONFIG, write_variant

COUNTS = ["--size", "64", "--objects", "3", "--queries", "10", "--classes", "5", "--points", "64", "--rounds", "2"]


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))


@pytest.mark.slow
def test_tool__memory_of_one_implementation(
    tmp_path: Path, run_tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path)
    assert run_tool("step", CONFIG, *COUNTS, "--what", "memory", "--out", out) == 0
    peaks = json.loads((tmp_path / "step.json").read_text())["results"][0]["memory"][CONFIG]
    assert peaks["training"] > peaks["inference"] > 0
    assert "training MB" in capsys.readouterr().out
    assert (tmp_path / "step.png").is_file()


def test_tool__implementations_that_differ_end_with_status_1_and_no_figure(
    tmp_path: Path, run_tool: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    heavy = write_variant(tmp_path / "heavy.py", criterion=dict(loss_mask=dict(loss_weight=6.0)))
    assert run_tool("step", CONFIG, heavy, *COUNTS, "--out", str(tmp_path / "out")) == 1
    captured = capsys.readouterr()
    assert "heavy.py: losses, largest difference: expected at most 1e-05" in captured.err
    assert " s" not in captured.out.replace(heavy, "").replace(CONFIG, "")
    assert not (tmp_path / "out").exists()


def test_tool__scaling_draws_curves(tmp_path: Path, run_tool: Callable[..., int]) -> None:
    options = [*COUNTS, "--over", "queries", "--what", "inference", "--out", str(tmp_path)]
    assert run_tool("scaling", CONFIG, *options) == 0
    results = json.loads((tmp_path / "scaling.json").read_text())["results"]
    assert [result["setting"]["queries"] for result in results] == [10, 50, 100, 200, 300]
    assert (tmp_path / "scaling.png").is_file()


def test_tool__help_shows_an_example(run_tool: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool("--help") == 0
    assert "python tools/benchmark.py step" in capsys.readouterr().out
