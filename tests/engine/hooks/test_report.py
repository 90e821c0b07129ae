import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from torch import Tensor, nn

from mmseg_m2f.engine.hooks import Report
from mmseg_m2f.engine.hooks.report import _CURVES, _best, _known, read_history

PACK = [dict(type="mmseg.PackSegInputs")]


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


class Threshold(BaseModel):
    """Predicts class 0 or 1 from one learnt number; its losses have our names."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(
        self, inputs: Sequence[Tensor], data_samples: Sequence | None = None, mode: str = "tensor"
    ) -> Mapping[str, Tensor] | Sequence:
        if mode == "loss":
            loss = (self.level - 1) ** 2
            return {"loss_cls": loss, "loss_mask": 2 * loss, "loss_dice": 3 * loss, "d0.loss_cls": loss}
        for image, sample in zip(inputs, data_samples or (), strict=True):
            sample.pred_sem_seg = PixelData(data=(image.float().mean(0, keepdim=True) > 110).long())
        return data_samples or []


class StopAt(Hook):
    """Stands for the user's interrupt."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if runner.iter + 1 == self.iteration:
            raise KeyboardInterrupt


def run(
    work_dir: Path,
    name: str,
    *,
    iterations: int = 6,
    resume: bool = False,
    stop_at: int | None = None,
    val_size: tuple[int, int] = (32, 48),
    test_cfg: Mapping | None = None,
) -> None:
    def loader(seed: int, image_size: tuple[int, int] = (32, 48)) -> dict:
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type="mmengine.InfiniteSampler" if seed == 0 else "mmengine.DefaultSampler", shuffle=False),
            dataset=dict(type="mmseg_m2f.GeneratedShapes", length=8, seed=seed, image_size=image_size, pipeline=PACK),
        )

    model = Threshold()
    model.test_cfg = test_cfg
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader(0),
        val_dataloader=loader(1, val_size),
        val_evaluator=dict(type="mmseg_m2f.SemanticIoU"),
        optim_wrapper=dict(optimizer=dict(type="mmengine.SGD", lr=0.01)),
        train_cfg=dict(type="mmengine.IterBasedTrainLoop", max_iters=iterations, val_interval=2),
        val_cfg=dict(type="mmengine.ValLoop"),
        default_hooks=dict(
            checkpoint=dict(type="mmengine.CheckpointHook", by_epoch=False, interval=2, save_best="mIoU"),
            logger=dict(type="mmengine.LoggerHook", interval=2, log_metric_by_epoch=False),
        ),
        custom_hooks=[dict(type="mmseg_m2f.Report", num_images=3), *([StopAt(stop_at)] if stop_at else [])],
        log_processor=dict(by_epoch=False),
        resume=resume,
        experiment_name=name,
        default_scope="mmengine",
        randomness=dict(seed=0),
    )
    runner.train()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run(folder, "report-finished")
    return folder


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_report__metrics_hold_last_best_and_history(finished: Path) -> None:
    metrics = read_metrics(finished)
    assert metrics["iteration"] == 6
    assert [entry["iteration"] for entry in metrics["history"]] == [2, 4, 6]
    assert metrics["mIoU"] == metrics["history"][-1]["mIoU"]
    assert metrics["best"]["mIoU"] == max(entry["mIoU"] for entry in metrics["history"])
    assert {"aAcc", "mAcc", "IoU.stripes"} <= metrics.keys()


def test_report__pictures_are_complete(finished: Path) -> None:
    assert open_picture(finished / "curves.png").size == (1320, 495)
    assert open_picture(finished / "contact_sheet.png").width == 84 + 3 * (256 + 6)
    assert not list(finished.glob(".*.tmp"))


def test_report__last_lines_say_what_and_where(finished: Path) -> None:
    log = next(finished.glob("*/*.log")).read_text()
    assert f"Learnt: mIoU {read_metrics(finished)['mIoU']:.4f} after 6 iterations" in log
    assert "Worst classes: " in log
    for name in ("best_mIoU_iter_2.pth", "iter_6.pth", "metrics.json", "curves.png", "contact_sheet.png"):
        assert str(finished / name) in log.split("Learnt:")[1]


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_report__names_windows_where_validation_images_are_much_larger(tmp_path: Path, mode: str) -> None:
    run(tmp_path, f"report-larger-{mode}", iterations=2, val_size=(64, 96), test_cfg=dict(mode=mode))
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert ("--cfg-options window_size=32,48" in log) == (mode == "whole")


def test_report__resumed_run_shows_its_whole_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict] = []

    def keep(losses: Mapping, *, scores: Mapping, learning_rate: object) -> Image.Image:
        drawn.append(dict(losses=losses, scores=scores, learning_rate=learning_rate))
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr("mmseg_m2f.engine.hooks.report.plot_curves", keep)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "report-interrupted", iterations=8, stop_at=5)
    run(tmp_path, "report-resumed", iterations=8, resume=True)
    assert [entry["iteration"] for entry in read_metrics(tmp_path)["history"]] == [2, 4, 6, 8]
    last = drawn[-1]
    assert sorted(last["losses"]) == ["loss", "loss_cls", "loss_dice", "loss_mask"]
    assert last["losses"]["loss"].iterations.tolist() == list(range(1, 9))
    np.testing.assert_allclose(last["losses"]["loss_dice"].values, last["losses"]["loss_cls"].values * 3, rtol=1e-6)
    assert last["scores"]["mIoU"].iterations.tolist() == [2, 4, 6, 8]
    assert last["learning_rate"].values.tolist() == [0.01] * 8


def test_report__fresh_run_forgets_what_an_older_one_left(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"history": [{"iteration": 90, "mIoU": 1.0}]}')
    run(tmp_path, "report-fresh", iterations=2)
    assert [entry["iteration"] for entry in read_metrics(tmp_path)["history"]] == [2]


def test_report__foreign_metrics_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"metrics\.json: expected the metrics of an earlier run.*Move the file"):
        run(tmp_path, "report-foreign", iterations=2)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"history": [{"iteration": "1"}]}', '{"history": [{"mIoU": 1}]}', "\xff"]
)
def test_read_history__other_content_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"metrics\.json: expected the metrics of an earlier run.*Move it"):
        read_history(tmp_path / "metrics.json", remedy="Move it.")


class Images(list):
    """Stands for a loader of one image with two classes."""

    dataset = SimpleNamespace(metainfo=dict(classes=["sky", "dog"], palette=[(0, 0, 200), (200, 100, 0)]))


def test_report__sheet_of_a_detector_shows_objects_and_panoptic_map(tmp_path: Path) -> None:
    sample = DetDataSample(metainfo=dict(img_path="one.png", ori_shape=(2, 2)))
    dog = torch.tensor([[False, False], [True, True]])
    sample.pred_panoptic_seg = PixelData(sem_seg=dog[None] * 1001)
    sample.pred_instances = InstanceData(labels=torch.tensor([1]), scores=torch.tensor([0.9]), masks=dog[None])
    hub = MessageHub.get_instance("report-of-a-detector")
    parts = dict(work_dir=str(tmp_path), iter=1, val_dataloader=Images([None]), message_hub=hub)
    runner = Mock(spec=Runner, model=SimpleNamespace(), **parts)
    report = Report()
    report.before_train(runner)
    report.before_val_epoch(runner)
    report.after_val_iter(runner, 0, dict(inputs=[torch.full((3, 2, 2), 100, dtype=torch.uint8)]), [sample])
    report.after_val_epoch(runner, {"PQ": 0.5, "coco/segm_mAP": 0.25})
    sheet = np.asarray(open_picture(tmp_path / "contact_sheet.png"))
    top, left = 24 + 2 * 262, 84
    upper, lower = (sheet[top + 30, [left + 30, left + 292]], sheet[top + 220, [left + 30, left + 292]])
    assert upper.tolist() == [[25, 25, 175], [100, 100, 100]]
    assert lower.tolist() == [[175, 100, 25]] * 2
    assert read_metrics(tmp_path)["best"] == {"iteration": 1, "PQ": 0.5, "coco/segm_mAP": 0.25}


def test_best__is_by_the_main_metric_of_the_run() -> None:
    history = [dict(iteration=1, PQ=0.2, mIoU=0.9), dict(iteration=2, PQ=0.5, mIoU=0.8), dict(iteration=3, PQ=0.4)]
    assert _best(history)["iteration"] == 2
    assert _best([dict(iteration=1, loss=3.0), dict(iteration=2, loss=4.0)])["iteration"] == 2
    assert _best([{"iteration": 1, "nuclei/AP": 0.5}, {"iteration": 2, "nuclei/AP": 0.4}])["iteration"] == 1


@pytest.mark.parametrize(
    ("metrics", "plotted"),
    [
        (["mIoU", "aAcc", "mAcc", "IoU.sky"], ["mIoU", "aAcc"]),
        (["PQ", "SQ", "PQ_things", "PQ.sky", "mIoU"], ["PQ", "mIoU", "PQ_things"]),
        (["coco/segm_mAP", "coco/segm_mAP_50", "coco/segm_mAP_l"], ["coco/segm_mAP", "coco/segm_mAP_50"]),
        (["AP", "AP50", "AP75", "AP.dog", "boundary_AP"], ["AP", "AP50", "boundary_AP"]),
        (["one/bbox_mAP", "two/bbox_mAP"], ["one/bbox_mAP", "two/bbox_mAP"]),
    ],
)
def test_curves__are_those_of_every_task(metrics: list[str], plotted: list[str]) -> None:
    assert _known([dict.fromkeys(metrics, 0.5)], _CURVES) == plotted
