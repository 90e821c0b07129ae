"""A small segmentor as files of each format: what is written, that the file is a model, and what is refused."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config

from mmseg_m2f.engine.launch import evaluate, train
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.export import precision_loss
from mmseg_m2f.export.calibration import ImageSource
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.model_export import _check_script, export_model
from mmseg_m2f.export.programs import TracedProgram
from mmseg_m2f.export.reduced_precision import to_int8
from mmseg_m2f.export.standalone_script import SCRIPT
from mmseg_m2f.export.writers import write_program
from mmseg_m2f.inference import Predictor
from mmseg_m2f.runtime import ExportedModel
from tests.runtime.small_files import RECORD
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a checkpoint that gives both classes."""
    folder = tmp_path_factory.mktemp("export")
    write_dataset(folder / "data", size=(40, 56))
    torch.manual_seed(0)
    model = Predictor(tiny_config(folder / "data")).model
    model.decode_head.conv_seg.weight.data *= 200
    torch.save(dict(state_dict=model.state_dict()), folder / "weights.pth")
    return folder


@pytest.fixture
def cfg(folder: Path) -> Config:
    return tiny_config(folder / "data")


def export(folder: Path, name: str, **options: object) -> dict:
    cfg = tiny_config(folder / "data")
    trained = load_trained(cfg, folder / "weights.pth")
    images = ImageSource(trained, cfg, folder / "data/images", output=options.get("output", "logits"))
    return export_model(trained, cfg, folder / name, ExportOptions(**options), images=images)


@pytest.fixture(scope="module")
def logits(folder: Path) -> Path:
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    export(folder, "model.onnx", licence="apache-2.0")
    return folder / "model.onnx"


def test_export__file_and_report_say_what_they_are(logits):
    report = json.loads(logits.with_name("model.onnx.json").read_text())
    record = ExportedModel(logits).record
    assert max(report["max_errors"].values()) <= 1e-4
    assert report["label_disagreement"] <= 1e-4
    assert not report["label_check_empty"]
    assert {"eager", "exported"} == set(report["latency_ms"])
    assert len(report["comparisons"]) >= 10
    assert (record.classes, record.size_divisor, record.licence) == (("dark", "bright"), 16, "apache-2.0")
    assert (
        record.versions["torch"] == torch.__version__.partition("+")[0] or record.versions["torch"] == torch.__version__
    )
    assert sorted(path.name for path in logits.parent.iterdir() if "unfinished" in path.name) == []


def test_export__any_batch_and_size_equals_the_model(logits, folder, cfg):
    model = Predictor(cfg, folder / "weights.pth").model
    file = ExportedModel(logits)
    for size in ((1, 33, 47), (4, 64, 32)):
        images = torch.randn(size[0], 3, *size[1:])
        metainfo = [dict(img_shape=size[1:], ori_shape=size[1:])]
        with torch.no_grad():
            expected = model.encode_decode(images, metainfo)
        scale = float(expected.abs().max())
        np.testing.assert_allclose(file(images.numpy())["scores"], expected.numpy(), rtol=0, atol=1e-5 * scale)


def test_predictor__takes_the_file_alone(logits, folder, cfg):
    image = folder / "data/images/000.png"
    expected = Predictor(cfg, folder / "weights.pth")(image).semantic
    assert len(np.unique(expected)) == 2
    for predictor in (Predictor(logits), Predictor(cfg, logits)):
        assert np.array_equal(predictor(image).semantic, expected)
        assert predictor.classes == ["dark", "bright"]


def test_evaluate__metrics_of_file_and_checkpoint_are_equal(logits, folder, cfg, tmp_path):
    config = write_config(cfg, tmp_path / "exported.py")
    metrics = [evaluate(config, str(folder / name), work_dir=str(tmp_path)) for name in ("weights.pth", "model.onnx")]
    assert metrics[0]["mIoU"] == pytest.approx(metrics[1]["mIoU"], abs=1e-3)


def test_evaluate__views_and_windows_stay_this_packages(logits, folder, cfg, tmp_path):
    cfg.model.test_cfg = dict(mode="slide", crop_size=(32, 32), stride=(24, 24))
    config = write_config(cfg, tmp_path / "views.py")
    metrics = [
        evaluate(config, str(folder / name), work_dir=str(tmp_path), tta=True) for name in ("weights.pth", "model.onnx")
    ]
    assert metrics[0]["mIoU"] == pytest.approx(metrics[1]["mIoU"], abs=1e-3)


def test_evaluate__classes_in_another_order_are_refused(logits, cfg, tmp_path):
    """As for a checkpoint: label maps are numbers without names, which cannot be read in the file's order."""
    cfg.test_dataloader.dataset.metainfo.classes = ("bright", "dark")
    config = write_config(cfg, tmp_path / "turned.py")
    with pytest.raises(ValueError, match="the same classes in another order than exported file .*model.onnx"):
        evaluate(config, str(logits), work_dir=str(tmp_path))


def test_train__refuses_the_file(logits, cfg, tmp_path):
    cfg.load_from = str(logits)
    with pytest.raises(ValueError, match="is an exported file; expected weights to load"):
        train(write_config(cfg, tmp_path / "from_file.py"), work_dir=str(tmp_path))
    model = Predictor(cfg, logits).model
    with pytest.raises(ValueError, match="got a training run"):
        model.loss(torch.zeros(1, 3, 32, 32), [])


def test_export__full_file_runs_with_onnxruntime_and_numpy_alone(folder, cfg, tmp_path):
    export(folder, "full.onnx", output="full", with_script=True)
    predictor = Predictor(cfg, folder / "weights.pth")
    image = predictor.read(folder / "data/images/001.png")
    np.save(tmp_path / "image.npy", image)
    only = """
import runpy, sys
class Others:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "mmengine", "mmseg", "mmseg_m2f", "onnx", "PIL", "cv2", "scipy"}:
            raise ImportError(name)
sys.meta_path.insert(0, Others())
script, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
    arguments = [str(folder / "full.py"), str(tmp_path / "image.npy"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", only, *arguments], check=True, timeout=120)
    found = np.load(tmp_path / "out.npz")
    assert len((folder / "full.py").read_text().splitlines()) <= 60
    assert np.array_equal(found["labels"], predictor(image).semantic)
    assert list(found["classes"]) == ["dark", "bright"]
    with pytest.raises(ValueError, match="expected a file of logits, got one of full results"):
        Predictor(cfg, folder / "full.onnx")


def test_export__torch_program_is_bit_equal(folder, cfg):
    report = export(folder, "model.pt2")
    assert max(report["max_errors"].values()) == 0
    image = folder / "data/images/000.png"
    assert np.array_equal(
        Predictor(folder / "model.pt2")(image).semantic, Predictor(cfg, folder / "weights.pth")(image).semantic
    )


@pytest.mark.slow
def test_export__openvino(folder):
    report = export(folder, "model.xml")
    assert (folder / "model.bin").is_file()
    assert max(report["max_errors"].values()) <= 1e-4
    assert ExportedModel(folder / "model.xml").record.classes == ("dark", "bright")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_export__lower_precision_reports_what_it_loses(folder, precision, cfg, tmp_path):
    name = f"{precision}.onnx"
    report = export(folder, name, precision=precision, accept_loss=True)
    assert {each["name"].split(",")[0] for each in report["comparisons_in_float32"]} == {"program", "file"}
    assert {each["name"].split(",")[0] for each in report["comparisons"]} == {precision}
    assert report["label_disagreement"] == max(each["label_disagreement"] for each in report["comparisons"])
    loss = report["loss"]
    assert loss["num_images"] == 4
    config = write_config(cfg, tmp_path / "tested.py")
    for when, file in (("before", "weights.pth"), ("after", name)):
        tested = evaluate(config, str(folder / file), work_dir=str(tmp_path / when))
        assert loss[when]["mIoU"] == pytest.approx(tested["mIoU"], abs=1e-6)
    stored = {initializer.data_type for initializer in onnx.load(folder / name).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.INT8) in stored
    assert ExportedModel(folder / name).record.precision == precision


def test_export__loss_of_lower_precision_is_refused(folder, monkeypatch):
    monkeypatch.setattr(precision_loss, "METRIC_LOSS", -1.0)
    with pytest.raises(ValueError, match="float16 loses too much: mIoU falls from .*--accept-loss"):
        export(folder, "lossy.onnx", precision="float16")
    assert not (folder / "lossy.onnx").exists()


def test_export__refuses_what_does_not_fit(folder):
    with pytest.raises(ValueError, match="--opset: expected 18 or newer, got 17"):
        export(folder, "a.onnx", opset=17)
    assert not (folder / "a.onnx").exists()


def test_export__names_that_are_taken_are_refused_before_any_work(folder):
    (folder / "taken.py").write_text("print('mine')")
    for name, options, message in (
        ("taken.onnx", dict(output="full", with_script=True), "expected .*taken.py to be free"),
        ("data.onnx", {}, "got a folder"),
        ("taken.py/model.onnx", {}, "taken.py, which is a file"),
    ):
        (folder / "data.onnx").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            export(folder, name, **options)
    assert (folder / "taken.py").read_text() == "print('mine')"


def test_check_script__one_of_an_export_is_replaced(tmp_path):
    (tmp_path / "model.py").write_text(SCRIPT.replace("@MODEL@", "model.onnx"))
    assert _check_script(tmp_path / "model.onnx") == tmp_path / "model.py"


def test_export__files_may_have_any_name_and_no_compiler_is_needed(folder, monkeypatch):
    def broken(*args):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda wrapper: broken)
    with pytest.warns(UserWarning, match="The compiled model was not measured: RuntimeError: no compiler"):
        report = export(folder, "staged.onnx", measure_compiled=True)
    assert {"eager", "exported"} == set(report["latency_ms"])
    assert ExportedModel(folder / "staged.onnx").record.output == "logits"


def test_export__full_files_refuse_flips_of_the_pipeline(folder, cfg):
    cfg.test_dataloader.dataset.pipeline.insert(2, dict(type="mmengine.RandomFlip", prob=1.0))
    trained = load_trained(cfg, folder / "weights.pth")
    with pytest.raises(ValueError, match="expected no flips for --output full, got RandomFlip"):
        export_model(trained, cfg, folder / "flips.onnx", ExportOptions(output="full"))


def test_int8__needs_images_of_the_size(tmp_path):
    with pytest.raises(ValueError, match="expected images that have the size of the file after the test pipeline"):
        to_int8(tmp_path / "model.onnx", iter(()))


def test_image_source__needs_images(folder, cfg):
    trained = load_trained(cfg, folder / "weights.pth")
    with pytest.raises(FileNotFoundError, match="--calibration .*got none"):
        ImageSource(trained, cfg, folder / "data/nothing")


def test_write_program__operators_that_the_format_lacks_are_refused(tmp_path):
    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(math.ceil(x.shape[0] / 3))

    program = torch.export.export(Rounded(), (torch.zeros(5),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    traced = TracedProgram(program, ("images",), ("logits",))
    with pytest.raises(ValueError, match=r"model.pt2: torch.export cannot store .*ceil.*--size H W"):
        write_program(traced, tmp_path / "model.pt2", RECORD)
    assert not list(tmp_path.iterdir())
