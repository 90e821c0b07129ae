"""Files that the runner itself writes."""

from pathlib import Path
from unittest import mock

import pytest
from mmengine.config import Config

from mmseg_m2f.engine.runners import SafeRunner


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
