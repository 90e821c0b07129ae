"""Other libraries' Mask2Formers with 5 classes, 7 queries and 32 channels, and ours of the same size."""

from pathlib import Path

import mmdet
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.parity.conftest import CONFIGS
from tests.random_weights import shake

NUM_CLASSES = 5
_RESNET = dict(
    depth=18, base_channels=8, stem_channels=8, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True
)
_SWIN = dict(
    pretrain_img_size=64,
    embed_dims=12,
    depths=[2, 1, 1, 1],
    num_heads=[1, 2, 3, 4],
    window_size=4,
    mlp_ratio=2,
)


def backbone(scope: str, name: str) -> dict:
    if name == "resnet":
        return dict(type=f"{scope}.ResNet", **_RESNET)
    return dict(type=f"{scope}.SwinTransformer", **_SWIN)


def backbone_channels(name: str) -> list[int]:
    return [8, 16, 32, 64] if name == "resnet" else [12, 24, 48, 96]


def build_ours(name: str) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask2former.py").model
    cfg.backbone = backbone("mmseg", name)
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion = None
    cfg.decode_head.pixel_decoder.update(channels=32, num_layers=1, num_heads=2, feedforward_channels=48)
    cfg.decode_head.query_decoder.update(num_queries=7, channels=32, num_layers=2, num_heads=2, feedforward_channels=48)
    return MODELS.build(cfg).eval()


def build_openmmlab(library: str, name: str) -> torch.nn.Module:
    """A segmentor of mmseg or a detector of mmdet."""
    path = Path(mmdet.__file__).parent / ".mim/configs/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
    cfg = Config.fromfile(path, import_custom_modules=False).model
    head = cfg.panoptic_head
    head.update(in_channels=backbone_channels(name), feat_channels=32, out_channels=32, num_queries=7)
    head.positional_encoding.num_feats = 16
    head.loss_cls.class_weight = [1.0] * NUM_CLASSES + [0.1]
    head.pixel_decoder.positional_encoding.num_feats = 16
    for layers, count in ((head.pixel_decoder.encoder, 1), (head.transformer_decoder, 2)):
        layers.num_layers = count
        layers.layer_cfg.self_attn_cfg.update(embed_dims=32, num_heads=2)
        layers.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=48)
    head.transformer_decoder.layer_cfg.cross_attn_cfg.update(embed_dims=32, num_heads=2)
    if library == "mmseg":
        # mmseg's head builds mmdet's parts.
        for part in (head.pixel_decoder, head.loss_cls, head.loss_mask, head.loss_dice):
            part.type = f"mmdet.{part.type}"
        head.update(type="mmseg.Mask2FormerHead", num_classes=NUM_CLASSES, align_corners=False)
        for key in ("num_things_classes", "num_stuff_classes"):
            del head[key]
        cfg.train_cfg.pop("sampler")
        cfg.train_cfg.assigner.type = "mmdet.HungarianAssigner"
        for cost in cfg.train_cfg.assigner.match_costs:
            cost.type = f"mmdet.{cost.type}"
        cfg.train_cfg.sampler = dict(type="mmdet.MaskPseudoSampler")
        head.train_cfg = cfg.train_cfg
        model = dict(
            type="mmseg.EncoderDecoder",
            backbone=backbone("mmseg", name),
            decode_head=head,
            test_cfg=dict(mode="whole"),
        )
    else:
        head.update(num_things_classes=2, num_stuff_classes=3)
        cfg.panoptic_fusion_head.update(num_things_classes=2, num_stuff_classes=3)
        cfg.update(type="mmdet.Mask2Former", data_preprocessor=None)
        cfg.backbone = backbone("mmdet", name)
        model = cfg
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(model).eval()
    shake(model)
    return model


def huggingface_encoder(name: str) -> object:
    """The config of a backbone."""
    from transformers import ResNetConfig, SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    if name == "resnet":
        return ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[2] * 4, layer_type="basic", out_features=stages
        )
    return SwinConfig(
        embed_dim=12,
        depths=[2, 1, 1, 1],
        num_heads=[1, 2, 3, 4],
        window_size=4,
        mlp_ratio=2.0,
        image_size=64,
        out_features=stages,
    )


def build_huggingface(name: str) -> torch.nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(
        backbone_config=huggingface_encoder(name),
        num_labels=NUM_CLASSES,
        num_queries=7,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        encoder_feedforward_dim=48,
        dim_feedforward=48,
    )
    return strengthen(Mask2FormerForUniversalSegmentation(config).eval())


def strengthen(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights under which every part shows in the predictions.

    Matrices keep the size of what they read, where their own start of 0.02 would nearly erase it; those of queries and
    keys enlarge it, so that attention differs from an average; and what starts at zero or one, which would hide a
    mix-up, gets noise.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            gain = 4 if ".q_proj." in name or ".k_proj." in name else 1
            is_table = "quer" in name and "proj" not in name
            parameter.data.normal_(0, 1 if is_table else gain * parameter[0].numel() ** -0.5)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dim() == 1 and tensor.is_floating_point() and "running" not in name:
            tensor.data += 0.1 * torch.randn_like(tensor)
    shake(model)
    return model


def random_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights, all different: no mix-up stays unseen."""
    state = model.state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in state.items()}
