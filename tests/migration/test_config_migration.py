"""Configs derived from mmseg's and mmdet's: what is carried over, what is refused, what is written."""

from pathlib import Path

import pytest

from mmseg_m2f.migration import migrate_config
from tests.migration.shipped_configs import MASKFORMER, PANOPTIC, SEMANTIC, SHIPPED, migrate


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
