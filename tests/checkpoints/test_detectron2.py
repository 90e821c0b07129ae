import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.layouts import check_round_trip, convert, detect_content
from tests.checkpoints.layout_examples import BACKBONES, random_weights
from tests.checkpoints.small_models import backbone, random_state
from tests.parity.conftest import CONFIGS


@pytest.mark.parametrize("encoder", [False, True])
def test_convert__other_pixel_decoders_of_the_authors(encoder: bool):
    cfg = Config.fromfile(CONFIGS / f"_base_/models/mask2former_{'transformer_fpn' if encoder else 'fpn'}.py").model
    cfg.backbone = backbone("mmseg", "resnet")
    cfg.decode_head.update(num_classes=5, criterion=None)
    cfg.decode_head.pixel_decoder.update(channels=32)
    cfg.decode_head.query_decoder.update(channels=32, num_layers=1, num_heads=2, feedforward_channels=48)
    ours = random_state(MODELS.build(cfg))
    theirs = convert(ours, to="detectron2").weights
    assert detect_content(theirs) == ("detectron2", "mask2former")
    assert len(theirs) == len(ours)
    check_round_trip(ours, theirs)
    with pytest.raises(KeyError, match="Expected a Mask2Former with the deformable pixel decoder"):
        convert(ours, to="transformers")


DETECTRON2_NAMES = {
    "resnet": """
backbone.stem.conv1.weight
backbone.stem.conv1.norm.running_var
backbone.res2.0.conv1.weight
backbone.res2.0.conv2.norm.running_mean
backbone.res3.0.shortcut.weight
backbone.res3.0.shortcut.norm.bias
backbone.res5.1.conv2.weight
sem_seg_head.pixel_decoder.input_proj.0.0.weight
sem_seg_head.pixel_decoder.input_proj.2.1.bias
sem_seg_head.pixel_decoder.transformer.level_embed
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.sampling_offsets.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.attention_weights.bias
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.value_proj.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.output_proj.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.linear1.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.linear2.bias
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.norm1.weight
sem_seg_head.pixel_decoder.transformer.encoder.layers.0.norm2.bias
sem_seg_head.pixel_decoder.adapter_1.weight
sem_seg_head.pixel_decoder.adapter_1.norm.weight
sem_seg_head.pixel_decoder.layer_1.weight
sem_seg_head.pixel_decoder.layer_1.norm.bias
sem_seg_head.pixel_decoder.mask_features.weight
sem_seg_head.predictor.query_feat.weight
sem_seg_head.predictor.query_embed.weight
sem_seg_head.predictor.level_embed.weight
sem_seg_head.predictor.transformer_cross_attention_layers.0.multihead_attn.in_proj_weight
sem_seg_head.predictor.transformer_cross_attention_layers.1.multihead_attn.out_proj.bias
sem_seg_head.predictor.transformer_cross_attention_layers.1.norm.weight
sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_bias
sem_seg_head.predictor.transformer_self_attention_layers.1.self_attn.out_proj.weight
sem_seg_head.predictor.transformer_self_attention_layers.1.norm.bias
sem_seg_head.predictor.transformer_ffn_layers.0.linear1.weight
sem_seg_head.predictor.transformer_ffn_layers.1.linear2.bias
sem_seg_head.predictor.transformer_ffn_layers.1.norm.weight
sem_seg_head.predictor.decoder_norm.weight
sem_seg_head.predictor.class_embed.weight
sem_seg_head.predictor.mask_embed.layers.0.weight
sem_seg_head.predictor.mask_embed.layers.1.bias
sem_seg_head.predictor.mask_embed.layers.2.weight
""",
    "swin": """
backbone.patch_embed.proj.weight
backbone.patch_embed.norm.bias
backbone.layers.0.blocks.1.norm1.weight
backbone.layers.0.blocks.1.attn.relative_position_bias_table
backbone.layers.0.blocks.1.attn.relative_position_index
backbone.layers.3.blocks.0.attn.qkv.bias
backbone.layers.3.blocks.0.attn.proj.weight
backbone.layers.3.blocks.0.norm2.bias
backbone.layers.3.blocks.0.mlp.fc1.weight
backbone.layers.3.blocks.0.mlp.fc2.bias
backbone.layers.2.downsample.reduction.weight
backbone.layers.2.downsample.norm.weight
backbone.norm3.bias
sem_seg_head.predictor.class_embed.bias
""",
}


@pytest.mark.parametrize("name", BACKBONES)
def test_convert__detectron2_has_the_authors_names(name: str):
    names = DETECTRON2_NAMES[name].split()
    assert set(names) <= convert(random_weights(name), to="detectron2").weights.keys()


@pytest.mark.parametrize(
    ("part", "theirs"),
    [
        # Each of these could be taken for its neighbour without any name missing.
        ("query_feat", "query_feat"),
        ("query_embed", "query_embed"),
        ("mask_embed.2", "mask_embed.layers.1"),
        ("mask_embed.4", "mask_embed.layers.2"),
        ("transformer_decoder.layers.1.norms.0", "transformer_cross_attention_layers.1.norm"),
        ("transformer_decoder.layers.1.norms.1", "transformer_self_attention_layers.1.norm"),
        ("transformer_decoder.layers.1.norms.2", "transformer_ffn_layers.1.norm"),
        ("transformer_decoder.post_norm", "decoder_norm"),
        (
            "transformer_decoder.layers.0.cross_attn.attn.out_proj",
            "transformer_cross_attention_layers.0.multihead_attn.out_proj",
        ),
        (
            "transformer_decoder.layers.0.self_attn.attn.out_proj",
            "transformer_self_attention_layers.0.self_attn.out_proj",
        ),
        ("pixel_decoder.encoder.layers.0.norms.0", "pixel_decoder.transformer.encoder.layers.0.norm1"),
        ("pixel_decoder.encoder.layers.0.norms.1", "pixel_decoder.transformer.encoder.layers.0.norm2"),
        ("pixel_decoder.input_convs.2.conv", "pixel_decoder.input_proj.2.0"),
        ("pixel_decoder.lateral_convs.0.gn", "pixel_decoder.adapter_1.norm"),
        ("pixel_decoder.output_convs.0.gn", "pixel_decoder.layer_1.norm"),
    ],
)
def test_convert__detectron2_pairs(part: str, theirs: str):
    ours = random_weights("resnet")
    converted = convert(ours, to="detectron2").weights
    part = part if part.startswith("pixel_decoder") else f"query_decoder.{part}"
    theirs = theirs if theirs.startswith("pixel_decoder") else f"predictor.{theirs}"
    assert torch.equal(converted[f"sem_seg_head.{theirs}.weight"], ours[f"decode_head.{part}.weight"])


def test_convert__first_release_of_the_authors():
    ours = random_weights("resnet")
    theirs = convert(ours, to="detectron2").weights
    old = {key.replace(".pixel_decoder.", ".").replace("query_feat", "static_query"): v for key, v in theirs.items()}
    assert "sem_seg_head.adapter_1.weight" in old
    old["criterion.empty_weight"] = torch.ones(6)
    converted = convert(old, to="ours")
    assert converted.dropped == ["criterion.empty_weight"]
    assert all(torch.equal(value, ours[key]) for key, value in converted.weights.items())
    assert converted.weights.keys() == ours.keys()
    check_round_trip(old, convert(old, to="mmdet").weights)
