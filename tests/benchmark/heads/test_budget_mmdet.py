"""Generated data for the models of mmdetection itself."""

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmseg_m2f.benchmark.heads.budget import Budget, apply_budget
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.datasets.scene import CLASSES, draw_scene

# pycocotools on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
THINGS_FIRST = CLASSES[3:] + CLASSES[:3]
PANOPTIC = "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic"
MASK_RCNN = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco"


def config_of_mmdet(name: str, data: str) -> Config:
    folder = Path(importlib.import_module("mmdet").__file__).parent
    cfg = load_config(folder / f".mim/configs/{name}.py")
    apply_budget(cfg, Budget(2, crop=(64, 64), data=data, from_scratch=True), seed=0)
    check_config(cfg)
    return cfg


def metrics_of(cfg: Config) -> list[str]:
    return [metric["type"].rpartition(".")[2] for metric in cfg.test_evaluator]


@pytest.mark.parametrize("loop", ["train", "val"])
def test_mmdet_data__things_come_first(loop):
    cfg = config_of_mmdet(PANOPTIC, "shapes_panoptic")
    dataset_cfg = cfg[f"{loop}_dataloader"]["dataset"]
    for step in dataset_cfg["pipeline"]:
        if step["type"] == "mmengine.RandomFlip":
            step["prob"] = 0.0
    dataset = DATASETS.build(dataset_cfg)
    assert tuple(dataset.metainfo["classes"]) == THINGS_FIRST
    assert dataset.metainfo["palette"][0] == (220, 50, 47)  # red, the colour of discs
    scene = draw_scene(dataset.seed, 0, size=(64, 64))
    sample = dataset[0]["data_samples"]
    semantic = sample.gt_sem_seg.sem_seg[0].numpy()
    assert (semantic == 255).any()
    for number, name in enumerate(THINGS_FIRST):
        assert ((semantic == number) == (scene.semantic == CLASSES.index(name))).all()
    objects = sample.gt_instances
    assert len(objects) == sum(segment.is_thing for segment in scene.segments)
    for label, mask, box in zip(objects.labels, objects.masks.masks, objects.bboxes.tensor.tolist(), strict=True):
        assert set(semantic[mask > 0]) == {int(label)}
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert cfg.val_evaluator[0].thing_classes == [0, 1, 2, 3, 4]
    assert metrics_of(cfg) == ["PanopticQuality", "MaskAP"]


@pytest.mark.parametrize(
    ("name", "data", "metrics"),
    [
        (MASK_RCNN, "shapes_instance", ["MaskAP"]),
        (MASK_RCNN, "shapes_panoptic", ["MaskAP"]),
        ("detr/detr_r50_8xb2-150e_coco", "shapes_instance", ["CocoMetric"]),
        ("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco", "shapes_panoptic", ["PanopticQuality"]),
    ],
)
def test_mmdet_data__metrics_fit_what_the_model_predicts(name, data, metrics):
    assert metrics_of(config_of_mmdet(name, data)) == metrics


def test_mmdet_data__no_metric_of_what_the_model_predicts():
    with pytest.raises(ValueError, match=r"data=shapes_instance: .*\(panoptic\), got mmseg_m2f.MaskAP. Choose data"):
        config_of_mmdet("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco", "shapes_instance")


def test_mmdet_data__order_of_files_is_kept():
    with pytest.raises(ValueError, match=r"data=cityscapes_panoptic_512x1024: .* expected data with thing_classes 0…7"):
        config_of_mmdet(PANOPTIC, "cityscapes_panoptic_512x1024")
    assert "class_order=[" not in config_of_mmdet(PANOPTIC, "coco_panoptic_640").pretty_text


def test_mmdet_data__hooks_that_switch_the_data_are_left_out():
    with pytest.warns(UserWarning, match="YOLOXModeSwitchHook is left out"):
        cfg = config_of_mmdet("yolox/yolox_s_8xb8-300e_coco", "shapes_instance")
    assert [hook["type"] for hook in cfg.custom_hooks] == ["SyncNormHook", "EMAHook"]


def test_mmdet_data__a_model_learns_and_predicts():
    cfg = config_of_mmdet("solo/solo_r50_fpn_1x_coco", "shapes_instance")
    cfg.model.backbone.depth, cfg.model.neck.in_channels = 18, [64, 128, 256, 512]
    with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmdet's own code
        model = MODELS.build(cfg.model)
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
        losses = model(**batch, mode="loss")
        (result,) = model.eval().test_step(pseudo_collate([DATASETS.build(cfg.val_dataloader.dataset)[0]]))
    assert torch.isfinite(losses["loss_mask"])
    assert result.pred_instances.masks.shape[1:] == (64, 64)
    assert [entry["bbox_label"] for entry in result.instances] == result.gt_instances.labels.tolist()
