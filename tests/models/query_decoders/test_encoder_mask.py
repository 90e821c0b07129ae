from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmseg_m2f.models.backbones import TimmTokenStream
from mmseg_m2f.models.decode_heads import MaskHead
from mmseg_m2f.models.query_decoders import EncoderMaskDecoder
from mmseg_m2f.models.query_decoders.encoder_mask import _may_attend
from mmseg_m2f.structures import VOID, FeatureSpec, MaskPrediction, MaskTarget, TokenStream

MODEL = Path(__file__).parents[3] / "configs/_base_/models/eomt.py"
QUERIES = 7
SPEC = FeatureSpec((32,), (16,), num_joint_blocks=2)


def small_backbone(name: str = "vit_small_patch14_reg4_dinov2") -> TimmTokenStream:
    options = dict(embed_dim=32, depth=3, num_heads=4, init_values=0.5)
    return TimmTokenStream(
        name,
        num_joint_blocks=2,
        img_size=(64, 64),
        patch_size=16,
        model_options=options,
    ).eval()


def small_decoder() -> EncoderMaskDecoder:
    decoder = EncoderMaskDecoder(3, SPEC, num_queries=QUERIES).eval()
    torch.nn.init.normal_(decoder.mask_embed[-1].weight)  # masks of both signs
    return decoder


def stream_of(backbone: TimmTokenStream | None = None, size: tuple[int, int] = (64, 96)) -> TokenStream:
    return (backbone or small_backbone())(torch.randn(2, 3, *size))


def count_masks(stream: TokenStream) -> tuple[TokenStream, list[bool]]:
    """The same stream, noting for each block that runs whether it got a mask."""
    masked: list[bool] = []

    def counted(block):
        def run(tokens, may_attend=None):
            masked.append(may_attend is not None)
            return block(tokens, may_attend)

        return run

    return TokenStream(
        stream.tokens, stream.grid, stream.num_prefix, tuple(map(counted, stream.blocks)), stream.norm
    ), masked


def assert_same(ours: MaskPrediction, others: MaskPrediction) -> None:
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_joint_encoder__a_prediction_before_each_block_and_one_after():
    predictions = small_decoder()(stream_of())
    assert len(predictions) == 3
    for prediction in predictions:
        assert prediction.class_logits.shape == (2, QUERIES, 4)
        assert prediction.mask_logits().shape == (2, QUERIES, 16, 24)  # stride 4


@pytest.mark.parametrize(("stride", "scale"), [(4, 2), (8, 2), (16, 4), (32, 8)])
def test_joint_encoder__mask_features_have_stride_4(stride, scale):
    decoder = EncoderMaskDecoder(3, FeatureSpec((8,), (stride,), 1))
    assert decoder.upscale(torch.randn(1, 8, 3, 5)).shape == (1, 8, 3 * scale, 5 * scale)


def test_joint_encoder__first_prediction_by_hand():
    decoder, stream = small_decoder(), stream_of()
    first = decoder(stream)[0]
    queries = stream.norm(decoder.query_feat.weight)
    patches = stream.norm(stream.tokens[:, 5:]).transpose(1, 2).reshape(2, 32, 4, 6)
    torch.testing.assert_close(first.class_logits, decoder.cls_embed(queries).expand(2, -1, -1))
    torch.testing.assert_close(first.mask_embeddings, decoder.mask_embed(queries).expand(2, -1, -1))
    torch.testing.assert_close(first.mask_features, decoder.upscale(patches))


def test_joint_encoder__no_masks_where_the_probabilities_are_zero():
    decoder, stream = small_decoder(), stream_of()
    decoder.set_attn_mask_probs([0.0, 0.0])
    predictions = decoder(stream)
    tokens = torch.cat([decoder.query_feat.weight.expand(2, -1, -1), stream.tokens], 1)
    for block in stream.blocks:
        tokens = block(tokens)
    expected = decoder.cls_embed(stream.norm(tokens)[:, :QUERIES])
    torch.testing.assert_close(predictions[-1].class_logits, expected)


def test_joint_encoder__masks_are_those_of_the_prediction_before():
    decoder, stream = small_decoder(), stream_of()
    predictions = decoder(stream)
    tokens = torch.cat([decoder.query_feat.weight.expand(2, -1, -1), stream.tokens], 1)
    for block, prediction in zip(stream.blocks, predictions, strict=False):
        masks = torch.nn.functional.interpolate(prediction.mask_logits(), (4, 6), mode="bilinear").flatten(2)
        may_attend = torch.ones(2, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        may_attend[:, 0, :QUERIES, QUERIES + 5 :] = masks > 0
        assert 0.2 < (masks > 0).float().mean() < 0.8
        tokens = block(tokens, may_attend)
    expected = decoder.cls_embed(stream.norm(tokens)[:, :QUERIES])
    torch.testing.assert_close(predictions[-1].class_logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_joint_encoder__masks_mean_the_same_to_unfused_attention(name):
    decoder, backbone, images = small_decoder(), small_backbone(name), torch.randn(2, 3, 64, 96)
    fused = decoder(backbone(images))[-1]
    layers = [module for module in backbone.modules() if hasattr(module, "fused_attn")]
    assert len(layers) == 3
    for layer in layers:
        layer.fused_attn = not layer.fused_attn
    assert_same(decoder(backbone(images))[-1], fused)


def test_joint_encoder__timm_whose_blocks_misread_masks(monkeypatch):
    monkeypatch.delattr("timm.layers.resolve_self_attn_mask")
    monkeypatch.setattr("timm.__version__", "1.0.25")
    with pytest.raises(ImportError, match=r"expected timm>=1\.0\.26, .* got 1\.0\.25\. Run `pip install --upgrade"):
        small_backbone()


def test_joint_encoder__full_masking_draws_nothing():
    decoder, stream = small_decoder(), stream_of()
    state = torch.get_rng_state()
    decoder(stream)
    assert torch.equal(torch.get_rng_state(), state)


def closed_prediction(batch: int = 400) -> MaskPrediction:
    """Masks that are negative everywhere."""
    return MaskPrediction(torch.zeros(batch, 5, 4), torch.full((batch, 5, 2), -1.0), torch.ones(batch, 2, 8, 8))


def test_may_attend__opens_whole_rows_with_the_given_probability():
    stream = TokenStream(torch.zeros(400, 3 + 4, 2), (2, 2), 3, (), torch.nn.Identity())
    may_attend = _may_attend(closed_prediction(), stream, torch.tensor(0.3))[:, 0]
    assert may_attend[:, 5:].all()  # prefix and patches see everything
    assert may_attend[..., : 5 + 3].all()  # everybody sees queries and prefix: no row is empty
    rows = may_attend[:, :5, 5 + 3 :]
    assert torch.equal(rows.any(-1), rows.all(-1))
    assert rows.float().mean().item() == pytest.approx(0.7, abs=0.04)  # 2000 rows


@pytest.mark.parametrize("prob", [None, torch.tensor(0.5), torch.tensor(1.0)], ids=["always", "half", "one"])
def test_may_attend__inside_stays_open(prob):
    stream = TokenStream(torch.zeros(1, 1 + 4, 1), (2, 2), 1, (), torch.nn.Identity())
    features = torch.tensor([[1.0, -1.0], [0.0, 2.0]]).reshape(1, 1, 2, 2)
    prediction = MaskPrediction(torch.zeros(1, 1, 2), torch.ones(1, 1, 1), features)
    row = _may_attend(prediction, stream, prob)[0, 0, 0]
    assert row[2:][[0, 3]].all()
    if prob is None or prob == 1:
        assert row.tolist() == [True, True, True, False, False, True]  # a logit of 0 lies outside


@pytest.mark.parametrize("probs", [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_joint_encoder__last_only_is_the_last(probs):
    decoder, stream = small_decoder(), stream_of()
    decoder.set_attn_mask_probs(probs)
    (result,) = decoder(stream, last_only=True)
    assert_same(result, decoder(stream)[-1])


@pytest.mark.parametrize(("probs", "masked", "looks"), [((1.0, 1.0), [True, True], 3), ((0.0, 0.0), [False, False], 1)])
def test_joint_encoder__at_test_predicts_only_what_masks_need(probs, masked, looks):
    decoder, (stream, seen) = small_decoder(), count_masks(stream_of())
    decoder.set_attn_mask_probs(probs)
    calls = []
    decoder.upscale.register_forward_hook(lambda *_: calls.append(1))
    assert len(decoder(stream, last_only=True)) == 1
    assert (seen, len(calls)) == (masked, looks)


def test_joint_encoder__a_block_whose_probability_is_zero_sees_all():
    decoder, stream = small_decoder(), stream_of()
    always = decoder(stream)
    decoder.set_attn_mask_probs([0.0, 1.0])
    found = decoder(stream)
    tokens = torch.cat([decoder.query_feat.weight.expand(2, -1, -1), stream.tokens], 1)
    expected = decoder.cls_embed(stream.norm(stream.blocks[0](tokens))[:, :QUERIES])
    torch.testing.assert_close(found[1].class_logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[1].class_logits, always[1].class_logits, atol=1e-3)


def test_joint_encoder__query_order_changes_nothing():
    decoder, stream, order = small_decoder(), stream_of(), torch.randperm(QUERIES)
    expected = decoder(stream)
    decoder.query_feat.weight.data = decoder.query_feat.weight.data[order]
    for moved, prediction in zip(decoder(stream), expected, strict=True):
        torch.testing.assert_close(moved.class_logits, prediction.class_logits[:, order])
        torch.testing.assert_close(moved.mask_embeddings, prediction.mask_embeddings[:, order], rtol=1e-4, atol=1e-4)


def test_joint_encoder__batch_mates_change_nothing():
    decoder, backbone, images = small_decoder(), small_backbone(), torch.randn(3, 3, 64, 32)
    together, alone = decoder(backbone(images))[-1], decoder(backbone(images[1:2]))[-1]
    assert_same(together.of_images(slice(1, 2)), alone)


def test_joint_encoder__every_parameter_learns():
    backbone, decoder = small_backbone().train(), small_decoder().train()
    predictions = decoder(backbone(torch.randn(1, 3, 32, 64)))
    sum(p.class_logits.square().sum() + p.mask_logits().square().sum() for p in predictions).backward()
    for part in (backbone, decoder):
        assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_joint_encoder__probabilities_travel_with_the_weights():
    trained, fresh = small_decoder(), small_decoder()
    trained.set_attn_mask_probs([0.0, 0.25])
    fresh.load_state_dict(trained.state_dict())
    assert fresh.attn_mask_probs.tolist() == [0.0, 0.25]
    stream, results = stream_of(), []
    for decoder in (trained, fresh):
        torch.manual_seed(1)
        results.append(decoder(stream, last_only=True)[0])
    assert_same(*results)
    trained.set_attn_mask_probs([0.0, 0.0])
    fresh.load_state_dict(trained.state_dict())
    stream, seen = count_masks(stream)
    fresh(stream, last_only=True)
    assert seen == [False, False]


def test_joint_encoder__published_size():
    # D = 1024: queries 200 D, classes (D + 1) 134, three linear layers D D + D, two blocks 4 D D + D + 9 D + 2 D.
    decoder = EncoderMaskDecoder(133, FeatureSpec((1024,), (16,), 4), num_queries=200)
    expected = 200 * 1024 + 1025 * 134 + 3 * 1024 * 1025 + 2 * (4 * 1024**2 + 12 * 1024)
    assert sum(p.numel() for p in decoder.parameters()) == expected


def test_joint_encoder__backbone_with_maps():
    with pytest.raises(ValueError, match=r"leaves blocks to the queries, got maps of strides \(8, 16\) alone"):
        EncoderMaskDecoder(3, FeatureSpec((8, 8), (8, 16)))


def small_head() -> MaskHead:
    return MaskHead(
        3,
        pixel_decoder=None,
        query_decoder=dict(type="mmseg_m2f.EncoderMaskDecoder", num_queries=QUERIES),
        criterion=Config.fromfile(MODEL).model.decode_head.criterion,
        feature_spec=SPEC,
    )


def test_joint_encoder__nothing_but_void():
    backbone, head = small_backbone().train(), small_head()
    void = MaskTarget(torch.zeros(0, dtype=torch.long), torch.full((1, 64, 96), VOID))
    losses = head.loss(stream_of(backbone), [void, void])
    total = sum(value for name, value in losses.items() if "loss_" in name)
    total.backward()
    assert total.isfinite()
    assert [name for part in (backbone, head) for name, p in part.named_parameters() if p.grad is None] == []


def test_joint_encoder__behind_the_mask_head_with_padding():
    backbone, head = small_backbone(), small_head().eval()
    stream, valid = stream_of(backbone), torch.ones(2, 64, 96, dtype=torch.bool)
    valid[0, :, 50:] = False
    assert_same(head(stream, valid)[-1], head(stream)[-1])
