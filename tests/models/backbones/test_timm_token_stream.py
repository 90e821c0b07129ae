import pytest
import torch

from mmseg_m2f.models.backbones import TimmTokenStream
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec

SMALL = dict(embed_dim=32, depth=3, num_heads=4)
DINOV2, PLAIN, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_tiny_patch16_224", "vit_small_patch16_dinov3"
MODELS = [DINOV2, PLAIN, DINOV3, "vit_medium_patch16_gap_256"]


def build(name: str = DINOV2, **options: object) -> TimmTokenStream:
    settings = dict(num_joint_blocks=2, img_size=(64, 64), patch_size=16, model_options=SMALL) | options
    backbone = TimmTokenStream(name, **settings).eval()
    for parameter in backbone.parameters():  # layer scales start at 1e-5: make every part count
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return backbone


def run_all(backbone: TimmTokenStream, images: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
    """What comes out behind the final norm, with further tokens in front."""
    stream = backbone(images)
    tokens = stream.tokens if extra is None else torch.cat([extra, stream.tokens], 1)
    for block in stream.blocks:
        tokens = block(tokens)
    return stream.norm(tokens)


@pytest.mark.parametrize("name", MODELS)
def test_timm_token_stream__without_queries_is_timms_model(name):
    backbone, images = build(name), torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(run_all(backbone, images), backbone.vit.forward_features(images))


@pytest.mark.parametrize("name", MODELS)
def test_timm_token_stream__describes_its_tokens(name):
    backbone = build(name)
    stream = backbone(torch.randn(2, 3, 32, 48))
    assert stream.grid == (2, 3)
    assert stream.tokens.shape == (2, stream.num_prefix + 6, 32)
    assert stream.num_prefix == {DINOV2: 5, PLAIN: 1, DINOV3: 5}.get(name, 0)
    assert torch.equal(stream[-1][1, :, 1, 0], stream.tokens[1, stream.num_prefix + 3])


@pytest.mark.parametrize("name", MODELS)
def test_timm_token_stream__further_tokens_have_no_place(name):
    # Exchanging them exchanges what becomes of them, and of nothing else.
    backbone, images, extra = build(name), torch.randn(1, 3, 32, 48), torch.randn(1, 7, 32)
    order = torch.randperm(7)
    expected, moved = run_all(backbone, images, extra), run_all(backbone, images, extra[:, order])
    torch.testing.assert_close(moved[:, :7], expected[:, order])
    torch.testing.assert_close(moved[:, 7:], expected[:, 7:])


@pytest.mark.parametrize("name", MODELS)
def test_timm_token_stream__nobody_looks_at_the_further_tokens(name):
    backbone, images, extra = build(name), torch.randn(1, 3, 32, 48), torch.randn(1, 7, 32)
    stream = backbone(images)
    tokens = torch.cat([extra, stream.tokens], 1)
    may_attend = torch.ones(1, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    may_attend[..., 7:, :7] = False
    for block in stream.blocks:
        tokens = block(tokens, may_attend)
    torch.testing.assert_close(stream.norm(tokens)[:, 7:], backbone.vit.forward_features(images))


def test_timm_token_stream__places_of_patches_matter_with_rotation():
    backbone = build(DINOV3, model_options=SMALL | dict(num_reg_tokens=0, class_token=False))
    stream = backbone(torch.randn(1, 3, 32, 48))
    flipped = stream.tokens.flip(1)
    assert not torch.allclose(stream.blocks[0](flipped).flip(1), stream.blocks[0](stream.tokens), atol=1e-3)


@pytest.mark.parametrize(("patch_size", "stride"), [(16, 16), (14, 14), (8, 8)])
def test_timm_token_stream__tells_channels_and_stride(patch_size, stride):
    backbone = build(patch_size=patch_size, img_size=(2 * patch_size, 2 * patch_size))
    assert probe_feature_spec(backbone, backbone) == FeatureSpec((32,), (stride,), num_joint_blocks=2)


def save(weights: dict[str, torch.Tensor], folder) -> str:
    torch.save(weights, folder / "weights.pth")
    return str(folder / "weights.pth")


def load(file: str) -> torch.nn.Module:
    options = dict(img_size=(64, 64), num_joint_blocks=2, model_options=SMALL)
    return TimmTokenStream(DINOV2, checkpoint_path=file, **options).vit


def test_timm_token_stream__reads_timms_file_of_another_patch_and_image_size(tmp_path):
    from timm.models import create_model

    source = create_model(DINOV2, img_size=56, num_classes=0, **SMALL)  # patches of 14
    torch.nn.init.normal_(source.pos_embed)
    vit = load(save(source.state_dict(), tmp_path))
    assert torch.equal(vit.pos_embed, source.pos_embed)  # 4 × 4 patches in both
    assert torch.equal(vit.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)
    # A resampled patch embedding sees in a resized image about what the original sees.
    smooth = torch.nn.functional.interpolate(torch.randn(1, 3, 2, 2), (56, 56), mode="bilinear")
    larger = torch.nn.functional.interpolate(smooth, (64, 64), mode="bilinear")
    expected = source.patch_embed(smooth)
    found = vit.patch_embed(larger).flatten(1, 2)
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_timm_token_stream__reads_a_file_of_dinov2(tmp_path):
    from timm.models import create_model

    source = create_model(DINOV2, img_size=64, patch_size=16, num_classes=0, **SMALL)
    weights = {name: torch.randn_like(value) for name, value in source.state_dict().items()}
    published = {name: value for name, value in weights.items() if "reg_token" not in name}
    published |= dict(
        mask_token=torch.randn(1, 32),
        register_tokens=weights["reg_token"],
        pos_embed=torch.cat([torch.full((1, 1, 32), 0.5), weights["pos_embed"]], 1),
        cls_token=weights["cls_token"] - 0.5,
    )
    for name, value in load(save(published, tmp_path)).state_dict().items():
        torch.testing.assert_close(value, weights[name], msg=name)


def test_timm_token_stream__size_that_patches_do_not_fill():
    with pytest.raises(ValueError, match="TimmTokenStream.*multiples of 16, got 40 × 48"):
        build()(torch.randn(1, 3, 40, 48))


@pytest.mark.parametrize("num_joint_blocks", [0, 3])
def test_timm_token_stream__wrong_number_of_joint_blocks(num_joint_blocks):
    with pytest.raises(ValueError, match=f"num_joint_blocks is {num_joint_blocks}, but there are 3 blocks"):
        build(num_joint_blocks=num_joint_blocks)


def test_timm_token_stream__low_rank_changes_instead_of_weights():
    backbone = build(lora=dict(rank=2))
    run_all(backbone, torch.randn(1, 3, 32, 48)).sum().backward()
    trained = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in backbone.named_parameters() if "lora_" in name}
