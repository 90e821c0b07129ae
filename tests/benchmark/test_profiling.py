"""What the profiler is asked, and what the table says of it."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark.implementations import build
from mmseg_m2f.benchmark.measuring import Plan, measure, profile_file
from mmseg_m2f.benchmark.profiling import profile_implementation, profile_runs
from mmseg_m2f.benchmark.summary import table
from tests.benchmark.tiny import CONFIG, SETTING


def test_profile_runs__counts_calls_of_one_run() -> None:
    a = torch.randn(64, 64)
    found, _, by_operator = profile_runs(lambda: [a @ a for _ in range(5)], "cpu")
    assert (found.kernels, found.launches, found.device_seconds) == (0, 0, 0.0)  # no GPU
    (row,) = (line.split() for line in by_operator.splitlines() if line.endswith("  aten::mm"))
    assert row[1] == "5"


def test_profile_implementation__both_parts_leave_the_model_in_training() -> None:
    ours = build(CONFIG, SETTING)
    figures, tables = profile_implementation(ours, SETTING)
    assert list(figures) == ["training", "inference"]
    assert "aten::convolution_backward" in tables["training-operators"]
    assert "aten::convolution_backward" not in tables["inference-operators"]
    assert ours.model.training


def test_measure__writes_tables_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmseg_m2f.benchmark.machine.num_cores", lambda: 4)
    plan = Plan([CONFIG], [SETTING], what=["ops"], even_if_loaded=True, profile=True)
    report = measure(plan, tmp_path / "step.json", lambda _: None)
    assert set(report["results"][0]["profile"][CONFIG]) == {"training", "inference"}
    name = profile_file(CONFIG, SETTING, "training-operators")
    assert name == "profile-mask2former_r18_shapes_debug-64-batch2-training-operators.txt"
    assert "aten::" in (tmp_path / name).read_text()


def test_table__kernels_launches_and_busy_share_on_a_card() -> None:
    part = dict(kernels=4000, launches=90, device_seconds=0.03)
    result = dict(
        setting=dict(vars(SETTING), device="cpu"),
        loads=[],
        memory={},
        ops={},
        rounds=[],
        profile=dict(ours=dict(training=part, inference=dict(part, device_seconds=0.001))),
        summary=dict(seconds=dict(ours=dict(step=0.04, inference=0.002)), ratios={}),
    )
    machine = dict(processor="p", gpu="g", threads=1, cores=2, torch="2", date="today", load_before=0.0)
    report = dict(machine=machine, complete=True, gate=[], implementations=["ours"], results=[result])
    assert "busy" not in table(report)
    result["setting"]["device"] = "cuda"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)  # else the setting is refused
        text = table(report)
    assert text.splitlines()[-3].split() == ["ours", "0.040", "0.002", "4000", "90", "75%", "50%"]
