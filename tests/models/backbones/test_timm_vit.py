"""What all backbones from timm's vision transformers share: images, positions, errors."""

import pytest
import torch

from mmseg_m2f.layers.lora import merge_lora
from mmseg_m2f.models.backbones.timm_vit import adapt_vit, build_timm_vit, check_image_size, undecayed_names

DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"
SMALL = dict(embed_dim=32, depth=2, num_heads=4)


def build(name: str = DINOV2, **options: object) -> torch.nn.Module:
    return build_timm_vit(name, **dict(img_size=(64, 64), patch_size=16, model_options=SMALL) | options)


@pytest.mark.parametrize(
    ("size", "nearest"), [((40, 48), "32 or 48 × 48"), ((64, 70), "64 × 64 or 80"), ((9, 16), "16 × 16")]
)
def test_check_image_size__size_that_patches_do_not_fill(size, nearest):
    with pytest.raises(ValueError, match=f"ViT.*multiples of 16, got {size[0]} × {size[1]}. Nearest: {nearest}"):
        check_image_size(size, 16, backbone="ViT")


def test_build_timm_vit__no_plain_vision_transformer():
    with pytest.raises(ValueError, match="expected a plain vision transformer .* got 'swin_tiny_patch4_window7_224'"):
        build_timm_vit("swin_tiny_patch4_window7_224", img_size=(224, 224), patch_size=4)


@pytest.mark.parametrize(("name", "grid"), [(DINOV2, (37, 37)), ("vit_tiny_patch16_224", (14, 14))])
def test_build_timm_vit__keeps_the_grid_of_the_weights_whatever_the_patches(name, grid):
    with torch.device("meta"):
        vit = build_timm_vit(name, img_size=None, patch_size=8, model_options=SMALL)
    assert vit.patch_embed.grid_size == grid
    assert vit.patch_embed.patch_size == (8, 8)


def test_build_timm_vit__positions_are_resized_as_timm_does():
    from timm.layers import resample_abs_pos_embed

    vit = build().eval()
    torch.nn.init.normal_(vit.pos_embed)
    expected = build(img_size=(32, 96)).eval()
    resized = resample_abs_pos_embed(vit.pos_embed.data, new_size=(2, 6), old_size=(4, 4), num_prefix_tokens=0)
    expected.load_state_dict(vit.state_dict() | dict(pos_embed=resized))
    images = torch.randn(2, 3, 32, 96)
    torch.testing.assert_close(vit.forward_features(images), expected.forward_features(images))


def test_build_timm_vit__positions_that_do_not_fit():
    weights = build(img_size=(32, 48)).state_dict()
    with pytest.raises(
        ValueError, match=r"pos_embed: expected .* 4 × 4 patches \(img_size=\(64, 64\)\), got \(1, 6, 32\)"
    ):
        build().load_state_dict(weights)


def test_build_timm_vit__rotary_positions_fit_every_checkpoint():
    found, given = build(DINOV3), build(DINOV3, img_size=(32, 48))
    torch.nn.init.normal_(given.blocks[0].mlp.fc1.weight)
    found.load_state_dict(given.state_dict())
    assert torch.equal(found.blocks[0].mlp.fc1.weight, given.blocks[0].mlp.fc1.weight)


def test_undecayed_names__are_positions_and_tokens():
    assert undecayed_names(build()) == {"pos_embed", "cls_token", "reg_token"}
    assert undecayed_names(build(DINOV3)) == {"cls_token", "reg_token"}


def outputs_of_blocks(vit: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What each block makes of the same input."""
    inputs: list[tuple] = []
    handles = [
        block.register_forward_pre_hook(lambda _, args, kwargs: inputs.append((args, kwargs)), with_kwargs=True)
        for block in vit.blocks
    ]
    vit.forward_features(images)
    for handle in handles:
        handle.remove()
    return [block(inputs[0][0][0], **inputs[0][1]) for block in vit.blocks]


@pytest.mark.parametrize(
    "name", [DINOV2, DINOV3, "vit_small_patch16_dinov3_qkvb", "vit_tiny_patch16_224", "vit_base_patch16_clip_224"]
)
@pytest.mark.parametrize("layer", ["attn.qkv", "attn.proj"])
def test_adapt_vit__changes_every_block_and_merges_into_it(name, layer):
    vit, images = build(name).eval(), torch.randn(1, 3, 32, 48)
    for parameter in vit.parameters():  # layer scales start at 1e-5: make every part count
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    before = vit.forward_features(images)
    adapt_vit(vit, dict(rank=2, layers=[layer]))
    assert torch.equal(vit.forward_features(images), before)
    blocks = outputs_of_blocks(vit, images)
    for parameter_name, parameter in vit.named_parameters():
        assert parameter.requires_grad == ("lora_" in parameter_name)
        if parameter_name.endswith("lora_up"):
            torch.nn.init.normal_(parameter)
    for changed, block in zip(outputs_of_blocks(vit, images), blocks, strict=True):
        assert (changed - block).abs().max() > 0.01
    unmerged, weights = vit.forward_features(images), vit.state_dict()
    plain = build(name).eval()
    plain.load_state_dict(weights)  # merges on loading
    torch.testing.assert_close(plain.forward_features(images), unmerged, atol=1e-4, rtol=1e-5)
    merge_lora(vit)
    torch.testing.assert_close(vit.forward_features(images), unmerged, atol=1e-4, rtol=1e-5)


def test_adapt_vit__layers_that_do_not_exist():
    message = (
        r"model.backbone.lora.layers: .* got 'attn.kqv'.* Nearest: .*attn.qkv.* There are: attn.proj, attn.qkv, mlp"
    )
    with pytest.raises(KeyError, match=message):
        adapt_vit(build(), dict(rank=2, layers=["attn.kqv"]))
