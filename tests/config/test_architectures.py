"""What names of weights say about the backbone."""

import pytest

from mmseg_m2f.config.architectures import find_misfit

SWIN_P6 = dict(type="SwinTransformer", embed_dims=128, depths=[2, 2, 18, 2, 1])


@pytest.mark.parametrize(
    ("backbone", "file"),
    [
        (dict(type="mmseg.ResNet", depth=50), "torchvision://resnet50"),
        (dict(type="mmseg.ResNet", depth=50), "mine/street_scenes.pth"),
        (dict(type="mmseg.ResNetV1c", depth=101), "open-mmlab://resnet101_v1c"),
        (dict(type="mmdet.ResNeXt", depth=101), "open-mmlab://resnext101_64x4d"),
        (SWIN_P6, "https://a.b/swin_base_patch4_window12_384_22k.pth"),  # a stage behind those of the weights
        (dict(type="mmseg.SwinTransformer", embed_dims=96), "swin_seg.pth"),
        (dict(type="mmseg.MobileNetV2"), "torchvision://resnet50"),
    ],
)
def test_find_misfit__none(backbone: dict, file: str) -> None:
    assert find_misfit(backbone, file) is None


@pytest.mark.parametrize(
    ("backbone", "file", "reason"),
    [
        (
            dict(type="mmseg.ResNet", depth=18),
            "torchvision://resnet50",
            "it is of 50 layers, the backbone has depth=18",
        ),
        (dict(type="SwinTransformer", embed_dims=192), "swin_base_patch4.pth", "it has embed_dims=128, the backbone"),
        (dict(type="MixVisionTransformer", embed_dims=64), "mit_b0_2022.pth", "it has embed_dims=32"),
        (dict(type="mmseg_m2f.ContextCluster", arch="small"), "pretrain/coc_tiny.pth", "it has arch=tiny"),
        (dict(type="VisionTransformer", embed_dims=768), "vit_large_p16_384.pth", "it has embed_dims=1024"),
    ],
)
def test_find_misfit__says_what(backbone: dict, file: str, reason: str) -> None:
    assert (find_misfit(backbone, file) or "").startswith(reason)
