"""Checks of config, data folders and checkpoint before anything is built."""

import importlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.initial_weights import check_initial_weights
from tests.tiny_segmentation import tiny_config, write_dataset


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / "data")


def test_check_config__passes_a_good_one(cfg: Config) -> None:
    check_config(cfg)


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
    check_config(cfg)


def test_check_config__asks_for_a_leaf(cfg: Config) -> None:
    with pytest.raises(KeyError, match=r"expected a top-level key 'model'.*leaf"):
        check_config(Config(dict(train_cfg=cfg.train_cfg)))


def test_check_data_paths__passes_existing_folders(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    check_data_paths(cfg)


def test_check_data_paths__names_key_place_and_option(cfg: Config, tmp_path: Path) -> None:
    cfg.train_dataloader.dataset = dict(type="mmengine.RepeatDataset", times=2, dataset=cfg.train_dataloader.dataset)
    cfg.data_root = str(tmp_path / "data")
    with pytest.raises(FileNotFoundError) as raised:
        check_data_paths(cfg)
    message = str(raised.value)
    assert message.startswith("train_dataloader.dataset.dataset.data_root: expected an existing path")
    assert str(tmp_path / "data") in message
    assert str(Path.cwd()) in message
    assert "--cfg-options data_root=PATH" in message


def test_check_data_paths__names_the_missing_prefix_and_what_lies_beside(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.val_dataloader.dataset.data_prefix.seg_map_path = "lables"
    with pytest.raises(FileNotFoundError, match=r"val_dataloader.dataset.data_prefix.seg_map_path.*images, labels"):
        check_data_paths(cfg)


def test_check_data_paths__names_the_wrong_suffix(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.train_dataloader.dataset.pop("img_suffix")  # the class then looks for .jpg
    with pytest.raises(FileNotFoundError, match=r"expected files '\*.jpg' below .*/images', got only .png. Set train_"):
        check_data_paths(cfg)


def test_check_data_paths__looks_at_the_needed_loops_only(cfg: Config, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=1)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / "elsewhere")
    check_data_paths(cfg, loops=["test"])


@pytest.mark.parametrize("root", ["s3://bucket/data", None, ""])
def test_check_data_paths__passes_over_remote_and_rootless(cfg: Config, root: str | None) -> None:
    for loop in ("train", "val", "test"):
        cfg[f"{loop}_dataloader"].dataset.data_root = root
    check_data_paths(cfg)


class Bomb:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("in_list", [False, True])
def test_check_initial_weights__names_the_key(cfg: Config, tmp_path: Path, in_list: bool) -> None:
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "backbone.pth"))
    cfg.model.backbone.init_cfg = [dict(type="Kaiming", layer="Conv2d"), init_cfg] if in_list else init_cfg
    place = r"model\.backbone\.init_cfg" + r"\[1\]" * in_list
    advice = r"add --cfg-options model\.backbone\.init_cfg=None"
    with pytest.raises(FileNotFoundError, match=rf"^{place}\.checkpoint: .*does not exist.*{advice}"):
        check_initial_weights(cfg)
    torch.save(dict(state_dict=Bomb()), tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match=rf"^{place}\.checkpoint: .*refused.*{advice}"):
        check_initial_weights(cfg)
    torch.save(dict(weight=torch.ones(1)), tmp_path / "backbone.pth")
    check_initial_weights(cfg)


@pytest.mark.parametrize("name", ["dinov2.pth", "dinov2.safetensors"])
def test_check_initial_weights__of_timm(cfg: Config, tmp_path: Path, name: str) -> None:
    cfg.model.backbone.checkpoint_path = str(tmp_path / name)
    message = rf"^model\.backbone\.checkpoint_path: .*{name} does not exist.*model\.backbone\.checkpoint_path=None"
    with pytest.raises(FileNotFoundError, match=message):
        check_initial_weights(cfg)


def test_check_initial_weights__passes_over_remote_ones(cfg: Config) -> None:
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="torchvision://resnet18")
    check_initial_weights(cfg)


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
