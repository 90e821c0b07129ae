"""Files that the runner itself writes."""

from pathlib import Path
from unittest import mock

import pytest
from mmengine.config import Config
from torch import nn

from mmseg_m2f.engine.runners import SafeRunner
from mmseg_m2f.engine.strategies import Sharding


def test_dump_config__keeps_the_old_copy_when_writing_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = mock.MagicMock(cfg=Config(dict(a=1)), work_dir=str(tmp_path), timestamp="c")
    SafeRunner.dump_config(runner)
    before = (tmp_path / "c.py").read_text()
    runner.cfg.b = 2

    def interrupted(path: Path, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SafeRunner.dump_config(runner)
    assert (tmp_path / "c.py").read_text() == before
    assert "a = 1" in before


def test_dump_config__leaves_the_file_that_was_read(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.py"
    leaf.write_text("a = 1  # why it is 1\n")
    cfg = Config.fromfile(leaf)
    cfg.a = 2
    SafeRunner.dump_config(mock.MagicMock(cfg=cfg, work_dir=str(tmp_path), timestamp="20260101_000000"))
    assert leaf.read_text() == "a = 1  # why it is 1\n"
    assert Config.fromfile(tmp_path / "20260101_000000.py").a == 2


def test_wrap_model__converts_batch_norms_of_a_sharded_model() -> None:
    runner = mock.MagicMock(cfg=Config(dict(sync_bn="torch")), _sharding=Sharding)
    model = SafeRunner.wrap_model(runner, None, nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.SyncBatchNorm]
