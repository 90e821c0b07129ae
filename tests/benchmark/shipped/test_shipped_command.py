import argparse

import pytest

from mmseg_m2f.benchmark.shipped import shipped_command
from mmseg_m2f.benchmark.shipped.outcomes import Outcome
from mmseg_m2f.benchmark.shipped.processes import StageResult
from mmseg_m2f.benchmark.shipped.trial import STAGES


def run(monkeypatch, *arguments):
    asked = []

    def count(configs, out, limits, **options):
        asked.append((configs, limits, options))
        return {config.name: Outcome(dict.fromkeys(STAGES, StageResult())) for config in configs}

    monkeypatch.setattr(shipped_command, "count", count)
    monkeypatch.setattr(shipped_command, "known_outcomes", count)
    parser = argparse.ArgumentParser()
    shipped_command.add_shipped(parser.add_subparsers())
    args = parser.parse_args(["shipped", *arguments])
    args.run(args)
    return asked[0]


def test_shipped__writes_its_table_with_limits_and_command(monkeypatch, tmp_path, capsys):
    configs, limits, options = run(
        monkeypatch, "--only", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "--sides", "96", "64", "--out", str(tmp_path)
    )
    assert [config.name for config in configs] == ["mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"]
    assert limits.sides == (64, 96)
    assert options == dict(every_model=False)
    text = (tmp_path / "shipped.md").read_text()
    assert "generated images of 64, then 96 pixels" in text
    assert "Command: `python" in text
    assert f"| mmdet | yes | {len(configs)} |" in capsys.readouterr().out


def test_shipped__a_name_that_nothing_has(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="--only nowhere: expected a part of a config's name"):
        run(monkeypatch, "--only", "nowhere", "--out", str(tmp_path))


def test_shipped__every_model_or_the_table_alone(monkeypatch, tmp_path):
    arguments = ("--only", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "--out", str(tmp_path))
    assert run(monkeypatch, *arguments, "--every-model")[2] == dict(every_model=True)
    assert run(monkeypatch, *arguments, "--count-only")[2] == {}
