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


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/_base_/backbones/timm_eff*.py")), ids=lambda path: path.stem)
def test_ingredients__normalisation_is_timms(path) -> None:
    import timm

    backbone = load_config(ROOT / f"configs/mask2former/mask2former_{path.stem}_ade20k-512_160k.py").model
    expected = timm.get_pretrained_cfg(backbone.backbone.model_name)
    assert backbone.data_preprocessor.mean == [255 * value for value in expected.mean]
    assert backbone.data_preprocessor.std == [255 * value for value in expected.std]
