"""Other libraries' MaskFormers with 5 classes, 7 queries and 32 channels, and ours of the same size."""

from pathlib import Path

import mmdet
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.checkpoints.small_models import (
    NUM_CLASSES,
    backbone,
    backbone_channels,
    huggingface_encoder,
    strengthen,
)
from tests.parity.conftest import CONFIGS, upstream_config
from tests.random_weights import shake

_LAYERS = dict(num_layers=2, num_heads=2, feedforward_channels=48)


def build_ours(name: str, *, with_encoder: bool = False) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / "_base_/models/maskformer.py").model
    cfg.backbone = backbone("mmseg", name)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion = None
    cfg.decode_head.pixel_decoder.channels = 32
    if with_encoder:
        cfg.decode_head.pixel_decoder.update(type="mmseg_m2f.TransformerFPNPixelDecoder", **_LAYERS)
    cfg.decode_head.query_decoder.update(num_queries=7, channels=32, **_LAYERS)
    return MODELS.build(cfg).eval()


def build_mmdet(name: str) -> torch.nn.Module:
    """mmdet's detector with an encoder in the pixel decoder."""
    path = Path(mmdet.__file__).parent / ".mim/configs/maskformer/maskformer_r50_ms-16xb1-75e_coco.py"
    cfg = Config.fromfile(path, import_custom_modules=False).model
    _shrink(cfg.panoptic_head, name)
    cfg.panoptic_head.update(num_things_classes=2, num_stuff_classes=3)
    cfg.panoptic_fusion_head.update(num_things_classes=2, num_stuff_classes=3)
    cfg.update(type="mmdet.MaskFormer", data_preprocessor=None)
    cfg.backbone = backbone("mmdet", name)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return _finish(MODELS.build(cfg))


def build_mmseg(name: str) -> torch.nn.Module:
    """mmseg's segmentor with a plain FPN as pixel decoder."""
    cfg = upstream_config("maskformer_r50-d32_8xb2-160k_ade20k-512x512.py").model
    _shrink(cfg.decode_head, name)
    cfg.decode_head.update(type="mmseg.MaskFormerHead", num_classes=NUM_CLASSES)
    cfg.update(type="mmseg.EncoderDecoder", data_preprocessor=None)
    cfg.backbone = backbone("mmseg", name)
    return _finish(MODELS.build(cfg))


def build_huggingface(name: str) -> torch.nn.Module:
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation

    decoder = DetrConfig(
        use_timm_backbone=False,
        backbone_config=huggingface_encoder("resnet"),
        d_model=32,
        num_queries=7,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
    )
    config = MaskFormerConfig(
        backbone_config=huggingface_encoder(name),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=NUM_CLASSES,
    )
    return strengthen(MaskFormerForInstanceSegmentation(config).eval())


def _shrink(head: dict, name: str) -> None:
    head.update(in_channels=backbone_channels(name), feat_channels=32, out_channels=32, num_queries=7)
    head.positional_encoding.num_feats = 16
    head.loss_cls.class_weight = [1.0] * NUM_CLASSES + [0.1]
    stacks = [head.transformer_decoder]
    if "encoder" in head.pixel_decoder:
        head.pixel_decoder.positional_encoding.num_feats = 16
        stacks.append(head.pixel_decoder.encoder)
    for stack in stacks:
        stack.num_layers = 2
        for attention in ("self_attn_cfg", "cross_attn_cfg"):
            if attention in stack.layer_cfg:
                stack.layer_cfg[attention].update(embed_dims=32, num_heads=2)
        stack.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=48)


def _finish(model: torch.nn.Module) -> torch.nn.Module:
    shake(model)
    return model.eval()
