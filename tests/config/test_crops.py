"""The size that is trained on, and everything that has it for that reason."""

import pytest

from mmseg_m2f.config.crops import crop_in_use, set_crop_size
from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT


def read(name: str):
    return load_config(ROOT / f"configs/{name}.py")


def test_set_crop_size__semantic() -> None:
    cfg = read("mask2former/mask2former_r50_ade20k-512_160k")
    set_crop_size(cfg, [256, 320])
    assert (
        crop_in_use(cfg)
        == cfg.crop_size
        == cfg.model.data_preprocessor.size
        == cfg.data_preprocessor.size
        == (256, 320)
    )
    (resize,) = (step for step in cfg.val_dataloader.dataset.pipeline if step.type == "mmengine.Resize")
    assert resize.scale == (2048, 512)  # of the images, not of the crops


def test_set_crop_size__generated_scenes_of_all_loops() -> None:
    cfg = read("mask2former/mask2former_r18_shapes_debug")
    set_crop_size(cfg, 64)
    assert {cfg[f"{loop}_dataloader"].dataset.image_size for loop in ("train", "val", "test")} == {(64, 64)}


def test_set_crop_size__panoptic_padding_is_width_first() -> None:
    cfg = read("mask2former/mask2former_r50_ade20k-panoptic-640_160k")
    set_crop_size(cfg, (320, 480))
    (pad,) = (step for step in cfg.train_dataloader.dataset.pipeline if step.type == "mmengine.Pad")
    assert (crop_in_use(cfg), pad["size"]) == ((320, 480), (480, 320))


def test_set_crop_size__backbones_of_a_fixed_size_and_their_tests() -> None:
    cfg = read("eomt/eomt_dinov2_vit_l_coco-panoptic-640_12e")
    set_crop_size(cfg, 320)
    (resize,) = (step for step in cfg.test_dataloader.dataset.pipeline if step.type == "mmengine.Resize")
    assert cfg.model.backbone.img_size == resize.scale == (320, 320)
    assert cfg.model.data_preprocessor.pad_size_divisor == 320
    with pytest.raises(ValueError, match="expected a square crop"):
        set_crop_size(cfg, (320, 640))


def test_set_crop_size__windows_and_decoders() -> None:
    cfg = read("segvit/segvit_vit_l_cocostuff10k-512_80k")
    set_crop_size(cfg, 256)
    assert (cfg.model.test_cfg.crop_size, cfg.model.test_cfg.stride) == ((256, 256), (170, 170))
    cfg = read("segvit/segvit-shrunk_tiny_shapes_demo")
    set_crop_size(cfg, 64)
    assert cfg.model.decode_head.query_decoder.crop_size == cfg.model.backbone.img_size == (64, 64)


@pytest.mark.parametrize("size", [(1, 2, 3), 0, (0, 5), True])
def test_set_crop_size__refuses(size: object) -> None:
    with pytest.raises(ValueError, match="crop_size=.*expected height and width in pixels"):
        set_crop_size(read("mask2former/mask2former_r18_shapes_debug"), size)


def test_crop_size__reaches_magnified_crops() -> None:
    leaf = ROOT / "configs/mask2former/mask2former_efficientnet-lite0_dsb2018-384_2000.py"
    cfg = load_config(leaf, {"crop_size": 256})
    crops = [step for step in cfg.train_dataloader.dataset.pipeline if "crop_size" in step]
    assert [step.crop_size for step in crops] == [(256, 256)]
    assert cfg.model.data_preprocessor.batch_augments[0].size == (256, 256)
    assert crop_in_use(cfg) == (256, 256)


def test_crop_size__of_mmdet_is_width_and_height() -> None:
    cfg = load_config(ROOT / "configs/mask2former/mask2former-tiny_r18_dsb2018-256_cpu.py", {"crop_size": [128, 256]})
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == "mmdet.RandomCrop")
    assert crop.crop_size == (256, 128)
    assert crop_in_use(cfg) == cfg.crop_size == (128, 256)
