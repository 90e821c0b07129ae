"""Other libraries' DETRs with 5 classes, 7 queries and 128 channels, and ours of the same size."""

from pathlib import Path

import mmdet
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.checkpoints.small_models import NUM_CLASSES, backbone, huggingface_encoder, strengthen
from tests.parity.conftest import CONFIGS
from tests.random_weights import shake

CHANNELS = 128  # the last map of the mask head has a sixteenth, in 8 groups


def build_ours(*, with_masks: bool = False, base_channels: int = 8) -> torch.nn.Module:
    name = "detr_panoptic" if with_masks else "detr"
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{name}.py").model
    cfg.backbone = backbone("mmseg", "resnet") | dict(base_channels=base_channels, stem_channels=base_channels)
    cfg.thing_classes = [0, 1]
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion = None
    cfg.decode_head.pixel_decoder.update(channels=CHANNELS, num_layers=1, feedforward_channels=48)
    cfg.decode_head.query_decoder.update(num_queries=7, num_layers=2, feedforward_channels=48)
    return MODELS.build(cfg).eval()


def build_mmdet() -> torch.nn.Module:
    path = Path(mmdet.__file__).parent / ".mim/configs/detr/detr_r18_8xb2-500e_coco.py"
    cfg = Config.fromfile(path, import_custom_modules=False).model
    cfg.update(type="mmdet.DETR", data_preprocessor=None, num_queries=7)
    cfg.backbone = backbone("mmdet", "resnet") | dict(out_indices=(3,))
    cfg.neck.update(in_channels=[64], out_channels=CHANNELS)
    cfg.positional_encoding.num_feats = CHANNELS // 2
    cfg.bbox_head.update(num_classes=NUM_CLASSES, embed_dims=CHANNELS)
    for stack, count in ((cfg.encoder, 1), (cfg.decoder, 2)):
        stack.num_layers = count
        stack.layer_cfg.self_attn_cfg.embed_dims = CHANNELS
        stack.layer_cfg.ffn_cfg.update(embed_dims=CHANNELS, feedforward_channels=48)
    cfg.decoder.layer_cfg.cross_attn_cfg.embed_dims = CHANNELS
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg)
    shake(model)
    return model.eval()


def build_huggingface(*, with_masks: bool = False, with_timm: bool = False) -> torch.nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation

    if with_timm:
        encoder = dict(use_timm_backbone=True, backbone="resnet18", use_pretrained_backbone=False)
    else:
        encoder = dict(use_timm_backbone=False, backbone_config=huggingface_encoder("resnet"))
    config = DetrConfig(
        **encoder,
        d_model=CHANNELS,
        num_queries=7,
        num_labels=NUM_CLASSES,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
    )
    return strengthen((DetrForSegmentation if with_masks else DetrForObjectDetection)(config).eval())
