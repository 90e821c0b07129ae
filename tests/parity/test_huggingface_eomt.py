"""Equality with Hugging Face's EoMT on the same random weights."""

import pytest
import torch
from mmengine.registry import MODELS

pytestmark = pytest.mark.parity

WIDTH, DEPTH, HEADS, JOINT, QUERIES, CLASSES, SIZE = 32, 4, 4, 2, 9, 5, 64

NAMES = {
    "embeddings.cls_token": "backbone.vit.cls_token",
    "embeddings.register_tokens": "backbone.vit.reg_token",
    "embeddings.patch_embeddings.projection": "backbone.vit.patch_embed.proj",
    "embeddings.position_embeddings.weight": "backbone.vit.pos_embed",
    "layernorm.": "backbone.vit.norm.",
    "query.weight": "decode_head.query_decoder.query_feat.weight",
    "class_predictor.": "decode_head.query_decoder.cls_embed.",
    "mask_head.fc1": "decode_head.query_decoder.mask_embed.0",
    "mask_head.fc2": "decode_head.query_decoder.mask_embed.2",
    "mask_head.fc3": "decode_head.query_decoder.mask_embed.4",
    "upscale_block.block.": "decode_head.query_decoder.upscale.",
    "attn_mask_probs": "decode_head.query_decoder.attn_mask_probs",
    "layers.": "backbone.vit.blocks.",
    ".conv1.": ".upsample.",
    ".conv2.": ".smooth.",
    ".layernorm2d.": ".norm.",
    ".attention.out_proj.": ".attn.proj.",
    ".layer_scale1.lambda1": ".ls1.gamma",
    ".layer_scale2.lambda1": ".ls2.gamma",
}


def build_huggingface() -> torch.nn.Module:
    from transformers import EomtConfig, EomtForUniversalSegmentation

    config = EomtConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=SIZE,
        patch_size=16,
        num_blocks=JOINT,
        num_queries=QUERIES,
        num_labels=CLASSES,
    )
    model = EomtForUniversalSegmentation(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    for layer in model.layers:  # torch misreads their float32 mask beside float64 queries on a CPU
        layer.register_forward_pre_hook(
            lambda _, inputs: (inputs[0], None if inputs[1] is None else inputs[1].double())
        )
    return model.double()


def build_ours() -> torch.nn.Module:
    model = MODELS.build(
        dict(
            type="mmseg_m2f.MaskSegmentor",
            backbone=dict(
                type="mmseg_m2f.TimmTokenStream",
                model_name="vit_small_patch14_reg4_dinov2",
                num_joint_blocks=JOINT,
                img_size=(SIZE, SIZE),
                model_options=dict(embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS),
            ),
            decode_head=dict(
                type="mmseg_m2f.MaskHead",
                num_classes=CLASSES,
                pixel_decoder=None,
                query_decoder=dict(type="mmseg_m2f.EncoderMaskDecoder", num_queries=QUERIES),
            ),
        )
    )
    return model.double().eval()


def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face's weights under our names, queries, keys and values of a block as one."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith("criterion.") or ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            value = torch.cat([weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            name = name.replace(".attention.q_proj.", ".attn.qkv.")
        for theirs, ours in NAMES.items():
            if theirs in name and (theirs.startswith(".") or name.startswith(theirs)):
                name = name.replace(theirs, ours)
        renamed[name] = value.unsqueeze(0) if name.endswith("pos_embed") else value
    return renamed


@pytest.mark.parametrize("probs", [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_huggingface_eomt__all_predictions(probs: tuple[float, ...]):
    theirs, ours = build_huggingface(), build_ours()
    theirs.attn_mask_probs.copy_(torch.tensor(probs))
    ours.load_state_dict(rename(theirs.state_dict()), strict=True)
    images = torch.randn(2, 3, SIZE, SIZE).double()
    seen = []
    predict = theirs.predict
    theirs.predict = lambda logits: seen.append(predict(logits)) or seen[-1]
    with torch.no_grad():
        theirs(pixel_values=images)
        predictions = ours.decode_head(ours.extract_feat(images))
    assert len(predictions) == JOINT + 1
    # At test they predict where a mask is needed, and at the end.
    wanted = [prediction for prediction, prob in zip(predictions, probs, strict=False) if prob] + predictions[-1:]
    for prediction, (masks, classes) in zip(wanted, seen, strict=True):
        assert min(classes.std(1).mean(), masks.std(1).mean()) > 0.01  # between queries
        assert 0.1 < (masks > 0).double().mean() < 0.9
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-9)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-9)
