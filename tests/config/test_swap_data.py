"""Other data: classes, size, metrics and normalisation of the model follow or stay."""

from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT


def test_replace_data__classes_size_and_metric_follow() -> None:
    cfg = load_config(ROOT / "configs/eomt/eomt_tiny_shapes-panoptic_demo.py", {"data": "dsb2018_256"})
    assert (cfg.model.decode_head.num_classes, cfg.model.thing_classes, cfg.num_classes) == (1, [0], 1)
    assert cfg.model.backbone.img_size == cfg.crop_size == (256, 256)
    assert cfg.default_hooks.checkpoint.save_best == "AP"
    assert cfg.test_dataloader.dataset.data_root == cfg.data_root == "data/dsb2018"


def test_replace_data__normalisation_is_the_backbones() -> None:
    cfg = load_config(ROOT / "configs/segvit/segvit_tiny_shapes_debug.py", {"data": "camvid_96x128"})
    assert cfg.model.data_preprocessor.mean == [127.5, 127.5, 127.5]
    assert cfg.model.data_preprocessor.size == cfg.model.backbone.img_size == (96, 128)


def test_replace_data__other_options_apply_to_the_new_data() -> None:
    options = {"data": "camvid_240x320", "data_root": "/mine", "batch_size": 5, "crop_size": 128}
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py", options)
    dataset = cfg.train_dataloader.dataset
    assert (dataset.data_root, cfg.train_dataloader.batch_size) == ("/mine", 5)
    assert [step.crop_size for step in dataset.pipeline if "crop_size" in step] == [(128, 128)]
