"""Another backbone brings the normalisation that its weights expect."""

import pytest
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.swap_backbone import IMAGENET, fit_channels
from tests.command_line import ROOT

SEGVIT = ROOT / "configs/segvit/segvit_tiny_shapes_debug.py"
MASK2FORMER = ROOT / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"
HALVES = [127.5, 127.5, 127.5]


def test_replace_backbone__normalisation_is_the_ingredients() -> None:
    cfg = load_config(MASK2FORMER, {"backbone": "timm_efficientnetv2_s"})
    for preprocessor in (cfg.model.data_preprocessor, cfg.data_preprocessor):
        assert (preprocessor.mean, preprocessor.std, preprocessor.bgr_to_rgb) == (HALVES, HALVES, True)
    cfg = load_config(SEGVIT, {"backbone": "r18_from_scratch"})
    assert {key: cfg.model.data_preprocessor[key] for key in IMAGENET} == IMAGENET


def test_replace_backbone__a_mean_of_ones_own_stays_with_a_warning(tmp_path) -> None:
    leaf = tmp_path / "mine.py"
    leaf.write_text(f"_base_ = {str(MASK2FORMER)!r}\nmodel = dict(data_preprocessor=dict(mean=[1.0, 2.0, 3.0]))\n")
    with pytest.warns(UserWarning, match=r"keeps mean=\[1.0, 2.0, 3.0\]"):
        cfg = load_config(leaf, {"backbone": "timm_efficientnetv2_s"})
    assert cfg.model.data_preprocessor.mean == [1.0, 2.0, 3.0]
    assert load_config(leaf, {"backbone": "r101"}).model.data_preprocessor.mean == [1.0, 2.0, 3.0]


class SpaceToDepth(nn.Module):
    """Its first convolution has four times the channels of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, 8, 1)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.stem(F.pixel_unshuffle(images, 2)),)


def test_fit_channels__images_have_as_many_channels_as_the_preprocessor_gives() -> None:
    model = dict(
        backbone=dict(type=SpaceToDepth),
        data_preprocessor=dict(mean=[0.0] * 4, std=[1.0] * 4),
        decode_head=dict(type="mmseg.FCNHead", in_channels=3),
    )
    cfg = Config(dict(model=model))
    fit_channels(cfg)
    assert cfg.model.decode_head.in_channels == 8


def test_replace_backbone__given_values_win() -> None:
    options = {"backbone": "timm_efficientnetv2_s", "model.data_preprocessor.mean": [0.0, 0.0, 0.0]}
    assert load_config(MASK2FORMER, options).model.data_preprocessor.mean == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("configs/_base_/backbones/*.py")) if "model_name" in path.read_text()],
    ids=lambda path: path.stem,
)
def test_ingredients__normalisation_is_timms(path) -> None:
    import timm

    ingredient = Config.fromfile(path)
    if not ingredient.backbone.get("pretrained"):
        return
    expected = timm.get_pretrained_cfg(ingredient.backbone.model_name)
    found = IMAGENET | ingredient.get("normalization", {})
    assert found["mean"] == pytest.approx([255 * value for value in expected.mean])
    assert found["std"] == pytest.approx([255 * value for value in expected.std])


UPERNET = ROOT / "configs/per_pixel/upernet_r18_shapes_demo.py"


def test_replace_backbone__brings_its_neck_and_takes_it_along() -> None:
    cfg = load_config(MASK2FORMER, {"backbone": "pyramid_dinov2_vit_s"})
    assert cfg.model.neck == dict(type="mmseg_m2f.SimplePyramid", in_channels=384)
    leaf = ROOT / "configs/mask2former/mask2former-pyramid_vit_tiny_shapes_demo.py"
    assert load_config(leaf).model.neck.in_channels == 192
    assert "neck" not in load_config(leaf, {"backbone": "r18_from_scratch"}).model


def test_replace_backbone__a_neck_of_ones_own_stays(tmp_path) -> None:
    leaf = tmp_path / "mine.py"
    neck = dict(type="mmseg.FPN", in_channels=[256, 512, 1024, 2048], out_channels=64, num_outs=4)
    leaf.write_text(f"_base_ = {str(MASK2FORMER)!r}\nmodel = dict(neck={neck})\n")
    assert load_config(leaf, {"backbone": "swin_t"}).model.neck.in_channels == [96, 192, 384, 768]


def test_fit_channels__heads_behind_a_neck_get_the_necks() -> None:
    cfg = load_config(UPERNET, {"backbone": "pyramid_vit_tiny_from_scratch", "model.neck.scales": [4, 2, 1, 0.5]})
    assert cfg.model.neck.in_channels == 192
    assert cfg.model.decode_head.in_channels == [64] * 4
    assert cfg.model.auxiliary_head.in_channels == 64
