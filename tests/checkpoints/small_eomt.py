"""Hugging Face's EoMT with 5 classes, 9 queries, 32 channels and two joint blocks, and ours of the same size."""

import torch
from mmengine.registry import MODELS

WIDTH, DEPTH, HEADS, JOINT, QUERIES, CLASSES, SIZE = 32, 4, 4, 2, 9, 5, 64


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
    return model


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
    return model.eval()
