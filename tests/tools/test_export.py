"""`tools/export.py` and `tools/publish.py` on a small model: formats, the script, refusals, planted faults."""

import json
import subprocess
import venv
from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import onnx
import pytest
import torch
from mmseg.models.decode_heads import FCNHead
from onnx import helper

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.export import main as export
from mmseg_m2f.command_line.publish import main as publish
from mmseg_m2f.config.load import load_config
from mmseg_m2f.export import writers
from mmseg_m2f.inference import Predictor
from mmseg_m2f.models.pixel_decoders import deformable
from tests.command_line import run_tool
from tests.random_weights import shake
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

CALL = Call.of_tool("export")


@pytest.fixture(autouse=True)
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks of shapes would become conditions of a traced program."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`config.py`, `weights.pth` and `data/` of a model that gives both classes."""
    folder = tmp_path_factory.mktemp("export_tool")
    write_dataset(folder / "data", size=(40, 56))
    cfg = tiny_config(folder / "data")
    write_config(cfg, folder / "config.py")
    torch.manual_seed(0)
    model = Predictor(cfg).model
    model.decode_head.conv_seg.weight.data *= 200
    torch.save(dict(state_dict=model.state_dict()), folder / "weights.pth")
    return folder


def arguments(folder: Path, name: str, *more: str) -> list[str]:
    given = [str(folder / "config.py"), str(folder / "weights.pth"), "--out", str(folder / name)]
    return [*given, "--calibration", str(folder / "data/images"), "--no-compiled", *more]


def test_publish_then_export__of_the_folder_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text('{"mIoU": 0.5}')
    given = [str(folder / "config.py"), str(folder / "weights.pth"), str(tmp_path / "out")]
    publish([*given, "--metrics", str(tmp_path / "metrics.json")], call=Call.of_tool("publish"))
    assert "Wrote README.md, config.json, model.safetensors, SHA256SUMS" in capsys.readouterr().out
    export([str(tmp_path / "out"), "--out", str(tmp_path / "model.pt2"), "--no-compiled"], call=CALL)
    printed = capsys.readouterr().out
    assert "model.pt2.json" in printed
    assert "largest difference 0.0e+00" in printed
    assert "milliseconds: eager " in printed
    image = folder / "data/images/000.png"
    expected = Predictor(str(folder / "config.py"), folder / "weights.pth")(image).semantic
    for source in (tmp_path / "out", tmp_path / "model.pt2"):
        assert np.array_equal(Predictor(source)(image).semantic, expected)


@pytest.mark.parametrize("content", ["no json", "[1]", '{"mIoU": "high"}'])
def test_publish__refuses_figures_that_are_none(
    folder: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text(content)
    given = [str(folder / "config.py"), str(folder / "weights.pth"), str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        publish([*given, "--metrics", str(tmp_path / "metrics.json")], call=Call.of_tool("publish"))
    assert ended.value.code == 2
    assert "expected a JSON file of names and numbers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a.onnx", ["--opset", "17"], "--opset: expected 18 or newer, got 17"),
        ("a.onnx", ["--int8"], "--int8: expected --calibration with a folder of images"),
        ("a.onnx", ["--with-script"], "--with-script: expected an ONNX file of full results"),
        ("a.xml", ["--fp16"], "expected .onnx for a file in float16"),
        ("https://host/a.onnx", [], "expected a local file, got a URL"),
    ],
)
def test_export__refusals_are_messages(
    folder: Path, name: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = name if "://" in name else str(folder / name)
    given = [str(folder / "config.py"), str(folder / "weights.pth"), "--out", out, *more]
    with pytest.raises(SystemExit) as ended:
        export(given, call=CALL)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "a.onnx").exists()


def test_export_and_publish__need_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").touch()
    config, exported = str(folder / "config.py"), str(tmp_path / "model.onnx")
    for command, given, message in (
        (export, [config, "--out", str(tmp_path / "a.onnx")], "expected one after the config, got none"),
        (export, [config, exported, "--out", str(tmp_path / "a.onnx")], "expected a checkpoint, got an exported file"),
        (publish, [config, exported, str(tmp_path / "out")], "expected a checkpoint, got an exported file"),
    ):
        with pytest.raises(SystemExit):
            command(given, call=CALL)
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_export__baked_sizes_are_caught(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program holds a number of the example, which is right at its size alone."""
    forward = FCNHead.forward

    def scaled(self: FCNHead, inputs: list[torch.Tensor]) -> torch.Tensor:
        width = inputs[0].shape[-1] if not torch.compiler.is_exporting() else 38  # of images of 150 columns
        return forward(self, inputs) * (1 + width / 100)

    monkeypatch.setattr(FCNHead, "forward", scaled)
    with pytest.raises(SystemExit):
        export(arguments(folder, "baked.onnx"), call=CALL)
    printed = capsys.readouterr().err
    assert "program, 1 x 64 x 64: scores differs by" in printed
    assert "was not written" in printed
    assert not list(folder.glob("baked*"))


@pytest.fixture(scope="module")
def of_queries(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Config and checkpoint of a small Mask2Former with levels and position encodings."""
    folder = tmp_path_factory.mktemp("queries")
    options = {"model.backbone.base_channels": 8, "model.decode_head.query_decoder.num_layers": 1}
    cfg = load_config("mask2former_r18_shapes_debug", options | {"model.decode_head.pixel_decoder.num_layers": 1})
    torch.manual_seed(0)
    model = Predictor(cfg).model
    shake(model)  # freshly initialised deformable attention ignores positions
    torch.save(dict(state_dict=model.state_dict()), folder / "weights.pth")
    return [write_config(cfg, folder / "config.py"), str(folder / "weights.pth")]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", ["swapped levels", "columns before rows"])
def test_export__faults_of_levels_and_positions_are_caught(
    fault: str,
    of_queries: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exported program alone has the fault."""
    flatten, encode = deformable.flatten_maps, deformable.sine_position_encoding

    def swapped(maps: list[torch.Tensor]) -> torch.Tensor:
        return flatten(maps[::-1] if torch.compiler.is_exporting() else maps)

    def turned(size: tuple[int, int], channels: int, like: torch.Tensor) -> torch.Tensor:
        found = encode(size, channels, like)
        return found.roll(channels // 2, 0) if torch.compiler.is_exporting() else found

    if fault == "swapped levels":
        monkeypatch.setattr(deformable, "flatten_maps", swapped)
    else:
        monkeypatch.setattr(deformable, "sine_position_encoding", turned)
    with pytest.raises(SystemExit):
        export([*of_queries, "--out", str(tmp_path / "faulty.onnx"), "--no-compiled"], call=CALL)
    printed = capsys.readouterr().err
    assert "program, 2 x 100 x 150: mask_features differs by" in printed
    assert "was not written" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_export__random_nodes_are_caught(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise that vanishes, so that all numbers agree; the operator remains."""
    finish = writers.finish_onnx

    def add_noise(source: Path, target: Path, *args: object, **kwargs: object) -> None:
        finish(source, target, *args, **kwargs)
        model = onnx.load(target)
        for node in model.graph.node:
            node.output[:] = ["plain" if name == "scores" else name for name in node.output]
            node.input[:] = ["plain" if name == "scores" else name for name in node.input]
        model.graph.node.extend(
            [
                helper.make_node("RandomUniformLike", ["plain"], ["noise"], low=0.0, high=1e-30),
                helper.make_node("Add", ["plain", "noise"], ["scores"]),
            ]
        )
        onnx.save(model, target)

    monkeypatch.setattr(writers, "finish_onnx", add_noise)
    with pytest.raises(SystemExit):
        export(arguments(folder, "random.onnx"), call=CALL)
    assert "random operators (RandomUniformLike)" in capsys.readouterr().err
    assert not list(folder.glob("random*"))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_tools__write_every_format_and_run_it_elsewhere(folder: Path, tmp_path: Path) -> None:
    """As a user does it: processes, and an environment that has only onnxruntime and numpy."""
    for name in ("model.onnx", "model.pt2", "model.xml"):
        run_tool("export", *arguments(folder, name))
    given = [str(folder / "config.py"), str(folder / "weights.pth"), "--out", str(folder / "full.onnx")]
    run_tool("export", *given, "--output", "full", "--with-script")  # with the compiled model
    assert set(json.loads((folder / "full.onnx.json").read_text())["latency_ms"]) == {"eager", "compiled", "exported"}
    image = folder / "data/images/001.png"
    expected = Predictor(str(folder / "config.py"), folder / "weights.pth")(image).semantic
    for name in ("model.onnx", "model.pt2", "model.xml"):
        assert np.array_equal(Predictor(folder / name)(image).semantic, expected)
    config, file, weights = (str(folder / name) for name in ("config.py", "model.onnx", "weights.pth"))
    run_tool("predict", config, file, str(image), "--out-dir", str(tmp_path / "seen"))
    assert np.array_equal(cv2.imread(str(tmp_path / "seen/labels/001.png"), cv2.IMREAD_UNCHANGED), expected)
    timed = run_tool("benchmark", "exported", file, weights, "--size", "40", "56", "--no-compiled")
    assert "scores: differs by at most" in timed.stdout
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy"], check=True, timeout=300)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    assert not {"torch", "opencv-python", "pillow", "mmseg-m2f"} & {x.partition("==")[0] for x in listed.stdout.split()}
    np.save(tmp_path / "image.npy", cv2.imread(str(image)))
    script = [str(folder / "full.py"), str(tmp_path / "image.npy"), str(tmp_path / "out.npz")]
    subprocess.run([python, "-I", *script], check=True, timeout=120, cwd=tmp_path)
    assert np.array_equal(np.load(tmp_path / "out.npz")["labels"], expected)
    refused = run_tool("export", *arguments(folder, "old.onnx", "--opset", "17"), expect=2)
    assert "--opset: expected 18 or newer, got 17" in refused.stderr
