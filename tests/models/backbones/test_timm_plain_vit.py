import pytest
import torch

from mmseg_m2f.models.backbones import TimmPlainViT
from mmseg_m2f.models.backbones.timm_vit import build_timm_vit
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec

DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"
SMALL = dict(embed_dim=32, depth=3, num_heads=4)
#: Registers and class token, class token alone, rotary positions, a norm before the blocks, no prefix tokens.
NAMES = [DINOV2, "vit_tiny_patch16_224", DINOV3, "vit_base_patch16_clip_224", "vit_medium_patch16_gap_256"]


def build(name: str = DINOV2, **options: object) -> TimmPlainViT:
    settings = dict(img_size=(64, 64), model_options=SMALL) | options
    backbone = TimmPlainViT(name, **settings).eval()
    for parameter in backbone.parameters():  # layer scales start at 1e-5: make every part count
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return backbone


def as_map(tokens: torch.Tensor, num_prefix: int) -> torch.Tensor:
    return tokens[:, num_prefix:].transpose(1, 2).unflatten(2, (2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_timm_plain_vit__last_map_is_timms_features_without_prefix_tokens(name):
    backbone, images = build(name, norm=True), torch.randn(2, 3, 32, 48)
    (found,) = backbone(images)
    expected = as_map(backbone.vit.forward_features(images), backbone.vit.num_prefix_tokens)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", [DINOV2, DINOV3])
@pytest.mark.parametrize("norm", [False, True])
def test_timm_plain_vit__maps_of_blocks_are_those_that_hooks_see(name, norm):
    backbone, images, seen = build(name, out_indices=(0, -1), norm=norm), torch.randn(2, 3, 32, 48), []
    for index in (0, 2):
        backbone.vit.blocks[index].register_forward_hook(lambda _, args, output: seen.append(output))
    maps = backbone(images)
    for found, tokens in zip(maps, seen, strict=True):
        torch.testing.assert_close(found, as_map(backbone.vit.norm(tokens) if norm else tokens, 5))


def test_timm_plain_vit__images_of_a_batch_are_apart():
    backbone, images = build(), torch.randn(2, 3, 32, 48)
    apart = torch.cat([backbone(image.unsqueeze(0))[0] for image in images])
    torch.testing.assert_close(backbone(images)[0], apart)


def test_timm_plain_vit__tells_channels_and_strides_as_a_run_finds_them():
    backbone = build(out_indices=(0, 2), patch_size=8)
    assert backbone.feature_info == FeatureSpec((32, 32), (8, 8))
    assert probe_feature_spec(backbone, backbone.forward) == backbone.feature_info


@pytest.mark.parametrize("norm", [False, True])
def test_timm_plain_vit__every_parameter_takes_part(norm):
    backbone = build(out_indices=(0, 1), norm=norm)
    sum(x.square().sum() for x in backbone(torch.randn(1, 3, 32, 48))).backward()
    assert len(backbone.vit.blocks) == 2
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


class SavedBytes:
    """What autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.total = 0

    def __enter__(self) -> "SavedBytes":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._note, lambda x: x)
        self.hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.hooks.__exit__(None, None, None)

    def _note(self, x: torch.Tensor) -> torch.Tensor:
        self.total += x.nbytes
        return x


@pytest.mark.parametrize("depth", [2, 4])
def test_timm_plain_vit__frozen_keeps_no_activations_and_no_gradients(depth):
    options = SMALL | dict(depth=depth, drop_path_rate=0.5, proj_drop_rate=0.5)
    backbone = build(frozen=True, model_options=options).train()
    behind, images = torch.nn.Conv2d(32, 8, 1), torch.randn(2, 3, 32, 48)
    with SavedBytes() as saved:
        (x,) = backbone(images)
        y = behind(x)
    y.sum().backward()
    assert torch.equal(x, backbone.eval()(images)[0])  # no dropout
    assert behind.weight.grad is not None
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in backbone.parameters())
    assert saved.total <= x.nbytes + behind.weight.nbytes


def test_timm_plain_vit__undecayed_names_are_parameters():
    backbone = build()
    names = {name for name, _ in backbone.named_parameters()}
    assert backbone.no_weight_decay() == {"vit.pos_embed", "vit.cls_token", "vit.reg_token"} & names


@pytest.mark.parametrize("indices", [(), (3,), (2, 1), (1, 1), (-4,)])
def test_timm_plain_vit__blocks_that_do_not_exist(indices):
    with pytest.raises(ValueError, match=r"out_indices: expected ascending numbers of the 3 blocks, from 0 to 2"):
        build(out_indices=indices)


def test_timm_plain_vit__norm_that_does_not_exist():
    with pytest.raises(ValueError, match=f"norm: expected False, because {DINOV2} has no final norm"):
        build(norm=True, model_options=SMALL | dict(final_norm=False))


def test_timm_plain_vit__size_that_patches_do_not_fill():
    with pytest.raises(ValueError, match="TimmPlainViT.*multiples of 16, got 40 × 48"):
        build()(torch.randn(1, 3, 40, 48))


def test_timm_plain_vit__model_that_timm_lacks():
    with pytest.raises(KeyError, match="got 'vit_tny_patch16_224'. Nearest: vit_tiny_patch16_224"):
        TimmPlainViT("vit_tny_patch16_224")


@pytest.mark.parametrize("size", [(100, 100), (96, 100), (96,)])
def test_timm_plain_vit__positions_of_no_whole_patches(size):
    with pytest.raises(ValueError, match=r"img_size: .* multiples of the patch size 16, such as \(128, 128\), got"):
        build_timm_vit("vit_tiny_patch16_224", img_size=size, patch_size=16)


def test_timm_plain_vit__low_rank_changes_instead_of_weights():
    backbone = build(lora=dict(rank=2, alpha=4))
    backbone(torch.randn(1, 3, 32, 48))[0].sum().backward()
    trained = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in backbone.named_parameters() if "lora_" in name}
    assert len(trained) == 3 * 2 * 2


def test_timm_plain_vit__frozen_and_adapted_at_once():
    with pytest.raises(ValueError, match="expected frozen=True or lora=dict"):
        build(frozen=True, lora=dict(rank=2))


@pytest.mark.parametrize("name", NAMES)
def test_timm_plain_vit__all_tokens_of_its_blocks(name):
    backbone, images = build(name, out_indices=(0, -1), as_tokens=True, norm=True), torch.randn(2, 3, 32, 48)
    stream = backbone(images)
    torch.testing.assert_close(stream.side_tokens[-1], backbone.vit.forward_features(images))
    assert (len(stream.side_tokens), stream.grid, stream.blocks) == (2, (2, 3), ())
    assert stream.num_prefix == stream.side_tokens[0].shape[1] - 6 == backbone.vit.num_prefix_tokens
    assert probe_feature_spec(backbone, backbone.forward) == backbone.feature_info == FeatureSpec((32,), (16,))
