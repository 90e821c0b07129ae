import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from PIL import Image

from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.load import load_config
from tests.migration.shipped_configs import INSTANCE, MASKFORMER, PANOPTIC, SEMANTIC, migrate


def test_migrate__panoptic_data_need_no_panopticapi(tmp_path):
    cfg, report = migrate(
        tmp_path,
        PANOPTIC,
        "model = dict(backbone=dict(depth=18), panoptic_head=dict(in_channels=[64, 128, 256, 512]))\n"
        "default_hooks = dict(checkpoint=dict(save_best='coco_panoptic/PQ'))",
    )
    assert cfg.train_dataloader.dataset == dict(
        type="mmseg_m2f.CocoPanoptic",
        data_root="data/coco/",
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img_path="train2017/", seg_map_path="annotations/panoptic_train2017/"),
        pipeline=cfg.train_pipeline,
        drop_empty=True,
        min_size=32,
    )
    assert [step.type for step in cfg.test_pipeline] == [
        "mmengine.LoadImageFromFile",
        "mmdet.Resize",
        "mmseg_m2f.LoadPanoptic",
        "mmseg_m2f.SegmentsToObjects",
        "mmdet.PackDetInputs",
    ]
    assert cfg.val_evaluator[0] == dict(type="mmseg_m2f.PanopticQuality", thing_classes=list(range(80)))
    assert cfg.val_evaluator[1].type == "mmdet.CocoMetric"
    assert (cfg.default_hooks.checkpoint.save_best, cfg.default_hooks.checkpoint.rule) == ("PQ", "greater")
    assert cfg.data_preprocessor.pad_seg
    assert not cfg.data_preprocessor.pad_mask
    assert not cfg.data_preprocessor.batch_augments[0].pad_mask
    assert len(report.changed) == 7


@pytest.mark.parametrize("base", [PANOPTIC, MASKFORMER], ids=["mask2former", "maskformer"])
def test_migrate__panoptic_pipelines_run(tmp_path, base):
    cfg, _ = migrate(tmp_path, base)
    ids = np.zeros((60, 90, 3), np.uint8)
    ids[:, :50, 0], ids[10:40, 20:60, 0] = 7, 9  # stuff, and a thing in front of it
    for folder in ("train2017", "annotations/panoptic_train2017"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(ids).save(tmp_path / "train2017/a.png")
    Image.fromarray(ids).save(tmp_path / "annotations/panoptic_train2017/a.png")
    content = dict(
        images=[dict(id=1, file_name="a.png", height=60, width=90)],
        categories=[dict(id=4, name="sky", isthing=0), dict(id=6, name="cat", isthing=1)],
        annotations=[
            dict(image_id=1, file_name="a.png", segments_info=[dict(id=7, category_id=4), dict(id=9, category_id=6)])
        ],
    )
    (tmp_path / "annotations/panoptic_train2017.json").write_text(json.dumps(content))
    cfg = load_config(tmp_path / "migrated.py", dict(data_root=str(tmp_path)))
    check_data_paths(cfg, loops=["train"])
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    samples = [dataset[0]["data_samples"] for _ in range(8)]  # random crops may miss either
    assert all(set(sample.gt_instances.labels.tolist()) <= {0} for sample in samples)
    assert any(len(sample.gt_instances) == 1 for sample in samples)
    assert {int(label) for sample in samples for label in sample.gt_sem_seg.sem_seg.unique()} == {0, 1, 255}


def test_migrate__semantic_pipeline_gives_the_same_batches(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 9, (60, 90), np.uint8)).save(tmp_path / "b.png")
    sample = dict(img_path=str(tmp_path / "a.png"), seg_map_path=str(tmp_path / "b.png"), reduce_zero_label=True)
    expected, actual = both_pipelines(tmp_path, SEMANTIC, {**sample, "seg_fields": []})
    assert torch.equal(actual["inputs"], expected["inputs"])
    assert torch.equal(actual["data_samples"].gt_sem_seg.data, expected["data_samples"].gt_sem_seg.data)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
def test_migrate__instance_pipeline_gives_the_same_batches(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / "a.png")
    polygon = [[10.0, 10.0, 70.0, 12.0, 60.0, 50.0, 12.0, 44.0]]
    instance = dict(bbox=[10.0, 10.0, 70.0, 50.0], bbox_label=3, ignore_flag=0, mask=polygon)
    sample = dict(img_path=str(tmp_path / "a.png"), instances=[instance], height=60, width=90, img_id=0)
    expected, actual = both_pipelines(tmp_path, INSTANCE, sample)
    assert torch.equal(actual["inputs"], expected["inputs"])
    theirs, ours = (packed["data_samples"].gt_instances for packed in (expected, actual))
    assert theirs.masks.masks.sum() > 100
    assert np.array_equal(ours.masks.masks, theirs.masks.masks)
    assert torch.equal(ours.bboxes.tensor, theirs.bboxes.tensor)


def both_pipelines(tmp_path: Path, base: Path, sample: dict) -> list[dict]:
    """What upstream's training pipeline, in its scope, and the migrated one make of a sample with the same numbers."""
    cfg, _ = migrate(tmp_path, base)
    upstream = Config.fromfile(base)
    packed = []
    for pipeline, scope in ((upstream.train_pipeline, upstream.default_scope), (cfg.train_pipeline, "mmengine")):
        with DefaultScope.overwrite_default_scope(scope):
            compose = Compose([TRANSFORMS.build(step) for step in pipeline])
        np.random.seed(3)  # noqa: NPY002  (OpenMMLab's transforms draw from the global generator)
        packed.append(compose(copy.deepcopy(sample)))
    return packed
