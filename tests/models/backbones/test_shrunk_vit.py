import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.models.backbones import ShrunkVisionTransformer
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.models.backbones.shrunk_vit import EdgeSampler, Shrinking
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec

SMALL = dict(patch_size=8, embed_dims=24, num_layers=4, num_heads=3, out_indices=(1, 3))


def mmseg_vit(size: int = 64, **options: object) -> nn.Module:
    """mmseg's transformer with random weights everywhere."""
    cfg = dict(
        type="mmseg.VisionTransformer",
        img_size=(size, size),
        patch_bias=True,
        with_cls_token=False,
        norm_cfg=dict(type="LN", eps=1e-6),
    )
    backbone = MODELS.build(cfg | SMALL | options)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.2)
    backbone.eval()  # gives None
    return backbone


def shrunk_vit(**options: object) -> ShrunkVisionTransformer:
    """`options` are the arguments of the backbone and the fields of its `shrink`."""
    fields = {name: options.pop(name) for name in Shrinking._fields if name in options}
    built = ShrunkVisionTransformer(**SMALL | dict(img_size=(64, 64), shrink=dict(block=2) | fields) | options)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.2)
    return built.eval()


@pytest.mark.parametrize("size", [(64, 64), (40, 96), (53, 70)], ids=["as trained", "not square", "padded"])
def test_shrunk_vit__stride_one_is_mmseg_s(size):
    theirs, ours = mmseg_vit(), shrunk_vit(stride=1)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(images), list(theirs(images)))


@pytest.mark.parametrize("size", [(64, 64), (40, 56)], ids=["even", "odd"])
def test_shrunk_vit__kept_tokens_look_at_all(size):
    built, images = shrunk_vit(out_indices=(1, 2)), torch.randn(2, 3, *size)
    fine, coarse = built(images)
    block, tokens = built.layers[2], fine.flatten(2).transpose(1, 2)
    kept = fine[:, :, ::2, ::2]
    queries = kept.flatten(2).transpose(1, 2)
    attended, _ = block.attn.attn(
        *(x.transpose(0, 1) for x in (block.ln1(queries), block.ln1(tokens), block.ln1(tokens)))
    )
    queries = queries + attended.transpose(0, 1)
    first, second = block.ffn["layers"]
    expected = queries + second(nn.functional.gelu(first[0](block.ln2(queries))))
    torch.testing.assert_close(coarse, expected.transpose(1, 2).view_as(kept))


def test_shrunk_vit__dropped_tokens_are_trained():
    built = shrunk_vit(out_indices=(3,))
    images = torch.randn(1, 3, 64, 64, requires_grad=True)
    built(images)[0].square().sum().backward()
    assert images.grad.unfold(2, 8, 8).unfold(3, 8, 8).abs().amax((1, 4, 5)).gt(0).all()
    assert [name for name, parameter in built.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("backbone", "spec"),
    [(mmseg_vit, FeatureSpec((24, 24), (8, 8))), (shrunk_vit, FeatureSpec((24, 24), (8, 16)))],
    ids=["plain", "shrunk"],
)
def test_vit__tells_channels_and_strides(backbone, spec):
    built = backbone()
    assert probe_feature_spec(built, built) == spec


@pytest.mark.parametrize("backbone", [mmseg_vit, shrunk_vit], ids=["plain", "shrunk"])
@pytest.mark.parametrize("taps", [(1, 4), (1, 1)], ids=["beyond the last", "twice the same"])
def test_vit__taps_that_do_not_exist_are_refused(backbone, taps):
    built = backbone(out_indices=taps)
    with pytest.raises(ValueError, match=r"out_indices .*got \(1, \d\), for which there are 1 maps"):
        probe_feature_spec(built, built)


def test_shrunk_vit__positions_of_another_grid_are_resized():
    theirs, ours = mmseg_vit(size=40), shrunk_vit()
    ours.load_state_dict(theirs.state_dict())
    resized = theirs.resize_pos_embed(theirs.pos_embed, (8, 8), (5, 5), "bicubic")
    torch.testing.assert_close(ours.pos_embed, resized[:, 1:])
    again = shrunk_vit()
    again.load_state_dict(ours.state_dict())  # our own have no class token
    assert torch.equal(again.pos_embed, ours.pos_embed)


def test_shrunk_vit__positions_of_unknown_shape():
    state = shrunk_vit().state_dict() | dict(pos_embed=torch.zeros(1, 50, 24))
    with pytest.raises(ValueError, match=r"pos_embed.* are 50, expected 64.*Set backbone.img_size"):
        shrunk_vit().load_state_dict(state)


def test_shrunk_vit__pretrained_file(tmp_path):
    theirs = mmseg_vit(size=40, final_norm=True)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "vit.pth"))
    ours = shrunk_vit(init_cfg=init_cfg)
    ours.init_weights()
    assert torch.equal(ours.layers[3].attn.attn.in_proj_weight, theirs.layers[3].attn.attn.in_proj_weight)
    assert torch.equal(ours.patch_embed["projection"].bias, theirs.patch_embed.projection.bias)


def test_shrunk_vit__drops_paths_in_training_alone():
    built, images = shrunk_vit(drop_path_rate=0.9), torch.randn(1, 3, 64, 64)
    assert torch.equal(built(images)[1], built(images)[1])
    built.train()
    assert len({built(images)[1].sum().item() for _ in range(8)}) > 1


class FirstChannel(nn.Module):
    """Edge logits that a test can choose."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., :1]


def test_edge_sampler__grid_then_the_surest_edges():
    sampler = EdgeSampler(8, stride=2, threshold=0.7, budget=0.2)
    sampler.edge = FirstChannel()
    tokens = torch.zeros(2, 20, 8)  # 4 × 5 cells, of which rows 0 and 2, columns 0, 2 and 4 are the grid
    tokens[0, [0, 1, 5, 9, 13, 19], 0] = torch.tensor([9.0, 3.0, 2.0, 5.0, 4.0, 6.0])
    tokens[1, 7, 0] = 2.0
    tokens[1, 8, 0] = 0.8  # a probability of 0.69
    kept, counts, logits = sampler(tokens, (4, 5))
    grid = [0, 2, 4, 10, 12, 14]
    assert kept[0].tolist() == [*grid, 19, 9, 13, 1]
    assert counts[0].all()
    assert kept[1, :7].tolist() == [*grid, 7]
    assert counts[1].tolist() == [True] * 7 + [False] * 3
    assert torch.equal(logits, tokens[..., 0])


@pytest.mark.parametrize("options", [dict(edge_budget=0.0), dict(edge_threshold=1.0, edge_budget=0.5)])
def test_shrunk_vit__without_edges_it_is_the_grid(options):
    plain, edges = shrunk_vit(), shrunk_vit(sampler="edge", **options)
    edges.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 40, 56)
    fine, coarse = plain(images)
    found = edges(images)
    assert isinstance(found, PartialMaps)
    torch.testing.assert_close(found[0], fine)
    torch.testing.assert_close(found[1][:, :, ::2, ::2], coarse)
    assert found.valid[0] is None
    assert found.valid[1].sum() == 2 * 3 * 4
    assert not found[1].masked_select(~found.valid[1].unsqueeze(1)).any()


def test_shrunk_vit__edges_do_not_depend_on_batch_mates():
    built = shrunk_vit(sampler="edge", edge_threshold=0.5, edge_budget=0.5)
    images = torch.randn(4, 3, 40, 56) * torch.tensor([0.1, 0.5, 1, 3])[:, None, None, None]
    built.edge_sampler.edge[-1].bias.data -= built(images).edge_logits.median()  # half of the cells hold edges
    together = built(images)
    counts = together.valid[1].sum((1, 2))
    assert len(counts.unique()) > 1
    assert (counts > 12).any()
    for image in range(4):
        alone = built(images[image : image + 1])
        torch.testing.assert_close(alone[1][0], together[1][image], atol=1e-4, rtol=1e-4)


def test_shrunk_vit__edge_maps_tell_channels_and_strides():
    built = shrunk_vit(sampler="edge")
    assert probe_feature_spec(built, built) == FeatureSpec((24, 24), (8, 8))


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (dict(sampler="egde"), "shrink.sampler .*: expected 'grid' or 'edge', got 'egde'"),
        (dict(block=-1), "shrink.block .*: expected a block, 0 to 3, got -1"),
        (dict(block=4), "shrink.block .*: expected a block, 0 to 3, got 4"),
        (dict(stride=0), "shrink.stride .*: expected 1 or more; .* got 0"),
        (dict(edge_threshold=7.0), "shrink.edge_threshold .*: expected a probability, 0 to 1, got 7.0"),
        (dict(edge_budget=-0.5), "shrink.edge_budget .*: expected a share of all tokens, 0 to 1, got -0.5"),
        (dict(shrink=dict(depth=2)), "shrink .*: expected the fields block, stride, .* got 'depth as well'"),
        (dict(out_indices=()), r"out_indices .*: expected one block or more, got \(\)"),
        (dict(img_size=4), r"img_size .*: expected at least one patch of 8 pixels, got \(4, 4\)"),
    ],
)
def test_shrunk_vit__numbers_out_of_range(option, expected):
    with pytest.raises(ValueError, match=f"backbone.{expected}"):
        shrunk_vit(**option)


def test_shrunk_vit__one_number_for_both_sides_and_one_tap():
    built = shrunk_vit(img_size=40, out_indices=3)
    assert built.pos_embed.shape == (1, 25, 24)
    assert [tuple(x.shape) for x in built(torch.randn(1, 3, 64, 64))] == [(1, 24, 4, 4)]


def test_shrunk_vit__square_positions_of_as_many_cells_are_resized():
    theirs, ours = mmseg_vit(size=64), shrunk_vit(img_size=(32, 128))
    with_class_token = torch.cat([torch.zeros(1, 1, 24), theirs.pos_embed[:, 1:]], 1)
    ours.load_state_dict(theirs.state_dict() | dict(pos_embed=with_class_token, cls_token=torch.zeros(1, 1, 24)))
    resized = theirs.resize_pos_embed(theirs.pos_embed, (4, 16), (8, 8), "bicubic")
    torch.testing.assert_close(ours.pos_embed, resized[:, 1:])
