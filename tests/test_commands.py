"""`mmseg_m2f COMMAND` and `tools/config.py`. `tests/e2e/test_wheel.py` runs the installed command."""

import importlib
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.main import COMMANDS, main
from tests.command_line import ROOT

LEAF = "mask2former_r18_shapes_debug"
TOOLS = dict(convert="convert_checkpoint", migrate="migrate_config")


@pytest.mark.parametrize("name", COMMANDS)
def test_command__help_shows_how_it_was_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: mmseg_m2f {name} " in printed
    assert f"  mmseg_m2f {name} " in printed.partition("examples:")[2]
    assert not re.search(r"tools/|\{run\}|\{script\}", printed)


@pytest.mark.parametrize("name", COMMANDS)
def test_tool__is_a_thin_file_around_the_command(name: str) -> None:
    module = name.replace("-", "_")
    tool = TOOLS.get(name, module)
    source = (ROOT / f"tools/{tool}.py").read_text()
    assert f"from mmseg_m2f.command_line.{module} import main\n" in source
    assert f'    main(call=Call.of_tool("{tool}"))\n' in source
    assert len(source.splitlines()) <= 7
    assert source.splitlines()[0] == f'"""{importlib.import_module(f"mmseg_m2f.command_line.{module}").__doc__}"""'


def test_command__unknown_ones_are_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert "'train'" in capsys.readouterr().err


def test_config__prints_what_loads_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", LEAF])
    (tmp_path / "printed.py").write_text(capsys.readouterr().out)
    printed = Config.fromfile(tmp_path / "printed.py")
    assert printed.to_dict() == Config.fromfile(ROOT / f"configs/mask2former/{LEAF}.py").to_dict()


def test_config__shows_what_an_option_changes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", LEAF, "--cfg-options", "crop_size=64", "--diff", LEAF])
    lines = capsys.readouterr().out.splitlines()
    assert "train_dataloader.dataset.image_size: [64, 64] -> [96, 96]" in lines
    assert all(line.endswith("[64, 64] -> [96, 96]") for line in lines)
    main(["config", LEAF, "--diff", str(ROOT / f"configs/mask2former/{LEAF}.py")])
    assert capsys.readouterr().out == "nothing differs\n"


def test_config__lists_names_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((ROOT / "configs").glob("[!_]*/*.py")))
    assert any(line.startswith("mask2former_r18_shapes_demo  What `make demo` runs") for line in lines)


def test_config__needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["config"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: config: expected a path or a name")


def test_call__of_a_tool() -> None:
    assert Call.of_tool("train") == ("train.py", "python tools/train.py", "tools/train.py")
