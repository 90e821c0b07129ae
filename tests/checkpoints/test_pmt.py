"""The authors' files of PMT: names there and back, and what happens without the encoder."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from mmseg_m2f.checkpoints.converting import convert_file, read_weights, write_weights
from mmseg_m2f.checkpoints.layouts import convert, detect_content
from mmseg_m2f.checkpoints.loading import load_weights
from mmseg_m2f.checkpoints.whole_models import read_whole_model
from tests.checkpoints.small_models import random_state


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    options = dict(embed_dim=32, depth=4, num_heads=4)
    backbone = dict(
        type="mmseg_m2f.TimmPlainViT",
        model_name="vit_small_patch16_dinov3",
        out_indices=(0, 1, 2, 3),
        as_tokens=True,
        norm=True,
        frozen=True,
        img_size=(64, 64),
        model_options=options,
    )
    neck = dict(type="mmseg_m2f.FrozenEncoderBlocks", in_channels=32, num_heads=2, num_blocks=2)
    query_decoder = dict(type="mmseg_m2f.EncoderMaskDecoder", num_queries=7)
    head = dict(type="mmseg_m2f.MaskHead", num_classes=3, pixel_decoder=None, query_decoder=query_decoder)
    return MODELS.build(dict(type="mmseg_m2f.MaskSegmentor", backbone=backbone, neck=neck, decode_head=head)).eval()


#: Names in the authors' release, and ours.
NAMES = {
    "network.bn.1.running_var": "neck.laterals.1.norm.running_var",
    "network.decoder.lateral_projections.0.2.weight": "neck.laterals.0.mlp.2.weight",
    "network.decoder.scalers.3": "neck.laterals.3.scale",
    "network.decoder.q.weight": "decode_head.query_decoder.query_feat.weight",
    "network.decoder.decoder_norm.bias": "neck.norm.bias",
    "network.decoder.blocks.1.layer_scale2.lambda1": "neck.blocks.1.scale2",
    "network.decoder.blocks.1.attention.k_proj.weight": "neck.blocks.1.attn.k_proj.weight",
    "network.decoder.blocks.0.mlp.up_proj.bias": "neck.blocks.0.mlp.0.bias",
    "network.decoder.blocks.0.mlp.down_proj.bias": "neck.blocks.0.mlp.2.bias",
    "network.decoder.upscale.1.conv1.weight": "decode_head.query_decoder.upscale.1.upsample.weight",
    "network.decoder.upscale.1.conv2.weight": "decode_head.query_decoder.upscale.1.smooth.weight",
    "network.decoder.mask_head.4.weight": "decode_head.query_decoder.mask_embed.4.weight",
    "network.decoder.class_head.weight": "decode_head.query_decoder.cls_embed.weight",
    "network.decoder.attn_mask_probs": "decode_head.query_decoder.attn_mask_probs",
}


def test_convert__names_of_the_release(model):
    ours = random_state(model)
    theirs, dropped = convert(ours, to="lightning")
    assert all(torch.equal(theirs[name], ours[our_name]) for name, our_name in NAMES.items())
    assert all(name.startswith("backbone.") for name in dropped)
    assert "network.decoder.blocks.0.attention.k_proj.bias" not in theirs
    assert detect_content(theirs) == ("lightning", "pmt")


def test_convert_file__there_and_back(model, tmp_path: Path):
    ours = random_state(model)
    write_weights(tmp_path / "a.pth", ours, layout="ours")
    convert_file(tmp_path / "a.pth", tmp_path / "b.bin", to="lightning")
    theirs = read_weights(tmp_path / "b.bin")
    theirs |= {"criterion.empty_weight": torch.ones(4), "network.encoder.pixel_mean": torch.zeros(1, 3, 1, 1)}
    write_weights(tmp_path / "c.bin", theirs, layout="lightning")
    convert_file(tmp_path / "c.bin", tmp_path / "d.pth", to="ours")
    back = read_weights(tmp_path / "d.pth")
    assert back.keys() == {name for name in ours if not name.startswith("backbone.")}
    assert all(torch.equal(value, ours[name]) for name, value in back.items())
    found = read_whole_model(str(tmp_path / "c.bin"))
    assert found.layout == "lightning, pmt"
    assert found.weights.keys() == back.keys()


def test_load_weights__without_the_encoder(model):
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    with pytest.raises(ValueError, match=r"lacks \d+ weights of the backbone .*encoder was published apart"):
        load_weights(model, weights, source="pmt.pth")
