"""The command line: help, exit status, what is written. `tests/e2e` runs the tools as processes."""

import json
import pickle
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.checkpoints.test_detr_names import published_coco
from tests.checkpoints.test_layouts import random_weights
from tests.command_line import ROOT
from tests.inference.test_image_streams import write_video
from tests.spoilt_loss import SpoiltLoss
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(name: str, *arguments: str) -> int:
        """Run `tools/<name>.py` in this process and give its exit status."""
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *arguments])
        try:
            runpy.run_path(str(ROOT / f"tools/{name}.py"), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


@pytest.mark.parametrize("name", ["train", "test", "predict"])
def test_tools__help_shows_an_example(
    name: str, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(name, "--help") == 0
    assert f"python tools/{name}.py CONFIG" in capsys.readouterr().out


def test_tools__train_then_test_and_predict(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data", max_iters=2)
    for_train, for_test = (write_config(cfg, tmp_path / f"{name}.py") for name in ("tool_train", "tool_test"))
    checkpoint, out = str(tmp_path / "run/iter_2.pth"), tmp_path / "out"
    assert run_main("train", for_train, "--work-dir", str(tmp_path / "run")) == 0
    assert run_main("test", for_test, checkpoint, "--out", str(out), "--work-dir", str(tmp_path / "test")) == 0
    assert 0 <= json.loads((out / "metrics.json").read_text())["mIoU"] <= 1
    broken = tmp_path / "data/images/zzz.png"
    broken.write_bytes(b"no image")
    status = run_main(
        "predict",
        for_test,
        checkpoint,
        str(broken.parent),
        "--out-dir",
        str(tmp_path / "seen"),
        "--score-threshold",
        "0.3",
    )
    assert status == 1  # one was skipped, the others were written
    assert f"skipped: Image {broken}" in capsys.readouterr().err
    assert len(list((tmp_path / "seen").glob("*.png"))) == len(list((tmp_path / "seen/labels").glob("*.png"))) == 4
    write_video(tmp_path / "film.avi", 2)
    arguments = [for_test, checkpoint, str(tmp_path / "film.avi"), "--out-dir", str(tmp_path / "film")]
    assert run_main("predict", *arguments) == 0
    assert sorted(path.name for path in (tmp_path / "film").iterdir()) == ["film.mp4", "labels"]
    (tmp_path / "film.avi").write_bytes(b"no video")
    assert run_main("predict", *arguments) == 2
    assert "expected a video that OpenCV decodes" in capsys.readouterr().err


def test_convert_checkpoint__reports_and_refuses(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {**random_weights("resnet"), "criterion.empty_weight": torch.ones(6)}
    torch.save(dict(state_dict=weights), tmp_path / "ours.pth")
    target = tmp_path / "theirs.pkl"
    assert run_main("convert_checkpoint", str(tmp_path / "ours.pth"), str(target), "--to", "detectron2") == 0
    count = len(weights)
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/ours.pth: {count} weights of a mask2former in the layout of ours",
        f"{target}: {count - 1} weights in the layout of detectron2, bit-equal on the way back, less the dropped",
        "dropped: 1",
        "  criterion.empty_weight",
    ]
    target.write_bytes(target.read_bytes()[:-100])
    assert run_main("convert_checkpoint", str(target), str(tmp_path / "a.bin"), "--to", "transformers") == 2
    assert capsys.readouterr().err.startswith(f"Error: Pickle {target} (")
    target.write_bytes(pickle.dumps({"model": {"a": Path("a")}}))
    assert run_main("convert_checkpoint", str(target), str(tmp_path / "a.bin"), "--to", "transformers") == 2
    assert f"Pickle {target} names pathlib." in capsys.readouterr().err
    assert run_main("convert_checkpoint", str(tmp_path / "none.pth"), str(target), "--to", "detectron2") == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "a.bin").exists()


def test_convert_checkpoint__takes_the_coco_classes_that_exist(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = published_coco()
    torch.save(dict(model=weights), tmp_path / "hub.pth")
    target = tmp_path / "ours.pth"
    options = ("--to", "ours", "--permute-classes", "coco-detection")
    assert run_main("convert_checkpoint", str(tmp_path / "hub.pth"), str(target), *options) == 0
    unused = "[0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]"
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/hub.pth: {len(weights)} weights of a detr in the layout of torchhub",
        f"{target}: {len(weights)} weights in the layout of ours, bit-equal on the way back, less the dropped",
        "dropped: 2",
        f"  class_embed.weight, rows {unused}",
        f"  class_embed.bias, rows {unused}",
    ]
    options = ("--to", "transformers", "--permute-classes", "coco-detection")
    assert run_main("convert_checkpoint", str(target), str(tmp_path / "back.bin"), *options) == 2
    assert "takes 81 of the authors' 92 rows" in capsys.readouterr().err
    assert not (tmp_path / "back.bin").exists()


def test_convert_checkpoint__help_shows_an_example(
    run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main("convert_checkpoint", "--help") == 0
    assert "python tools/convert_checkpoint.py model_final.pkl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.backbone.depht=18"], "Error: model.backbone.depht: ResNet takes no argument 'depht'"),
        (["data_root=/nowhere"], "Error: train_dataloader.dataset.data_root: expected an existing"),
    ],
)
def test_train__prints_the_message_alone_for_a_wrong_config(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    write_dataset(tmp_path / "data", count=1)
    config = write_config(tiny_config(tmp_path / "data"), tmp_path / "wrong.py")
    assert run_main("train", config, "--cfg-options", *options) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("place", "said", "found"),
    [
        ("loss", "the loss is not finite (nan)", "decode.loss_spoilt = nan"),
        ("gradient", "a gradient is not finite", "parameters have gradients that are not finite: "),
    ],
)
def test_train__replays_a_step(
    tmp_path: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str], place: str, said: str, found: str
) -> None:
    write_dataset(tmp_path / "data", count=2)
    cfg = tiny_config(tmp_path / "data", max_iters=2)
    cfg.model.decode_head.loss_decode = dict(type=SpoiltLoss.__name__, place=place)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    config = write_config(cfg, tmp_path / f"spoilt_{place}.py")
    assert run_main("train", config, "--work-dir", str(tmp_path / "run")) == 2
    stopped = capsys.readouterr().err
    assert f"Iteration 1: {said}" in stopped
    assert found in stopped
    stored = tmp_path / "run/non_finite_iter_1.pth"
    assert f"--replay {stored}" in stopped
    assert run_main("train", "--replay", str(stored)) == 1
    replayed = capsys.readouterr().out
    assert f"Iteration 1, images: {tmp_path}/data/images/00" in replayed
    assert found in replayed
