import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.models.feature_spec import crop_size_of, image_channels_of, probe_feature_spec
from mmseg_m2f.structures import FeatureSpec


class Pyramid(nn.Module):
    """Two maps of strides 2 and 4, from as many channels as one likes."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.fine = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.coarse = nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        fine = self.drop(self.norm(self.fine(images)))
        return [fine, self.coarse(fine)]


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_probe_feature_spec__channels_and_strides(in_channels):
    backbone = Pyramid(in_channels)
    assert probe_feature_spec(backbone, backbone) == FeatureSpec((4, 8), (2, 4))


def test_probe_feature_spec__leaves_no_trace():
    backbone = Pyramid().train()
    backbone.drop.eval()
    statistics, random_state = backbone.norm.running_mean.clone(), torch.get_rng_state()
    probe_feature_spec(backbone, backbone)
    assert torch.equal(backbone.norm.running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert backbone.norm.training
    assert not backbone.drop.training


def test_probe_feature_spec__not_a_list_of_maps():
    backbone = Pyramid()
    with pytest.raises(TypeError, match="expected a list of maps .* got Tensor.*out_indices"):
        probe_feature_spec(backbone, lambda images: backbone(images)[0])


def test_probe_feature_spec__coarse_to_fine_is_refused():
    backbone = Pyramid()
    with pytest.raises(TypeError, match=r"got strides \(4, 2\)"):
        probe_feature_spec(backbone, lambda images: backbone(images)[::-1])


def preprocessor(type: str = "mmseg.SegDataPreProcessor", **options: object) -> nn.Module:
    return MODELS.build(dict(type=type, mean=[0.0] * 3, std=[1.0] * 3, **options))


def timm(model_name: str, **options: object) -> nn.Module:
    return MODELS.build(dict(type="mmseg.TIMMBackbone", model_name=model_name, pretrained=False, **options))


def tiny_timm_vit(**options: object) -> nn.Module:
    return timm("vit_tiny_patch16_224", embed_dim=12, depth=2, num_heads=2, out_indices=(0, 1), **options)


class Wrapped(nn.Module):
    """The same maps without a description of them."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.inside = backbone

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.inside(images)


def csp_darknet() -> nn.Module:
    """Its stem moves 2×2 pixels into the channels, so that the first convolution reads 12."""
    return MODELS.build(dict(type="mmdet.CSPDarknet", deepen_factor=0.33, widen_factor=0.125, norm_cfg=dict(type="BN")))


def test_probe_feature_spec__image_channels_come_from_the_data_preprocessor():
    backbone = csp_darknet()
    spec = probe_feature_spec(backbone, backbone, image_channels=image_channels_of(preprocessor()))
    assert spec == FeatureSpec((32, 64, 128), (8, 16, 32))
    with pytest.raises(ValueError, match=r"CSPDarknet\): expected it to run on images of 12 × 64 × 64 .*in_channels"):
        probe_feature_spec(backbone, backbone)


def test_image_channels_of__one_value_or_none_fit_any_image():
    assert image_channels_of(MODELS.build(dict(type="mmseg.SegDataPreProcessor"))) is None
    gray = dict(type="mmseg.SegDataPreProcessor", mean=[0.0], std=[1.0])
    assert image_channels_of(MODELS.build(gray)) is None


def test_crop_size_of__both_libraries():
    assert crop_size_of(preprocessor(size=(96, 64))) == (96, 64)
    pad = dict(type="mmdet.BatchFixedSizePad", size=(32, 48), pad_mask=False)
    assert crop_size_of(preprocessor("mmdet.DetDataPreprocessor", batch_augments=[pad])) == (32, 48)
    assert crop_size_of(preprocessor()) is None


def mmseg_transformer(type: str, **options: object) -> nn.Module:
    cfg = dict(type=type, img_size=(96, 96), patch_size=16, embed_dims=12, num_layers=2, num_heads=2)
    return MODELS.build(cfg | dict(out_indices=(0, 1)) | options)


FIXED_SIZE = dict(
    mmseg_beit=lambda: mmseg_transformer("mmseg.BEiT", qv_bias=True),
    mmseg_vit=lambda: mmseg_transformer("mmseg.VisionTransformer"),
    mmseg_mae=lambda: mmseg_transformer("mmseg.MAE"),
    timm_vit=lambda: tiny_timm_vit(img_size=96),
    timm_beit=lambda: timm(
        "beit_base_patch16_224", img_size=96, embed_dim=12, depth=2, num_heads=2, out_indices=(0, 1)
    ),
)


@pytest.mark.parametrize("crop_size", [None, (96, 96)])
@pytest.mark.parametrize("name", FIXED_SIZE)
def test_probe_feature_spec__backbones_of_one_size(name, crop_size):
    backbone = Wrapped(FIXED_SIZE[name]())
    assert probe_feature_spec(backbone, backbone, crop_size=crop_size) == FeatureSpec((12, 12), (16, 16))


def test_probe_feature_spec__other_size_than_the_crop():
    backbone = Wrapped(tiny_timm_vit(img_size=96))
    message = r"images of 3 × 64 × 64 and 3 × 128 × 128 .*got AssertionError: .*img_size to the crop size"
    with pytest.raises(ValueError, match=message) as caught:
        probe_feature_spec(backbone, backbone, crop_size=(128, 128))
    assert isinstance(caught.value.__cause__, AssertionError)


def tiny_timm_swin(**options: object) -> nn.Module:
    return timm(
        "swin_tiny_patch4_window7_224", img_size=96, window_size=3, embed_dim=12, depths=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8), **options,
    )  # fmt: skip


@pytest.mark.parametrize("described", [True, False])
def test_probe_feature_spec__channels_last_maps(described):
    backbone = tiny_timm_swin() if described else Wrapped(tiny_timm_swin())
    with pytest.raises(TypeError, match=r"got channels-last maps B H W C. .*feature_cls='getter'"):
        probe_feature_spec(backbone, backbone)
    moved = tiny_timm_swin(feature_cls="getter")
    moved = moved if described else Wrapped(moved)
    assert probe_feature_spec(moved, moved) == FeatureSpec((12, 24, 48, 96), (4, 8, 16, 32))


@pytest.mark.parametrize("model_name", ["tresnet_m", "resnet10t"])
def test_probe_feature_spec__description_is_what_a_run_finds(model_name):
    backbone = timm(model_name, out_indices=(1, 3))
    described = probe_feature_spec(backbone, backbone)
    found = probe_feature_spec(Wrapped(backbone), backbone.timm_model, image_channels=3)
    assert described == found


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3)])
def test_context_cluster__description_is_what_a_run_finds(out_indices):
    fields = dict(depths=(1,) * 4, widths=(8, 12, 16, 20), heads=(1,) * 4, head_width=4)
    backbone = MODELS.build(dict(type="mmseg_m2f.ContextCluster", arch=fields, out_indices=out_indices))
    found = probe_feature_spec(Wrapped(backbone), backbone, image_channels=3)
    assert probe_feature_spec(backbone, backbone) == found


def test_timm_token_stream__description_is_what_a_run_finds():
    options = dict(embed_dim=32, depth=3, num_heads=4)
    backbone = MODELS.build(
        dict(type="mmseg_m2f.TimmTokenStream", model_name="vit_tiny_patch16_224", num_joint_blocks=2,
             img_size=(64, 64), model_options=options)
    )  # fmt: skip
    assert probe_feature_spec(backbone, backbone) == probe_feature_spec(Wrapped(backbone), backbone)


def test_probe_feature_spec__description_is_not_run():
    backbone = Pyramid()
    backbone.feature_info = FeatureSpec((4, 8), (2, 4))
    backbone.forward = None
    assert probe_feature_spec(backbone, backbone) == FeatureSpec((4, 8), (2, 4))
