import pytest
import torch

from mmseg_m2f.models.backbones import TimmPlainViT, ViTAdapter
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec
from tests.models.backbones.test_timm_plain_vit import SavedBytes

DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"
SMALL = dict(embed_dim=32, depth=4, num_heads=4)
NAMES = [DINOV2, DINOV3, "vit_tiny_patch16_224", "vit_base_patch16_clip_224"]


def build(name: str = DINOV2, **options: object) -> ViTAdapter:
    backbone = ViTAdapter(name, **dict(img_size=(64, 64), model_options=SMALL) | options).eval()
    for parameter in backbone.vit.parameters():  # layer scales start at 1e-5: make every part count
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return backbone


def patch_maps(backbone: ViTAdapter, images: torch.Tensor) -> list[torch.Tensor]:
    """What the adapter is given of the transformer."""
    seen: list[torch.Tensor] = []
    finish = backbone.adapter.finish
    backbone.adapter.finish = lambda *args, **kwargs: seen.extend(args[2]) or finish(*args, **kwargs)
    backbone(images)
    del backbone.adapter.finish
    return seen


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("injectors", [False, True])
def test_vit_adapter__the_transformer_inside_is_the_plain_one(name, injectors):
    backbone, images = build(name, injectors=injectors), torch.randn(2, 3, 32, 48)
    plain = TimmPlainViT(name, out_indices=range(4), norm=not injectors, img_size=(64, 64), model_options=SMALL).eval()
    plain.vit.load_state_dict(backbone.vit.state_dict())
    for found, expected in zip(patch_maps(backbone, images), plain(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_vit_adapter__without_injectors_the_transformer_does_not_see_the_adapter():
    backbone, images = build(injectors=False), torch.randn(1, 3, 32, 48)
    before = patch_maps(backbone, images)
    for parameter in backbone.adapter.parameters():
        torch.nn.init.normal_(parameter)
    assert all(torch.equal(x, y) for x, y in zip(before, patch_maps(backbone, images), strict=True))


def test_vit_adapter__injectors_change_the_patches_once_they_learnt():
    backbone, images = build(), torch.randn(1, 3, 32, 48)
    before = patch_maps(backbone, images)
    for injector in backbone.adapter.injectors:
        torch.nn.init.ones_(injector.gamma)
    assert not any(torch.allclose(x, y) for x, y in zip(before, patch_maps(backbone, images), strict=True))


@pytest.mark.parametrize("injectors", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (48, 80)])
def test_vit_adapter__tells_channels_and_strides_as_a_run_finds_them(injectors, size):
    backbone = build(injectors=injectors)
    assert backbone.feature_info == FeatureSpec((32,) * 4, (4, 8, 16, 32))
    assert probe_feature_spec(backbone, backbone.forward) == backbone.feature_info
    maps = backbone(torch.randn(1, 3, *size))
    assert [tuple(x.shape[-2:]) for x in maps] == [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("injectors", [False, True])
@pytest.mark.parametrize("name", [DINOV2, DINOV3])
def test_vit_adapter__every_parameter_takes_part(injectors, name):
    backbone = build(name, injectors=injectors).train()
    sum(x.square().sum() for x in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("depth", [4, 8])
def test_vit_adapter__frozen_without_injectors_keeps_no_activations(depth):
    options = SMALL | dict(depth=depth, drop_path_rate=0.5)
    backbone, images = build(frozen=True, injectors=False, model_options=options).train(), torch.randn(2, 3, 64, 64)
    with SavedBytes() as saved:
        sum(x.sum() for x in backbone(images)).backward()
    assert not any(p.requires_grad or p.grad is not None for p in backbone.vit.parameters())
    with SavedBytes() as expected:
        adapter = backbone.adapter
        finest, maps, sizes = adapter.start(images)
        patches = [torch.randn(2, 32, 4, 4) for _ in range(4)]
        for group, x in enumerate(patches):
            maps = adapter.extract(group, maps, x.flatten(2).transpose(1, 2), grid=(4, 4), sizes=sizes)
        sum(x.sum() for x in adapter.finish(finest, maps, patches, sizes=sizes)).backward()
    assert saved.total == expected.total


def test_vit_adapter__frozen_with_injectors_trains_the_injectors():
    backbone = build(frozen=True).train()
    sum(x.square().sum() for x in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(injector.gamma.grad.abs().max() > 0 for injector in backbone.adapter.injectors)
    assert not any(parameter.requires_grad for parameter in backbone.vit.parameters())


def test_vit_adapter__low_rank_changes_and_adapter_are_trained():
    backbone = build(lora=dict(rank=2)).train()
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert all(name.startswith("adapter.") or "lora_" in name for name in trained)
    assert any("lora_" in name for name in trained)


def test_vit_adapter__settings_of_the_adapter():
    backbone = build(adapter=dict(num_heads=2, norm_cfg=dict(type="GN", num_groups=2), value_ratio=0.25))
    attention = backbone.adapter.extractors[0][0].attn
    assert (attention.num_heads, attention.value_proj.out_features) == (2, 8)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())


def test_vit_adapter__number_of_groups():
    with pytest.raises(ValueError, match="ViTAdapter.*expected 4 blocks, one for each map, got 2"):
        build(out_indices=(1, 3))


def test_vit_adapter__size_that_patches_do_not_fill():
    with pytest.raises(ValueError, match="ViTAdapter.*multiples of 16, got 40 × 48"):
        build()(torch.randn(1, 3, 40, 48))
