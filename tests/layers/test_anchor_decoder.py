import torch
from mmdet.models.layers import MLP, DinoTransformerDecoder
from mmdet.models.layers.transformer import dino_layers
from torch import nn

from mmseg_m2f.layers.anchor_decoder import AnchorDecoder, AnchorDecoderLayer
from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP

SIZES = [(2, 3), (4, 5)]


def build(num_layers: int = 2) -> tuple[AnchorDecoder, QueryMLP]:
    decoder = AnchorDecoder(16, num_layers=num_layers, num_levels=2, num_heads=2, num_points=4, feedforward_channels=32)
    for parameter in decoder.parameters():  # zeros and ones hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return decoder, QueryMLP(16, 4)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_anchor_decoder__published_sizes():
    layer = AnchorDecoderLayer(256, num_levels=4, num_heads=8, num_points=4, feedforward_channels=2048)
    assert count(layer) == 1_545_856
    options = dict(num_layers=1, num_levels=3, num_heads=8, num_points=4, feedforward_channels=8)
    assert count(AnchorDecoder(256, **options).position) == 197_120


def test_anchor_decoder__equals_mmdets_dino(monkeypatch):
    """The same weights, with a mask of who sees whom; refinements and normed queries of both layers.

    This mmdet encodes a box by twice as many channels as published; the test gives it the published number.
    """
    encode = dino_layers.coordinate_to_encoding
    monkeypatch.setattr(dino_layers, "coordinate_to_encoding", lambda x, num_feats: encode(x, num_feats=num_feats // 2))
    ours, box_embed = build()
    theirs = DinoTransformerDecoder(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=16, num_heads=2),
            cross_attn_cfg=dict(embed_dims=16, num_heads=2, num_levels=2, num_points=4),
            ffn_cfg=dict(embed_dims=16, feedforward_channels=32),
        ),
        return_intermediate=True,
        post_norm_cfg=None,
    ).eval()
    theirs.ref_point_head = MLP(32, 16, 16, 2)
    names = {"position.0": "ref_point_head.layers.0", "position.2": "ref_point_head.layers.1", "post_norm": "norm"}
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    theirs.load_state_dict(state)
    queries, boxes, memory = torch.randn(2, 5, 16), torch.rand(2, 5, 4) * 0.5 + 0.2, torch.randn(2, 26, 16)
    may_attend = torch.rand(5, 5) > 0.3
    may_attend.fill_diagonal_(True)
    states, references = theirs(
        query=queries,
        value=memory,
        key_padding_mask=None,
        self_attn_mask=~may_attend,
        reference_points=boxes,
        spatial_shapes=torch.tensor(SIZES),
        level_start_index=torch.tensor([0, 6]),
        valid_ratios=torch.ones(2, 2, 2),
        reg_branches=[box_embed, box_embed],
    )
    found = ours(queries, boxes, memory, SIZES, box_embed=box_embed, may_attend=may_attend.expand(2, -1, -1))
    for (normed, supervised), theirs_normed, before in zip(found, states, references, strict=False):
        torch.testing.assert_close(normed, theirs_normed, rtol=1e-4, atol=1e-4)
        # Written by mmdet's head: from the box before the layer.
        expected = (box_embed(theirs_normed) + before.logit()).sigmoid()
        torch.testing.assert_close(supervised, expected, rtol=1e-4, atol=1e-4)


def test_anchor_decoder__box_loss_also_trains_the_refinement_before():
    decoder, box_embed = build(num_layers=3)
    for layer in decoder.layers[1:]:  # no way back through the queries
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(), *inputs[1:]))
    boxes = torch.full((1, 4, 4), 0.4, requires_grad=True)
    *_, last = decoder(torch.randn(1, 4, 16), boxes, torch.randn(1, 26, 16), SIZES, box_embed=box_embed)
    weights = [layer.ffn.layers[1].weight for layer in decoder.layers]
    grads = torch.autograd.grad(last.boxes.sum(), [*weights, boxes], allow_unused=True)
    assert [grad is not None for grad in grads] == [False, True, True, False]


def test_anchor_decoder__first_boxes_get_a_gradient():
    decoder, box_embed = build()
    boxes = torch.full((1, 4, 4), 0.4, requires_grad=True)
    first, _ = decoder(torch.randn(1, 4, 16), boxes, torch.randn(1, 26, 16), SIZES, box_embed=box_embed)
    by_place, by_box = (torch.autograd.grad(x.sum(), boxes, retain_graph=True)[0] for x in first)
    assert by_place.abs().min() > 0
    assert by_box.abs().min() > 0
