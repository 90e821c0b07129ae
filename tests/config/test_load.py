"""Reading config files; what the command line may change in them."""

import errno
import functools
import tempfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.config.load import load_config
from tests.command_line import ROOT
from tests.tiny_segmentation import tiny_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """`configs/tiny.py` with a shared data_root, beside two backbone ingredients."""
    folder = tmp_path / "configs/method"
    ingredients = tmp_path / "configs/_base_/backbones"
    folder.mkdir(parents=True)
    ingredients.mkdir(parents=True)
    (ingredients / "wide.py").write_text('backbone = dict(type="mmseg.ResNet", depth=34)\n')
    (ingredients / "narrow.py").write_text('backbone = dict(type="mmseg.MobileNetV2")\n')
    (ingredients / "empty.py").write_text("depth = 3\n")
    cfg = tiny_config(tmp_path / "data")
    cfg.data_root = str(tmp_path / "data")
    cfg.test_dataloader.dataset.data_root = "elsewhere"
    cfg.dump(folder / "tiny.py")
    return folder / "tiny.py"


def test_load_config__names_the_nearest_file(config: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tyni.py: expected an existing file.*Nearest: .*tiny.py"):
        load_config(config.with_name("tyni.py"))
    with pytest.raises(FileNotFoundError, match=r"Nearest: .*method/tiny.py"):
        load_config(config.parents[1] / "methods/tiny.py")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "model = dict(\n"),
        ("a.json", '{"model": '),
        ("a.json", "[" * 100_000),
        ("a.yaml", "model: [1"),
        ("a.yaml", "[" * 100_000),
        ("a.py", '_base_ = "a.py"\n'),
    ],
)
def test_load_config__what_is_no_config(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: expected a config, got .*Correct the file"):
        load_config(tmp_path / name)


def test_load_config__names_the_folder_of_temporary_files_where_it_is_full(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Config, "fromfile", full)
    with pytest.raises(OSError, match="No space left") as raised:
        load_config(config)
    assert raised.value.filename == tempfile.gettempdir()


def test_load_config__work_dir_is_option_or_config_or_name(config: Path) -> None:
    assert load_config(config).work_dir == "work_dirs/tiny"
    assert load_config(config, {"work_dir": "mine"}).work_dir == "mine"
    assert load_config(config, {"work_dir": "mine"}, work_dir="given").work_dir == "given"


def test_load_config__data_root_reaches_the_datasets_that_shared_it(config: Path) -> None:
    cfg = load_config(config, {"data_root": "/new"})
    roots = [cfg[f"{loop}_dataloader"].dataset.data_root for loop in ("train", "val", "test")]
    assert roots == ["/new", "/new", "elsewhere"]
    assert cfg.data_root == "/new"


def test_load_config__data_root_needs_a_dataset_with_files(tmp_path: Path) -> None:
    (tmp_path / "generated.py").write_text('train_dataloader = dict(dataset=dict(type="mmseg_m2f.GeneratedShapes"))\n')
    with pytest.raises(ValueError, match=r"data_root=/new: no dataset of .*generated.py has a data_root"):
        load_config(tmp_path / "generated.py", {"data_root": "/new"})


@pytest.mark.parametrize("as_path", [True, False])
def test_load_config__backbone_is_replaced_whole(config: Path, as_path: bool) -> None:
    name = str(config.parents[1] / "_base_/backbones/wide.py") if as_path else "wide"
    cfg = load_config(config, {"backbone": name, "model.backbone.out_indices": (0,)})
    assert dict(cfg.model.backbone) == dict(type="mmseg.ResNet", depth=34, out_indices=(0,))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("wid", ValueError, "backbone=wid: expected the name of a file.*Nearest: wide"),
        ("empty", ValueError, "empty.py defines no backbone"),
        ("no/such.py", FileNotFoundError, "expected an ingredient file"),
    ],
)
def test_load_config__backbone_names_the_nearest(config: Path, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_config(config, {"backbone": name})


@pytest.mark.parametrize(
    ("leaf", "part", "expected"),
    [
        ("ecenet/ecenet_r18_shapes_demo", "decode_head", dict(in_channels=[32, 48, 64, 96])),
        ("segnext/segnext_r18_shapes_demo", "decode_head", dict(in_channels=[48, 64, 96])),
        ("cac/cac-deeplabv3plus_r18_shapes_demo", "decode_head.host", dict(in_channels=96, c1_in_channels=32)),
        ("cac/cac-deeplabv3plus_r18_shapes_demo", "auxiliary_head", dict(in_channels=64)),
        ("context_cluster/semantic-fpn_coc_tiny_shapes_demo", "neck", dict(in_channels=[64, 128, 256, 512])),
    ],
)
def test_load_config__per_pixel_heads_get_the_channels_of_another_backbone(
    leaf: str, part: str, expected: dict
) -> None:
    name = "r18_from_scratch" if part == "neck" else "coc_tiny_from_scratch"
    cfg = load_config(ROOT / f"configs/{leaf}.py", {"backbone": name})
    node = functools.reduce(getattr, part.split("."), cfg.model)
    assert {key: node[key] for key in expected} == expected
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape[:2] == (1, 8)


def test_load_config__channels_that_are_given_stay() -> None:
    options = {"backbone": "coc_tiny_from_scratch", "model.decode_head.in_channels": [1, 2, 3, 4]}
    cfg = load_config(ROOT / "configs/ecenet/ecenet_r18_shapes_demo.py", options)
    assert cfg.model.decode_head.in_channels == [1, 2, 3, 4]


def test_load_config__another_backbone_with_too_few_maps() -> None:
    options = {"backbone": "coc_tiny_from_scratch", "model.backbone.out_indices": (0, 1)}
    with pytest.raises(ValueError, match=r"SegNeXtHead reads map 3 \(in_index\), but the backbone gives 2"):
        load_config(ROOT / "configs/segnext/segnext_r18_shapes_demo.py", options)


def test_load_config__another_type_keeps_what_it_takes(config: Path) -> None:
    with pytest.warns(UserWarning, match=r"former type: base_channels, depth; it keeps norm_cfg"):
        cfg = load_config(config, {"model.backbone.type": "mmseg.MobileNetV2"})
    assert dict(cfg.model.backbone) == dict(type="mmseg.MobileNetV2", norm_cfg=dict(type="BN", requires_grad=True))


def test_load_config__another_optimizer_wrapper_keeps_the_parameter_rule() -> None:
    options = {"optim_wrapper.type": "mmseg_m2f.Bfloat16OptimWrapper"}
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py", options)
    assert cfg.optim_wrapper.constructor == "mmseg_m2f.ParameterRule"
    cfg = load_config(ROOT / "configs/ecenet/ecenet_swin_b_ade20k-640_160k.py", options)
    assert cfg.optim_wrapper.paramwise_cfg == dict(backbone_lr_mult=1.0)


def test_load_config__another_type_in_a_list(config: Path) -> None:
    options = {"param_scheduler.0.type": "mmengine.LinearLR", "param_scheduler.0.start_factor": 0.1}
    with pytest.warns(UserWarning, match=r"param_scheduler.0.type=mmengine.LinearLR drops .*: eta_min, power;"):
        cfg = load_config(config, options)
    assert dict(cfg.param_scheduler[0]) == dict(
        type="mmengine.LinearLR", begin=0, end=4, by_epoch=False, start_factor=0.1
    )


def test_load_config__data_root_reaches_the_paths_below_it(tmp_path: Path) -> None:
    leaf = ROOT / "configs/detr/detr_r50_coco-detection-800_150e.py"
    cfg = load_config(leaf, {"data_root": str(tmp_path)})
    assert cfg.val_evaluator.ann_file == f"{tmp_path}/annotations/instances_val2017.json"
    assert cfg.test_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.train_dataloader.dataset.ann_file == "annotations/instances_train2017.json"
