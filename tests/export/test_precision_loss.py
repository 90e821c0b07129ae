"""What may be lost by hand, and metrics of a small model on its test set."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.engine.launch import evaluate
from mmseg_m2f.engine.trained_model import load_trained
from mmseg_m2f.export.export_gate import Comparison
from mmseg_m2f.export.precision_loss import PrecisionLoss, measure_loss, metrics_of_test_set, refuse_loss
from tests.runtime.small_files import write_file
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

PATH = Path("model.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loss")
    write_dataset(folder / "data")
    return folder


def loss_of(before: dict, after: dict, *, changed: float = 0.0) -> PrecisionLoss:
    return PrecisionLoss(changed, before, after, 10)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (dict(mIoU=0.9), dict(mIoU=0.885), "mIoU falls from 0.9000 to 0.8850, expected at most 0.01 less"),
        ({"coco/PQ": 0.5, "coco/AP": 0.4}, {"coco/PQ": 0.5, "coco/AP": 0.3}, "coco/AP falls from 0.4000 to 0.3000"),
        (dict(mIoU=90.0), dict(mIoU=88.9), "mIoU falls from 90.0000"),
        (dict(mIoU=0.9), dict(mIoU=float("nan")), "mIoU falls"),
    ],
)
def test_refuse_loss__metrics_decide(before, after, message):
    with pytest.raises(ValueError, match=f"model.onnx: int8 loses too much: .*{message}.*--accept-loss"):
        refuse_loss(PATH, loss_of(before, after), "int8")


def test_refuse_loss__small_ones_pass_whatever_labels_change():
    refuse_loss(PATH, loss_of(dict(mIoU=0.9), dict(mIoU=0.891), changed=0.5), "int8")
    refuse_loss(PATH, loss_of(dict(mIoU=90.0), dict(mIoU=89.1), changed=0.5), "int8")
    refuse_loss(PATH, loss_of(dict(mIoU=0.9), dict(mIoU=0.95)), "float16")


def test_refuse_loss__labels_decide_where_no_metric_is_known():
    refuse_loss(PATH, loss_of({}, {}, changed=0.04), "int8")
    with pytest.raises(ValueError, match="4.00% of the labels change, expected at most 1%"):
        refuse_loss(PATH, loss_of({}, {}, changed=0.04), "float16")
    with pytest.raises(ValueError, match="6.00% of the labels change, expected at most 5%"):
        refuse_loss(PATH, loss_of(dict(loss=2.0), dict(loss=1.0), changed=0.06), "int8")


def test_metrics_of_test_set__are_those_of_the_test(folder, tmp_path):
    cfg = tiny_config(folder / "data")
    torch.manual_seed(0)
    trained = load_trained(cfg)
    torch.save(dict(state_dict=trained.model.state_dict()), tmp_path / "weights.pth")
    expected = evaluate(
        write_config(cfg, tmp_path / "config.py"), str(tmp_path / "weights.pth"), work_dir=str(tmp_path)
    )
    found, count = metrics_of_test_set(trained.model, cfg, num_images=100)
    assert count == 4
    assert found["mIoU"] == pytest.approx(expected["mIoU"], abs=1e-12)
    assert metrics_of_test_set(trained.model, cfg, num_images=2)[1] == 2


def test_measure_loss__says_why_nothing_was_measured(folder, tmp_path):
    cfg = tiny_config(folder / "data")
    trained = load_trained(cfg)
    file = write_file(tmp_path / "model.onnx")
    comparisons = [Comparison("one", label_disagreement=0.01), Comparison("two", label_disagreement=0.02)]
    cfg.test_dataloader.dataset.data_root = str(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match="no metric was measured .*nowhere"):
        loss = measure_loss(file, trained, cfg, comparisons, num_images=10)
    assert (loss.changed_labels, loss.before, loss.num_images) == (0.02, {}, 0)
    assert "nowhere" in str(loss.as_report()["not_measured"])
    with pytest.warns(UserWarning, match="--evaluate 0"):
        measure_loss(file, trained, cfg, comparisons, num_images=0)
