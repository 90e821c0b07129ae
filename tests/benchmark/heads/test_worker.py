import json
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.benchmark.heads import running
from mmseg_m2f.benchmark.heads.worker import perform
from tests.benchmark.heads.conftest import LEAVES, SMALL, Page
from tests.command_line import ROOT


def test_heads__two_heads_from_training_to_page(tmp_path, run_tool, monkeypatch, capsys):
    def in_this_process(command, log, say):
        perform(command[command.index("mmseg_m2f.benchmark.heads.worker") + 1], num_images=2)
        return 0

    monkeypatch.setattr(running, "_perform", in_this_process)
    out = tmp_path / "heads"
    options = [f"{key}={value}" for key, value in SMALL.items()]
    arguments = ["heads", *(str(ROOT / leaf) for leaf in LEAVES), "--iterations", "2", "--crop", "64", "64"]
    arguments += ["--validations", "2", "--out", str(out), "--cfg-options", *options]
    assert run_tool(*arguments) == 0
    content = json.loads((out / "heads.json").read_text())
    assert [row["name"] for row in content["rows"]] == [Path(leaf).stem for leaf in LEAVES]
    for row in content["rows"]:
        assert 0 <= row["scores"]["mIoU"]["mean"] <= 1
        assert row["curves"]["mIoU"]["iterations"] == [1, 2]
        # The last validation and the test look at the same scenes with the same weights.
        assert row["curves"]["mIoU"]["spreads"][1]["mean"] == pytest.approx(row["scores"]["mIoU"]["mean"], abs=1e-6)
        assert row["setting"]["image_size"] == [64, 64]
        assert min(row["costs"][name] for name in ("step_s", "latency_s", "multiply_adds")) > 0
    assert content["rows"][1]["costs"]["parameters"] == number_of_parameters(LEAVES[1])
    found = Page((out / "heads.html").read_text())
    names = [name for name, _ in found.images]
    heads = [Path(leaf).stem for leaf in LEAVES]
    assert names[2:] == [name for name in ("input", "truth", *heads) for _ in range(2)]
    assert all(image.width == 256 for _, image in found.images[2:])
    lines = (out / "heads.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {name}" for name in heads]
    assert re.fullmatch(r"- Tested on GeneratedShapes, \d+ images, 8 classes; seeds 0\.", lines[6])
    assert lines[-1].endswith(shlex.join(arguments))
    capsys.readouterr()
    (out / heads[1] / "seed-0/result.json").unlink()  # as if it had been interrupted after its last checkpoint
    assert run_tool(*arguments) == 0
    assert capsys.readouterr().out.count("finished before") == 1
    resumed = json.loads((out / "heads.json").read_text())
    assert [row["scores"] for row in resumed["rows"]] == [row["scores"] for row in content["rows"]]
    assert resumed["rows"][1]["curves"] == content["rows"][1]["curves"]


def number_of_parameters(leaf: str) -> int:
    return sum(p.numel() for p in MODELS.build(Config.fromfile(ROOT / leaf).model).parameters())
