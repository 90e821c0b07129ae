import json
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.benchmark.heads.conftest import LEAVES, SMALL
from tests.command_line import ROOT, run_tool


def test_heads__help_shows_examples(run_tool, capsys):
    assert run_tool("heads", "--help") == 0
    shown = capsys.readouterr().out
    assert "python tools/benchmark.py heads A.py B.py" in shown
    assert "Run it again after an interruption" in shown


@pytest.mark.slow
@pytest.mark.e2e
def test_heads__as_processes_with_one_that_fails(tmp_path):
    options = [f"{key}={value}" for key, value in SMALL.items()]
    broken = Config.fromfile(ROOT / LEAVES[1])
    broken.test_evaluator = dict(type="mmseg_m2f.MaskAP")  # of a head that gives label maps alone
    broken.dump(tmp_path / "broken.py")
    arguments = ["heads", str(tmp_path / "broken.py"), LEAVES[1], "--iterations", "2", "--out", str(tmp_path / "out")]
    done = run_tool("benchmark", *arguments, "--cfg-options", *options, expect=1)
    assert "[1/2] broken, seed 0: FAILED with exit status 2" in done.stdout
    assert "in the sample, got" in done.stdout
    assert "train 2 of 2" in done.stdout
    content = json.loads((tmp_path / "out/heads.json").read_text())
    assert [row["name"] for row in content["rows"]] == [Path(LEAVES[1]).stem]
    assert [failure["name"] for failure in content["failed"]] == ["broken"]
    assert "Failed runs" in (tmp_path / "out/heads.html").read_text()
