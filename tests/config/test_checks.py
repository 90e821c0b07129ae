"""The check of types and arguments before anything is built."""

import importlib
from contextlib import nullcontext
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.config.checks import check_config
from tests.tiny_segmentation import tiny_config


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / "data")


def test_check_config__leaves_a_good_one_as_it_is(cfg: Config) -> None:
    before = cfg.to_dict()
    check_config(cfg)
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        (
            {"model.backbone.type": "mmseg.ResNte"},
            KeyError,
            ["model.backbone.type", "'mmseg.ResNte'", "mmseg.ResNet", "Correct the spelling"],
        ),
        (
            {"model.backbone.type": "ResNet"},
            KeyError,
            ["model.backbone.type", "scope 'mmengine'", "mmseg.ResNet"],
        ),
        (
            {"model.backbone.type": "mmpose.HRNet"},
            KeyError,
            ["model.backbone.type", "'mmpose' is not installed", "pip install mmpose"],
        ),
        (
            {"model.decode_head.num_clases": 3},
            TypeError,
            ["model.decode_head.num_clases", "FCNHead takes no argument", "Nearest: num_classes"],
        ),
        (
            {"train_dataloader.dataset.pipeline.0.transforms.0.imdecode": "cv2"},
            TypeError,
            ["train_dataloader.dataset.pipeline[0].transforms[0].imdecode", "imdecode_backend"],
        ),
        (
            {"custom_hooks.0.type": "mmseg_m2f.Prefligth"},
            KeyError,
            ["custom_hooks[0].type", "mmseg_m2f.Preflight"],
        ),
        ({"optim_wraper": dict(a=1)}, KeyError, ["'optim_wraper'", "expected 'optim_wrapper'", "Rename it"]),
        ({"trian_cfg": dict(a=1)}, KeyError, ["'trian_cfg'", "expected 'train_cfg'"]),
    ],
)
def test_check_config__names_path_and_nearest(
    cfg: Config, options: dict, error: type[Exception], parts: list[str]
) -> None:
    cfg.merge_from_dict(options)
    with pytest.raises(error) as raised:
        check_config(cfg)
    assert [part for part in parts if part not in raised.value.args[0]] == []


@pytest.mark.parametrize(
    "options",
    [
        {"val_evaluator_coco": dict(type="anything")},
        {"my_pipeline": [dict(type="mmseg.Nothing")]},
        {"custom_hooks.0.priority": "LOW"},
        {"optim_wrapper.constructor": "mmengine.DefaultOptimWrapperConstructor"},
        {"optim_wrapper.paramwise_cfg": dict(bias_lr_mult=2.0)},
        {"param_scheduler.0.convert_to_iter_based": True},
        {"model.backbone.init_cfg": dict(type="Normal", layer="Conv2d", std=0.1, override=dict(name="conv1"))},
        {"model.decode_head.loss_decode.class_weight": [1.0, 2.0]},
    ],
)
def test_check_config__knows_what_the_framework_takes_out(cfg: Config, options: dict) -> None:
    cfg.merge_from_dict(options)
    before = cfg.to_dict()
    check_config(cfg)
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ("model", "key", "fault"),
    [
        ("mmseg_m2f.MaskSegmentor", "lora", None),
        ("mmseg_m2f.MaskDetector", "lora", None),
        ("mmseg_m2f.MaskSegmentor", "lroa", "ResNet takes no argument 'lroa'"),
        ("mmseg.EncoderDecoder", "lora", "ResNet takes no argument 'lora'"),
    ],
)
def test_check_config__lora_of_any_backbone_of_our_segmentors(model: str, key: str, fault: str | None) -> None:
    backbone = {"type": "mmseg.ResNet", "depth": 18, key: dict(rank=2)}
    cfg = Config(dict(model=dict(type=model, backbone=backbone)))
    with nullcontext() if fault is None else pytest.raises(TypeError, match=fault):
        check_config(cfg)


def test_check_config__asks_for_a_leaf(cfg: Config) -> None:
    with pytest.raises(KeyError, match=r"expected a top-level key 'model'.*leaf"):
        check_config(Config(dict(train_cfg=cfg.train_cfg)))


@pytest.mark.parametrize(
    "name",
    [
        "mmseg/mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py",
        "mmseg/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py",
        "mmseg/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
        "mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
        "mmdet/detr/detr_r50_8xb2-150e_coco.py",
        "mmdet/queryinst/queryinst_r50_fpn_1x_coco.py",
    ],
)
def test_check_config__raises_no_false_alarm_on_upstream_configs(name: str) -> None:
    package, _, rest = name.partition("/")
    folder = Path(importlib.import_module(package).__file__ or "").parent
    check_config(Config.fromfile(folder / ".mim/configs" / rest))
