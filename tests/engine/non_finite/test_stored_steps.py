"""Only files of stored steps are replayed. That they repeat the fault: tests/engine/hooks/test_non_finite_guard.py."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.engine.non_finite.stored_steps import replay_step


def test_replay_step__refuses_other_files(tmp_path: Path) -> None:
    torch.save(dict(state_dict={}), tmp_path / "iter_1.pth")
    with pytest.raises(ValueError, match=r"--replay .*iter_1.pth: expected a file that a training wrote"):
        replay_step(tmp_path / "iter_1.pth")
