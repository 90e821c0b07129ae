"""Files that the runner itself writes."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.optim import SGD

from mmseg_m2f.engine.runners import SafeRunner
from mmseg_m2f.engine.strategies import Sharding
from mmseg_m2f.engine.zero import Zero, ZeroModel


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


def test_wrap_model__leaves_a_model_for_deepspeed_as_it_is() -> None:
    runner = mock.MagicMock(cfg=Config(), _sharding=lambda: None, _zero=Zero)
    model = nn.Linear(1, 1)
    assert SafeRunner.wrap_model(runner, None, model) is model


def test_load_or_resume__spreads_once_and_only_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, object, Zero]] = []

    def spread_model(*args: object) -> ZeroModel:
        calls.append(args)
        return ZeroModel(SimpleNamespace(module=args[0]))

    monkeypatch.setattr("mmseg_m2f.engine.runners.spread", spread_model)
    monkeypatch.setattr(Runner, "load_or_resume", lambda self: None)
    runner = SafeRunner.__new__(SafeRunner)
    monkeypatch.setattr(SafeRunner, "_sharding", lambda self: None)
    monkeypatch.setattr(SafeRunner, "_zero", lambda self: Zero(stage=2))
    runner.model, runner.optim_wrapper = nn.Linear(1, 1), dict(type="OptimWrapper")
    runner.load_or_resume()  # testing: the optimizer is not built
    assert calls == []
    model = runner.model
    runner.optim_wrapper = OptimWrapper(SGD(model.parameters(), lr=0.1))
    runner.load_or_resume()
    runner.load_or_resume()
    assert calls == [(model, runner.optim_wrapper, Zero(stage=2))]
    assert runner.model.module is model
