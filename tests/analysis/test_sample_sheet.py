from pathlib import Path

import numpy as np
import pytest

from mmseg_m2f.analysis.sample_sheet import sample_sheet
from mmseg_m2f.config.load import load_config
from tests.analysis.leaves import LEAVES


@pytest.mark.parametrize("task", LEAVES)
def test_sample_sheet__shows_each_sample_with_each_kind_of_label(task: str) -> None:
    sheet = np.asarray(sample_sheet(load_config(LEAVES[task]), samples=[0, 1], cell_width=96))
    kinds = dict(semantic=1, instance=1, panoptic=3)[task]
    rows = [24 + row * (96 + 6) + 48 for row in range(1 + kinds)]
    assert sheet.shape[1] == 84 + 2 * (96 + 6)
    assert sheet.shape[0] < rows[-1] + 48 + 6 * 22  # no rows for predictions
    for y in rows:
        assert len(np.unique(sheet[y - 20 : y + 20, 100:160].reshape(-1, 3), axis=0)) > 5  # something is drawn


def test_sample_sheet__spreads_samples_and_breaks_rows() -> None:
    cfg = load_config(LEAVES["semantic"])
    one, two = (sample_sheet(cfg, loop="val", samples=number, cell_width=64) for number in (6, 7))
    assert one.width == two.width
    assert one.height < two.height


def test_sample_sheet__says_what_is_wrong(tmp_path: Path) -> None:
    cfg = load_config(LEAVES["semantic"])
    with pytest.raises(ValueError, match=r"--numbers 128: expected 0 to 127"):
        sample_sheet(cfg, loop="val", samples=[128])
    with pytest.raises(ValueError, match="expected at least 1"):
        sample_sheet(cfg, samples=0)
    cfg.pop("val_dataloader")
    with pytest.raises(ValueError, match="no val_dataloader"):
        sample_sheet(cfg, loop="val")
