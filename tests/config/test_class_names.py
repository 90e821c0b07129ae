"""Classes: their number and names in heads, weights, things, metrics and datasets."""

import pytest

from mmseg_m2f.config.class_names import classes_in_use, set_class_names, set_num_classes, set_thing_classes
from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT


def read(name: str):
    return load_config(ROOT / f"configs/{name}.py")


def test_set_class_names__of_free_names_keep_known_colours() -> None:
    cfg = read("mask2former/mask2former_r18_camvid-360x480_20k")
    set_class_names(cfg, ["Sky", "Car"])
    metainfo = cfg.val_dataloader.dataset.metainfo
    assert (metainfo["classes"], metainfo["palette"]) == (("Sky", "Car"), [[128, 128, 128], [64, 0, 128]])
    set_class_names(cfg, ["Sky", "Boat", "Bike"])
    assert "palette" not in cfg.val_dataloader.dataset.metainfo
    assert cfg.model.decode_head.num_classes == classes_in_use(cfg) == cfg.num_classes == 3


def test_set_class_names__of_fixed_names_are_a_choice() -> None:
    cfg = read("mask2former/mask2former_r50_ade20k-512_160k")
    set_class_names(cfg, ("sky", "wall"))
    assert cfg.train_dataloader.dataset.metainfo["classes"] == ("sky", "wall")
    with pytest.raises(ValueError, match=r"ADE20KDataset\) has classes of its own, wall, .*without boat-house"):
        set_class_names(cfg, ("sky", "boat-house"))


def test_set_class_names__reach_every_head_and_class_weights() -> None:
    cfg = read("cac/cac-upernet_r18_shapes_debug")
    cfg.model.auxiliary_head.loss_decode = dict(type="mmseg.CrossEntropyLoss", class_weight=[1.0] * 8)
    set_class_names(cfg, ["a", "b", "c"])
    assert cfg.model.decode_head.host.num_classes == cfg.model.auxiliary_head.num_classes == 3
    assert len(cfg.model.auxiliary_head.loss_decode.class_weight) == 3
    assert cfg.train_dataloader.dataset.metainfo["classes"] == ("a", "b", "c")
    cfg.model.auxiliary_head.loss_decode.class_weight = [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="expected the same weight for all classes"):
        set_num_classes(cfg, 2)


def test_set_num_classes__unnamed_classes_are_numbered_and_said() -> None:
    cfg = read("mask2former/mask2former_r18_shapes_debug")
    with pytest.warns(UserWarning, match="had the names of 8 classes; now they are called class 0…1"):
        set_num_classes(cfg, 2)
    assert cfg.test_dataloader.dataset.metainfo["classes"] == ("class 0", "class 1")


def test_set_num_classes__names_in_annotation_files_stay_there() -> None:
    cfg = read("mask2former/mask2former-tiny_r18_dsb2018-256_cpu")
    set_num_classes(cfg, 4)
    assert "classes" not in cfg.train_dataloader.dataset.metainfo
    assert cfg.model.thing_classes == [0, 1, 2, 3]


def test_set_num_classes__things_that_are_gone() -> None:
    cfg = read("mask2former/mask2former_r18_shapes-panoptic_demo")
    with pytest.raises(ValueError, match=r"thing_classes are .*Give thing_classes"):
        load_config(ROOT / "configs/mask2former/mask2former_r50_coco-panoptic-1024_50e.py", {"num_classes": 7})
    set_thing_classes(cfg, [0, 7])
    assert cfg.model.thing_classes == cfg.val_evaluator[0].thing_classes == [0, 7]
    assert cfg.train_dataloader.dataset.metainfo["stuff_ids"] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="thing_classes=.*expected numbers of classes, 0…7"):
        set_thing_classes(cfg, [8])


def test_set_num_classes__classes_that_a_loader_numbers_are_fixed() -> None:
    cfg = read("mask2former/mask2former_r50_cityscapes-panoptic-512x1024_90k")
    with pytest.raises(ValueError, match="CityscapesDataset\\) has 19 classes of its own"):
        set_num_classes(cfg, 7)
