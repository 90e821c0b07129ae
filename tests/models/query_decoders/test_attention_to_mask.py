import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_m2f.core.postprocess import resize_maps, semantic_scores
from mmseg_m2f.models.backbones import ShrunkVisionTransformer
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.models.query_decoders import AttentionToMaskDecoder, QueryUpsamplingDecoder
from mmseg_m2f.structures import FeatureSpec, MaskTarget
from tests.models.assigners.test_fixed import CRITERION

K = 4
SPEC = FeatureSpec((16, 32, 64), (16, 16, 16))
BASE = dict(embed_dims=768, num_layers=12, num_heads=12, out_indices=(5, 7, 11), shrink=dict(stride=1))
LARGE = dict(embed_dims=1024, num_layers=24, num_heads=16, out_indices=(7, 15, 23), shrink=dict(stride=1))
SHRUNK = LARGE | dict(out_indices=(7, 23), shrink=None)


def decoder(**options: object) -> AttentionToMaskDecoder:
    """Three stages of two layers, 32 channels, 2 heads; weights large enough for scores that differ."""
    built = AttentionToMaskDecoder(K, SPEC, **dict(num_layers=2, num_heads=2) | options)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built.eval()


def test_decoder__refuses_maps_with_holes():
    partial = PartialMaps(tuple(feature_maps()), (None,) * 3, torch.zeros(2, 3, 5), patch_size=16)
    with pytest.raises(ValueError, match=r"backbone.shrink.sampler='edge'.*Take QueryUpsamplingDecoder"):
        decoder()(partial)


def feature_maps(batch: int = 2, size: tuple[int, int] = (3, 5)) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, *size) for channels in SPEC.channels]


def stage_scores(built: AttentionToMaskDecoder, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Head by head, what the softmax of each stage's last layer gets, averaged."""
    found = []

    def keep(attention: nn.Module, inputs: tuple[torch.Tensor, torch.Tensor], _: object) -> None:
        q, k = attention.q(inputs[0]).chunk(2, -1), attention.k(inputs[1]).chunk(2, -1)
        found.append(sum(a @ b.transpose(1, 2) / 16**0.5 for a, b in zip(q, k, strict=True)) / 2)

    handles = [stage.layers[-1].cross_attn.register_forward_hook(keep) for stage in built.stages]
    built(maps)
    for handle in handles:
        handle.remove()
    return [scores.unflatten(-1, x.shape[-2:]) for scores, x in zip(found, maps[::-1], strict=True)]


def test_attention_to_mask__masks_are_the_scores_added_up_deepest_first():
    built, maps = decoder(), feature_maps()
    scores = stage_scores(built, maps)
    predictions = built(maps)
    assert len(predictions) == 3
    for stage, prediction in enumerate(predictions):
        torch.testing.assert_close(prediction.mask_logits(), torch.stack(scores[: stage + 1]).sum(0))
    assert all(p.mask_features is predictions[0].mask_features for p in predictions)


def test_attention_to_mask__without_cascade_each_stage_has_its_own_scores():
    built, maps = decoder(cascade=False), feature_maps()
    for scores, prediction in zip(stage_scores(built, maps), built(maps), strict=True):
        torch.testing.assert_close(prediction.mask_logits(), scores)


def test_attention_to_mask__coarse_scores_are_enlarged():
    built = decoder()
    maps = [
        torch.randn(1, channels, *size) for channels, size in zip(SPEC.channels, [(8, 12), (4, 6), (2, 3)], strict=True)
    ]
    scores = [resize_maps(x, (8, 12)) for x in stage_scores(built, maps)]
    torch.testing.assert_close(built(maps)[-1].mask_logits(), torch.stack(scores).sum(0))


def test_attention_to_mask__last_prediction_alone():
    built, maps = decoder(), feature_maps()
    (result,) = built(maps, last_only=True)
    expected = built(maps)[-1]
    assert result.boxes is None
    assert all(map(torch.equal, result[:3], expected[:3]))


def test_attention_to_mask__tokens_have_no_order():
    built, maps = decoder(), feature_maps()
    order = torch.randperm(15)
    moved = [x.flatten(2)[..., order].view_as(x) for x in maps]
    usual, other = built(maps)[-1], built(moved)[-1]
    torch.testing.assert_close(usual.class_logits, other.class_logits)
    torch.testing.assert_close(usual.mask_logits().flatten(2)[..., order], other.mask_logits().flatten(2))


def test_attention_to_mask__classes_have_no_order():
    built, maps = decoder(), feature_maps()
    usual = built(maps)[-1]
    scores = semantic_scores(usual.class_logits, usual.mask_logits())
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        built.query_feat.weight.copy_(built.query_feat.weight[order])
        for parameter in built.cls_embed.parameters():
            parameter[:K] = parameter[order]
    other = built(maps)[-1]
    torch.testing.assert_close(semantic_scores(other.class_logits, other.mask_logits()), scores[:, order])
    assert (scores >= 0).all()
    assert (scores.sum(1) <= K).all()


def test_attention_to_mask__autocast_keeps_the_scores_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        (prediction,) = decoder()(feature_maps(), last_only=True)
    assert prediction.class_logits.dtype == torch.bfloat16
    assert prediction.mask_embeddings.dtype == prediction.mask_features.dtype == torch.float32


def head(query_decoder: dict) -> nn.Module:
    return MODELS.build(
        dict(
            type="mmseg_m2f.MaskHead",
            num_classes=K,
            pixel_decoder=None,
            query_decoder=query_decoder,
            criterion=CRITERION,
            feature_spec=SPEC,
        )
    )


def two_targets() -> list[MaskTarget]:
    """Two classes each, side by side."""
    segment_map = torch.zeros(1, 48, 80, dtype=torch.long)
    segment_map[..., 40:] = 1
    return [MaskTarget(torch.tensor([0, 3]), segment_map), MaskTarget(torch.tensor([1, 2]), segment_map)]


def test_segvit_head__the_last_layer_alone_is_trained_on_demand():
    built = head(dict(type="mmseg_m2f.AttentionToMaskDecoder"))
    torch.manual_seed(0)
    everything = built.loss(feature_maps(), two_targets())
    built.deep_supervision = False
    torch.manual_seed(0)
    last = built.loss(feature_maps(), two_targets())
    assert {name for name in last if "loss_" in name} == {"loss_cls", "loss_mask", "loss_dice"}
    for name, value in last.items():
        torch.testing.assert_close(value, everything[name])


def test_segvit_head__edges_that_nothing_teaches():
    built = head(dict(type="mmseg_m2f.QueryUpsamplingDecoder", crop_size=48))
    logits = torch.zeros(2, 3, 5, requires_grad=True)
    partial = PartialMaps(tuple(feature_maps()), (None,) * 3, logits, patch_size=16)
    with pytest.raises(ValueError, match=r"TokenEdgeLoss.*or freeze the backbone"):
        built.loss(partial, two_targets())
    logits.requires_grad_(False)
    assert built.loss(partial, two_targets())["loss_mask"].isfinite()


@pytest.mark.parametrize(
    "query_decoder",
    [
        dict(type="mmseg_m2f.AttentionToMaskDecoder", num_layers=2),
        dict(type="mmseg_m2f.QueryUpsamplingDecoder", num_layers=3, crop_size=(48, 80)),
    ],
    ids=["attention_to_mask", "query_upsampling"],
)
def test_segvit_head__all_layers_are_trained(query_decoder):
    built = head(query_decoder)
    losses = {name: value for name, value in built.loss(feature_maps(), two_targets()).items() if "loss_" in name}
    assert set(losses) == {p + x for p in ("d0.", "d1.", "") for x in ("loss_cls", "loss_mask", "loss_dice")}
    sum(losses.values()).backward()
    assert [name for name, parameter in built.named_parameters() if parameter.grad is None] == []
    assert built.query_decoder.cls_embed.weight.grad.any()


@pytest.mark.parametrize(("channels", "expected"), [(1024, 39_568_023), (768, 22_303_255)])
def test_attention_to_mask__published_size(channels, expected):
    with torch.device("meta"):
        built = AttentionToMaskDecoder(150, FeatureSpec((channels,) * 3, (16,) * 3))
    assert sum(p.numel() for p in built.parameters()) == expected


@pytest.mark.parametrize(
    ("vit", "num_classes", "crop", "published"),
    [
        (BASE, 150, 512, 120.9),
        (LARGE, 150, 640, 637.9),
        (SHRUNK, 150, 640, 373.5),
        (LARGE, 171, 512, 383.9),
        (SHRUNK, 171, 512, 224.8),
        (LARGE, 60, 480, 321.6),
        (SHRUNK, 60, 480, 186.9),
    ],
)
def test_segvit__published_multiply_adds(vit, num_classes, crop, published):
    spec = FeatureSpec((vit["embed_dims"],) * len(vit["out_indices"]), (16,) * len(vit["out_indices"]))
    with torch.device("meta"):
        images = torch.zeros(1, 3, crop, crop)
        backbone = ShrunkVisionTransformer(img_size=(crop, crop), **vit).eval().requires_grad_(False)
        if vit is SHRUNK:
            built = QueryUpsamplingDecoder(num_classes, spec, crop_size=(crop, crop))
        else:
            built = AttentionToMaskDecoder(num_classes, spec)
    built.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        built(backbone(images), last_only=True)
    # Class times mask scores at the size of the crop is part of the published number.
    multiply_adds = counter.get_total_flops() / 2 + (num_classes * crop) ** 2
    assert multiply_adds / 1e9 == pytest.approx(published, rel=5e-3)
