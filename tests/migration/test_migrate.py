"""Configs derived from mmseg's and mmdet's: what is carried over, what is refused, what is written."""

import copy
import json
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from PIL import Image

from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.migration import MigrationReport, migrate_config
from mmseg_m2f.migration.optimizer import migrate_optim_wrapper
from mmseg_m2f.migration.writing import Reference, Section, config_text

SHIPPED = {
    name: Path(library.__file__).parent / ".mim/configs" for name, library in (("mmseg", mmseg), ("mmdet", mmdet))
}
SEMANTIC = SHIPPED["mmseg"] / "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"
MASKFORMER = SHIPPED["mmdet"] / "maskformer/maskformer_r50_ms-16xb1-75e_coco.py"
PANOPTIC = SHIPPED["mmdet"] / "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
INSTANCE = SHIPPED["mmdet"] / "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py"


def migrate(tmp_path: Path, base: Path, changes: str = "", **options: bool) -> tuple[Config, MigrationReport]:
    """Our config for a user's one: `base` with some settings of their own."""
    source = tmp_path / "mine.py"
    source.write_text(f"_base_ = {str(base)!r}\n{changes}\n")
    report = migrate_config(source, tmp_path / "migrated.py", **options)
    return load_config(tmp_path / "migrated.py"), report


def test_migrate__carries_every_number_of_the_model(tmp_path):
    cfg, report = migrate(
        tmp_path,
        SEMANTIC,
        """
layer = dict(self_attn_cfg=dict(num_heads=4, embed_dims=64), ffn_cfg=dict(feedforward_channels=96, embed_dims=64))
model = dict(
    backbone=dict(depth=18),
    decode_head=dict(
        num_classes=7, num_queries=31, feat_channels=64, out_channels=64, num_transformer_feat_level=2,
        in_channels=[64, 128, 256, 512], ignore_index=99,
        positional_encoding=dict(num_feats=32),
        pixel_decoder=dict(
            num_outs=2, norm_cfg=dict(num_groups=16), positional_encoding=dict(num_feats=32),
            encoder=dict(num_layers=3, layer_cfg=dict(
                self_attn_cfg=dict(num_heads=2, num_levels=2, num_points=5, embed_dims=64),
                ffn_cfg=dict(feedforward_channels=80, embed_dims=64)))),
        transformer_decoder=dict(num_layers=4, layer_cfg=dict(cross_attn_cfg=layer["self_attn_cfg"], **layer)),
        loss_cls=dict(loss_weight=1.5, class_weight=[1, 1, 1, 2, 1, 1, 1, 0.2]),
        loss_mask=dict(loss_weight=2.5), loss_dice=dict(loss_weight=3.5, eps=0.5),
        train_cfg=dict(
            num_points=333, oversample_ratio=2.0, importance_sample_ratio=0.5,
            assigner=dict(match_costs=[dict(type='mmdet.ClassificationCost', weight=1.25),
                                       dict(type='mmdet.DiceCost', weight=4.5, pred_act=True)]))),
    test_cfg=dict(mode='slide', crop_size=(64, 96), stride=(32, 48)))
""",
    )
    head = cfg.model.decode_head
    assert cfg.num_classes == head.num_classes == report.num_classes == 7
    assert (cfg.model.ignore_index, cfg.model.backbone.depth) == (99, 18)
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(64, 96), stride=(32, 48))
    assert head.pixel_decoder == dict(
        type="mmseg_m2f.DeformablePixelDecoder",
        channels=64,
        num_levels=2,
        num_layers=3,
        num_heads=2,
        num_points=5,
        feedforward_channels=80,
        norm_groups=16,
    )
    assert head.query_decoder == dict(
        type="mmseg_m2f.MaskedAttentionDecoder",
        num_queries=31,
        channels=64,
        num_layers=4,
        num_heads=4,
        feedforward_channels=96,
    )
    assert head.criterion == dict(
        type="mmseg_m2f.MaskCriterion",
        assigner=dict(
            type="mmseg_m2f.HungarianAssigner",
            match_costs=[
                dict(type="mmseg_m2f.ClassCost", weight=1.25),
                dict(type="mmseg_m2f.MaskDiceCost", weight=4.5, smooth=1e-3),  # mmdet's default
            ],
        ),
        loss_cls=dict(
            type="mmseg_m2f.ClassLoss", loss_weight=1.5, no_object_weight=0.2, class_weight=[1, 1, 1, 2, 1, 1, 1]
        ),
        loss_mask=dict(type="mmseg_m2f.MaskBCELoss", loss_weight=2.5),
        loss_dice=dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=3.5, smooth=0.5),
        sampling=dict(type="mmseg_m2f.PointSampling", num_points=333, oversample=2.0, importance=0.5),
    )


def test_migrate__carries_dropout_and_answers_of_a_detector(tmp_path):
    cfg, _ = migrate(
        tmp_path,
        MASKFORMER,
        "model = dict(backbone=dict(depth=18), panoptic_head=dict(in_channels=[64, 128, 256, 512]), "
        "test_cfg=dict(instance_on=True, max_per_image=7, object_mask_thr=0.3, iou_thr=0.4, filter_low_score=True))",
    )
    assert cfg.model.thing_classes == list(range(80))
    assert cfg.num_classes == 133
    assert cfg.model.test_cfg == dict(
        panoptic=True,
        instance=True,
        semantic=False,
        object_threshold=0.3,
        overlap_threshold=0.4,
        keep_low_pixels=False,
        max_per_image=7,
        things_first=False,
    )
    assert cfg.model.decode_head.pixel_decoder.dropout == cfg.model.decode_head.query_decoder.dropout == 0.1


def test_migrate__carries_schedule_and_runtime(tmp_path):
    cfg, report = migrate(
        tmp_path,
        SEMANTIC,
        """
model = dict(backbone=dict(depth=18), decode_head=dict(in_channels=[64, 128, 256, 512]))
optim_wrapper = dict(type='AmpOptimWrapper', accumulative_counts=2, optimizer=dict(lr=0.5))
train_cfg = dict(max_iters=17)
default_hooks = dict(checkpoint=dict(save_best='mAcc'))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
my_number = 3
""",
    )
    assert cfg.optim_wrapper.type == "mmengine.AmpOptimWrapper"
    assert (cfg.optim_wrapper.accumulative_counts, cfg.optim_wrapper.optimizer.lr) == (2, 0.5)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=0.01, norm_type=2)
    assert cfg.param_scheduler[0].type == "mmengine.PolyLR"
    assert cfg.train_cfg == dict(type="mmengine.IterBasedTrainLoop", max_iters=17, val_interval=5000)
    assert cfg.default_hooks.checkpoint.save_best == "mAcc"
    assert cfg.custom_hooks == [dict(type="mmengine.EMAHook", momentum=0.1)]
    assert cfg.visualizer.type == "mmseg.SegLocalVisualizer"
    assert cfg.val_evaluator == dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])
    assert "default_scope" not in cfg
    assert any("my_number" in entry for entry in report.left_out)
    assert any(entry.startswith("tta_model: mmseg.SegTTAModel") for entry in report.changed)


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


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("panoptic_head.query_embed", "decode_head.query_decoder.query_embed"),
        ("panoptic_head", "decode_head"),
        ("query", None),  # would match everything below `query_decoder`
    ],
)
def test_migrate__optimizer_keys_name_our_parameters(key, ours):
    cfg = Config.fromfile(Path(__file__).parents[2] / "configs/mask2former/mask2former_r18_shapes-panoptic_demo.py")
    drop_initial_weights(cfg.model)
    model = MODELS.build(cfg.model)
    wrapper = dict(
        type="mmengine.OptimWrapper",
        optimizer=dict(type="mmengine.SGD", lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(custom_keys={key: dict(lr_mult=0.5)}),
    )
    if ours is None:
        with pytest.raises(ValueError, match=r"level_embed.weight has learning rate and weight decay \(1.0, 0.1\) up"):
            migrate_optim_wrapper(wrapper, model, head="panoptic_head", report=MigrationReport())
        return
    migrated = migrate_optim_wrapper(wrapper, model, head="panoptic_head", report=MigrationReport())
    assert migrated["paramwise_cfg"] == dict(custom_keys={ours: dict(lr_mult=0.5)})


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            SHIPPED["mmseg"] / "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py",
            "",
            r"model.type is 'EncoderDecoder' with decode_head.type 'UPerHead'; expected mmseg's EncoderDecoder with a "
            "Mask2FormerHead or MaskFormerHead",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(num_querys=5))",
            r"model.decode_head.num_querys: 5 has no counterpart here. Nearest known: num_queries",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(pixel_decoder=dict(encoder=dict(layer_cfg=dict(pre_norm=True)))))",
            r"model.decode_head.pixel_decoder.encoder.layer_cfg.pre_norm: True has no counterpart here",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(pixel_decoder=dict(type='mmdet.PixelDecoder')))",
            r"pixel_decoder.type: 'mmdet.PixelDecoder' has no counterpart here. Nearest: mmdet.MSDeformAttnPixel",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(loss_dice=dict(type='DiceLoss')))",
            r"loss_dice.type: 'DiceLoss' has no counterpart here. Nearest: mmdet.DiceLoss",  # mmseg has another one
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(out_channels=128))",
            r"model.decode_head.out_channels: expected 256, got 128: features and masks have one width here",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(loss_dice=dict(naive_dice=False)))",
            r"loss_dice.naive_dice: expected True, got False: Dice is not squared here",
        ),
        (
            MASKFORMER,
            "model = dict(panoptic_head=dict(transformer_decoder=dict(layer_cfg=dict(ffn_cfg=dict(ffn_drop=0.3)))))",
            r"ffn_cfg.ffn_drop: attention and feed-forward networks drop \[0.1, 0.3\]; expected one",
        ),
        (
            SEMANTIC,
            "model = dict(decode_head=dict(loss_cls=dict(class_weight=[1.0, 0.1])))",
            r"loss_cls.class_weight: expected 150 classes and 'no object', got \[1.0, 0.1\]",
        ),
        (
            PANOPTIC,
            "default_hooks = dict(checkpoint=dict(save_best='coco_panoptic/PQ_th'))",
            r"default_hooks.checkpoint.save_best: expected one of \['coco_panoptic/PQ'",
        ),
        (
            PANOPTIC,
            "steps = ['LoadPanopticAnnotations', 'FilterAnnotations', 'PackDetInputs']\n"
            "train_dataloader = dict(dataset=dict(pipeline=[dict(type=step) for step in steps]))",
            r"train_dataloader.dataset.pipeline: mmdet.FilterAnnotations needs the boxes of mmdet.LoadPanoptic",
        ),
        (SEMANTIC, "my = dict(x=object())\ntrain_cfg = dict(x=object())", r"train_cfg.x: <object .* is a object"),
        ("nowhere.py", "", r"mine.py cannot be read"),
    ],
)
def test_migrate__refuses_and_writes_nothing(tmp_path, base, changes, message):
    with pytest.raises(ValueError, match=message):
        migrate(tmp_path, base, changes)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_migrate__refuses_our_own_and_existing_targets(tmp_path):
    own = Path(__file__).parents[2] / "configs/mask2former/mask2former_r18_shapes_debug.py"
    with pytest.raises(ValueError, match="the config is one of this package already"):
        migrate_config(own, tmp_path / "a.py")
    with pytest.raises(FileNotFoundError, match="no such file"):
        migrate_config(tmp_path / "none.py", tmp_path / "a.py")
    with pytest.raises(ValueError, match=r"ends in \.py"):
        migrate_config(own, tmp_path / "a.yaml")
    (tmp_path / "a.py").write_text("mine")
    with pytest.raises(ValueError, match=r"exists. Give another name, or replace it with --force"):
        migrate_config(own, tmp_path / "a.py")
    with pytest.raises(ValueError, match=r"exists. Give another name\.$"):
        migrate_config(tmp_path / "a.py", tmp_path / "a.py", overwrite=True)
    assert (tmp_path / "a.py").read_text() == "mine"


def test_config_text__is_laid_out_to_be_read():
    long = [dict(type="a.B", number=index / 2, text='say "no"') for index in range(4)]
    text = config_text(
        ["Title."],
        [Section("First.", dict(x=1, y=Reference("x"))), Section("None.", {}), Section("Last.", {"z": {"a.b": long}})],
    )
    assert (
        text
        == """# Title.

# First.
x = 1
y = x

# Last.
z = {
    "a.b": [
        dict(type="a.B", number=0.0, text='say "no"'),
        dict(type="a.B", number=0.5, text='say "no"'),
        dict(type="a.B", number=1.0, text='say "no"'),
        dict(type="a.B", number=1.5, text='say "no"'),
    ],
}
"""
    )
