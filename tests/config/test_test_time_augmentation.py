import pytest
from mmengine.config import Config

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.test_time_augmentation import mirrored_views, use_views


def test_mirrored_views__annotations_are_loaded_behind_the_flip():
    names = ("mmengine.LoadImageFromFile", "mmdet.Resize", "mmdet.LoadAnnotations", "mmdet.PackDetInputs")
    load, resize, annotate, pack = (dict(type=name) for name in names)
    first, views = mirrored_views([load, resize, annotate, pack])
    assert first == load
    flips = [dict(type="mmengine.RandomFlip", prob=prob) for prob in (0.0, 1.0)]
    assert views["transforms"] == [[resize], flips, [annotate], [pack]]


def test_use_views__object_config_without_views():
    cfg = load_config("mask2former_r18_shapes-panoptic_demo")
    use_views(cfg)
    assert cfg.model.type == "mmseg_m2f.QueryTTA"
    pack = cfg.test_dataloader.dataset.pipeline[-1]["transforms"][-1][0]
    assert {"flip", "flip_direction", "ori_shape"} <= set(pack["meta_keys"])


def test_use_views__semantic_config_without_views():
    cfg = Config(dict(model=dict(type="mmseg_m2f.MaskSegmentor"), test_dataloader=dict(dataset=dict(pipeline=[]))))
    with pytest.raises(ValueError, match="has no tta_pipeline"):
        use_views(cfg)
