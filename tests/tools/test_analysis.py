"""`mmseg_m2f analysis SUBCOMMAND`: what is printed and written, and what is said about bad input."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from mmseg_m2f.command_line.main import main
from tests.analysis.leaves import LEAVES, OPTIONS, write_weights

LEAF = LEAVES["panoptic"]
CHANGED = ["--cfg-options", *(f"{key}={value}" for key, value in OPTIONS.items())]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights("panoptic", tmp_path_factory.mktemp("weights"))


def test_analysis__flops_and_browse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analysis", "flops", LEAF, "--size", "64", "64", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "One image of 64 x 64 (height x width) on cpu:" in printed
    assert "decode_head.query_decoder" in printed
    main(["analysis", "browse", LEAF, "--samples", "2", "--out", str(tmp_path / "sheet.png")])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 84 + 2 * (256 + 6)


def test_analysis__of_a_checkpoint_writes_what_it_names(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [LEAF, checkpoint, "--work-dir", str(tmp_path / "log"), *CHANGED, "--out"]
    main(["analysis", "confusion", *common, str(tmp_path / "confusion"), "--task", "semantic"])
    assert len(list(csv.reader((tmp_path / "confusion.csv").read_text().splitlines()))) == 1 + 8
    assert (tmp_path / "confusion.png").is_file()
    main(["analysis", "errors", *common, str(tmp_path / "errors.csv"), "--task", "semantic"])
    assert capsys.readouterr().out.rstrip().endswith(f"Look at {tmp_path}/errors.csv")
    assert {row["error"] for row in csv.DictReader((tmp_path / "errors.csv").read_text().splitlines())} == {
        *("class", "boundary", "void", "missed")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["errors", LEAF, "none.pth"], "Error: Checkpoint none.pth does not exist"),
        (["queries", LEAF, "none.pth"], "Error: Checkpoint none.pth does not exist"),
        (["flops", "no_such_config"], "Error: Config no_such_config: expected an existing file"),
        (["browse", LEAF, "--numbers", "7777777"], "Error: --numbers 7777777: expected 0 to 99999"),
        (["curves", "no_such_run"], "Error: no_such_run: expected the work folder of a run"),
    ],
)
def test_analysis__says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["analysis", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_analysis__wrong_task_names_those_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = [LEAVES["instance"], write_weights("instance", tmp_path), "--work-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(["analysis", "errors", *objects, "--task", "panoptic", *CHANGED])
    assert ended.value.code == 2
    expected = "Error: --task panoptic: expected 'pred_panoptic_seg' of the model, got results for ['instance']."
    assert expected in capsys.readouterr().err
