"""Only files of stored steps are replayed. That they repeat the fault: tests/engine/hooks/test_non_finite_guard.py."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmseg_m2f.engine.non_finite.stored_steps import replay_step, save_step


def test_replay_step__refuses_other_files(tmp_path: Path) -> None:
    torch.save(dict(state_dict={}), tmp_path / "iter_1.pth")
    with pytest.raises(ValueError, match=r"--replay .*iter_1.pth: expected a file that a training wrote"):
        replay_step(tmp_path / "iter_1.pth")


def test_replay_step__names_parts_that_are_not_known(tmp_path: Path) -> None:
    cfg, about = Config(dict(model=dict(type="Unheard"))), dict(iteration=1, autocast=None, loss_scale=1.0)
    save_step(tmp_path / "step.pth", model=nn.Linear(1, 1), batch={}, random={}, cfg=cfg, about=about)
    with pytest.raises(KeyError, match=r"Unheard is not in the .*tools/train.py CONFIG --replay FILE"):
        replay_step(tmp_path / "step.pth")
