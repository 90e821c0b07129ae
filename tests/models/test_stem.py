import pytest
import torch
from torch import nn

from mmseg_m2f.models.stem import widen_stem
from mmseg_m2f.registry import MODELS

VIT = dict(type="mmseg.VisionTransformer", img_size=32, patch_size=8, embed_dims=24, num_layers=1, num_heads=2)
BACKBONES = {
    "ResNet": dict(type="mmseg.ResNet", depth=18, norm_cfg=dict(type="BN")),
    "VisionTransformer": dict(VIT, out_indices=(0,)),
    "ContextCluster": dict(type="mmseg_m2f.ContextCluster", arch="tiny"),
    "TimmTokenStream": dict(
        type="mmseg_m2f.TimmTokenStream",
        model_name="vit_tiny_patch16_224",
        img_size=(32, 32),
        num_joint_blocks=1,
        patch_size=8,
        model_options=dict(depth=2),
    ),
    "TIMMBackbone": dict(
        type="mmseg.TIMMBackbone", model_name="tf_efficientnet_lite0", pretrained=False, out_indices=(1, 2, 3, 4)
    ),
}


def first_map(backbone: nn.Module, images: torch.Tensor) -> torch.Tensor:
    backbone.eval()  # mmseg's give nothing back
    with torch.no_grad():
        maps = backbone(images)
    return maps[0] if isinstance(maps, (list, tuple)) else maps.tokens


@pytest.mark.parametrize("name", BACKBONES)
def test_widen_stem__equal_channels_give_the_same_maps(name):
    if "imm" in name.lower():
        pytest.importorskip("timm")
    backbone = MODELS.build(BACKBONES[name])
    grey = torch.randn(1, 1, 32, 32)
    before = first_map(backbone, grey.expand(1, 3, 32, 32))
    weights = backbone.state_dict()
    widen_stem(backbone, 7)
    torch.testing.assert_close(first_map(backbone, grey.expand(1, 7, 32, 32)), before, atol=2e-5, rtol=1e-4)

    other = MODELS.build(BACKBONES[name])
    widen_stem(other, 4)
    other.load_state_dict(weights)  # of the backbone for 3 channels
    torch.testing.assert_close(first_map(other, grey.expand(1, 4, 32, 32)), before, atol=2e-5, rtol=1e-4)


def test_widen_stem__mmengines_loader_fills_it_from_rgb_weights(tmp_path):
    backbone = MODELS.build(BACKBONES["ResNet"])
    torch.save(dict(state_dict=backbone.state_dict()), tmp_path / "rgb.pth")
    pretrained = dict(type="Pretrained", checkpoint=str(tmp_path / "rgb.pth"))
    wide = MODELS.build(dict(BACKBONES["ResNet"], init_cfg=pretrained))
    widen_stem(wide, 6)
    wide.init_weights()
    torch.testing.assert_close(wide.conv1.weight, backbone.conv1.weight.repeat(1, 2, 1, 1) / 2, atol=0, rtol=0)


def test_widen_stem__own_weights_stay():
    backbone = MODELS.build(BACKBONES["ResNet"])
    widen_stem(backbone, 6)
    other = MODELS.build(BACKBONES["ResNet"])
    widen_stem(other, 6)
    weight = torch.randn_like(backbone.conv1.weight)
    other.load_state_dict(dict(backbone.state_dict(), **{"conv1.weight": weight}))
    assert torch.equal(other.conv1.weight, weight)


def test_widen_stem__frozen_stays_frozen():
    backbone = MODELS.build(dict(BACKBONES["ResNet"], frozen_stages=1))
    widen_stem(backbone, 6)
    assert not backbone.conv1.weight.requires_grad


def test_widen_stem__built_for_other_channels():
    backbone = MODELS.build(dict(BACKBONES["ResNet"], in_channels=4))
    with pytest.raises(ValueError, match=r"expected images of 6 channels.*got 4 in 'conv1'. Leave in_channels out"):
        widen_stem(backbone, 6)
    with pytest.raises(TypeError, match="expected a convolution that reads the images"):
        widen_stem(nn.Linear(3, 3), 6)
