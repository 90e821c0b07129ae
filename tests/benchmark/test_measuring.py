"""Whole measurements of ours beside ours: report, table, charts, refusal, interruption."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmseg_m2f.benchmark import machine, measuring
from mmseg_m2f.benchmark.implementations import build
from mmseg_m2f.benchmark.measuring import Plan, count_ops, measure
from mmseg_m2f.benchmark.summary import draw_curves, draw_settings, table
from tests.benchmark.tiny import CONFIG, SETTING, write_variant

COUNTS = ["--size", "64", "--objects", "3", "--queries", "10", "--classes", "5", "--points", "64", "--rounds", "2"]


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))


def test_measure__report_table_and_charts(tmp_path: Path) -> None:
    names = [CONFIG, write_variant(tmp_path / "twin.py")]
    settings = [SETTING, replace(SETTING, queries=20)]
    path, said = tmp_path / "out/report.json", []
    report = measure(Plan(names, settings, rounds=3, what=["train", "inference", "ops"]), path, said.append)
    assert json.loads(path.read_text()) == report
    assert report["complete"]
    assert [gate["comparisons"][0]["compared"] for gate in report["gate"]] == [True, True]  # one per model
    assert len(report["results"]) == 2
    for result, setting in zip(report["results"], settings, strict=True):
        assert result["setting"] == vars(setting)
        assert len(result["rounds"]) == 2  # the first is not counted
        assert result["loads"] == [0.5, 0.5]
        one, other = (result["ops"][name] for name in names)
        assert one == other
        assert one["training"]["ops"] > one["inference"]["ops"] > 100
        ratio = result["summary"]["ratios"][names[1]]["step"]
        by_hand = [each[names[0]]["step"] / each[names[1]]["step"] for each in result["rounds"]]
        assert ratio["median"] == pytest.approx(sum(by_hand) / 2)
    text = table(report)
    for part in ("matching+loss s", "host reads", "load average 0.5…0.5", "equal up to rounding", "10 queries"):
        assert part in text
    assert "MB" not in text
    assert sum("not counted" in line for line in said) == 2
    for picture in (draw_settings(report), draw_curves(report, SETTING)):
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10


def test_measure__interrupted_keeps_finished_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def interrupt(*args: object, **kwargs: object) -> dict[str, dict[str, float]]:
        rounds.append(args)
        if len(rounds) == 4:
            raise KeyboardInterrupt
        return {CONFIG: {"inference": float(len(rounds))}}

    monkeypatch.setattr(measuring, "time_round", interrupt)
    path = tmp_path / "report.json"
    report = measure(Plan([CONFIG], [SETTING], what=["inference"]), path, lambda _: None)
    assert json.loads(path.read_text()) == report
    assert not report["complete"]
    assert report["results"][0]["summary"]["seconds"] == {CONFIG: {"inference": 2.5}}  # rounds 2 and 3
    assert "NOT COMPLETE" in table(report)


def test_measure__a_busy_machine_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0.0, 0.0))
    path = tmp_path / "report.json"
    with pytest.raises(ValueError, match="This machine is busy"):
        measure(Plan([CONFIG], [SETTING]), path)
    assert not path.exists()
    report = measure(Plan([CONFIG], [SETTING], what=["ops"], even_if_loaded=True), path, lambda _: None)
    assert report["machine"]["load_before"] == 3.5
    assert "load average 3.5…3.5" in table(report)


def test_count_ops__a_step_of_ours_reads_the_costs_alone() -> None:
    counts = count_ops(build(CONFIG, SETTING), SETTING)
    assert counts["training"]["host_reads_by_kind"] == {"copy to the host": 1}  # the costs
    for part in counts.values():
        assert sum(part["host_reads_by_kind"].values()) == part["host_reads"]


def test_measure__interrupted_before_the_first_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_tool: Callable[..., int]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "time_round", interrupt)
    report = measure(Plan([CONFIG], [SETTING]), tmp_path / "report.json", lambda _: None)
    assert report["results"][0]["rounds"] == []
    assert run_tool("step", CONFIG, *COUNTS, "--what", "train", "--out", str(tmp_path)) == 130
    assert json.loads((tmp_path / "step.json").read_text())["complete"] is False
    assert "NOT COMPLETE" in table(report)
    draw_settings(report)
    draw_curves(report, SETTING)
