"""`tools/migrate_config.py` as a user calls it."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import mmseg
import pytest

from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT

SOURCE = Path(mmseg.__file__).parent / ".mim/configs/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py"


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        """Run the tool in this process and give its exit status."""
        monkeypatch.setattr(sys, "argv", ["tools/migrate_config.py", *arguments])
        try:
            runpy.run_path(str(ROOT / "tools/migrate_config.py"), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


def test_migrate_config__reports_and_asks_before_replacing(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deep/migrated.py"
    assert run_main(str(SOURCE), str(target)) == 0
    # The first import of mmseg in a process prints two lines of its own.
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Could not import OneDL")]
    assert lines[0] == f"{SOURCE}: mmseg's MaskFormer, 150 classes"
    assert lines[1].startswith(f"{target}: checked, and its model built: 41,3")
    assert lines[2].startswith("carried over: num_classes, data_preprocessor, model, data_root")
    assert lines[3] == "changed:"
    assert "  default_scope: every type has its scope" in lines[lines.index("left out:") :]
    assert load_config(target).model.decode_head.query_decoder.type == "mmseg_m2f.CrossAttentionDecoder"
    assert run_main(str(SOURCE), str(target)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: Target {target} exists.")
    assert "--force" in error
    assert run_main(str(SOURCE), str(target), "--force") == 0


def test_migrate_config__help_shows_an_example(
    run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main("--help") == 0
    assert "python tools/migrate_config.py" in capsys.readouterr().out
