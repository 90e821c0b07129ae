from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_m2f.layers.scoring_attention import AttentionToMaskLayer, ScoringAttention
from mmseg_m2f.layers.transformer import Attention
from mmseg_m2f.models.backbones import ShrunkVisionTransformer
from tests.models.query_decoders.test_attention_to_mask import BASE, LARGE, SHRUNK

ROOT = Path(__file__).parents[2]


def build(leaf: str, **backbone: object) -> nn.Module:
    """With random initial weights."""
    cfg = Config.fromfile(ROOT / f"configs/segvit/{leaf}.py").model
    cfg.backbone.pop("init_cfg", None)
    cfg.backbone.update(backbone)
    return MODELS.build(cfg)


@pytest.mark.parametrize(
    ("leaf", "vit", "num_classes", "crop"),
    [
        ("segvit_vit_b_ade20k-512_160k", BASE, 150, 512),
        ("segvit_vit_l_ade20k-640_160k", LARGE, 150, 640),
        ("segvit-shrunk_vit_l_ade20k-640_160k", SHRUNK, 150, 640),
        ("segvit_vit_l_cocostuff10k-512_80k", LARGE, 171, 512),
        ("segvit-shrunk_vit_l_cocostuff10k-512_80k", SHRUNK, 171, 512),
        ("segvit_vit_l_pascal-context-480_80k", LARGE, 59, 480),
        ("segvit-shrunk_vit_l_pascal-context-480_80k", SHRUNK, 59, 480),
    ],
)
def test_segvit_recipe__is_the_model_whose_operations_are_counted(leaf, vit, num_classes, crop):
    """By `test_segvit__published_multiply_adds`."""
    cfg = Config.fromfile(ROOT / f"configs/segvit/{leaf}.py")
    backbone, head = cfg.model.backbone, cfg.model.decode_head
    settings = dict(shrink=dict(stride=1)) | backbone
    if vit is SHRUNK:
        settings = {p.name: p.default for p in signature(ShrunkVisionTransformer).parameters.values()} | backbone
    assert {name: settings[name] for name in vit} == vit
    assert (head.num_classes, cfg.crop_size, tuple(backbone.img_size)) == (num_classes, (crop, crop), (crop, crop))
    expected = dict(type="mmseg_m2f.AttentionToMaskDecoder")
    if vit is SHRUNK:
        expected = dict(type="mmseg_m2f.QueryUpsamplingDecoder", crop_size=(crop, crop), cell_init="normal")
    assert head.query_decoder == expected


@pytest.mark.parametrize("shrunk", [False, True], ids=["plain", "shrunk"])
@pytest.mark.parametrize(
    ("data", "scale", "crop", "stride", "iterations", "decay", "power"),
    [
        ("ade20k-640_160k", (2048, 640), 640, 608, 160000, 0.01, 1.0),
        ("cocostuff10k-512_80k", (2048, 512), 512, 341, 80000, 0.02, 2.0),
        ("pascal-context-480_80k", (520, 520), 480, 320, 80000, 0.03, 1.0),
    ],
)
def test_segvit_recipe__is_the_published_one(shrunk, data, scale, crop, stride, iterations, decay, power):
    cfg = Config.fromfile(ROOT / f"configs/segvit/segvit{'-shrunk' * shrunk}_vit_l_{data}.py")
    check_common_recipe(cfg, drop_path=0.3)
    assert cfg.optim_wrapper.optimizer.weight_decay == decay
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].end == iterations
    assert cfg.param_scheduler[1].power == power
    resize, cut = cfg.train_pipeline[2:4]
    assert (tuple(resize.scale), tuple(resize.ratio_range)) == (scale, (0.5, 2.0))
    assert (tuple(cut.crop_size), cut.cat_max_ratio) == ((crop, crop), 0.75)
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(crop, crop), stride=(stride, stride))


def test_segvit_recipe__of_the_base_model():
    cfg = Config.fromfile(ROOT / "configs/segvit/segvit_vit_b_ade20k-512_160k.py")
    check_common_recipe(cfg, drop_path=0.1)
    assert (cfg.optim_wrapper.optimizer.weight_decay, cfg.train_cfg.max_iters) == (0.01, 160000)
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(512, 512), stride=(341, 341))


def check_common_recipe(cfg: Config, *, drop_path: float) -> None:
    """Of all published SegViTs; on 8 GPUs."""
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas) == ("mmengine.AdamW", 2e-5, (0.9, 0.999))
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=35.0, norm_type=2)
    warm_up, fall = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("mmengine.LinearLR", 1e-6, 1500)
    assert (fall.type, fall.begin, fall.eta_min) == ("mmengine.PolyLR", 1500, 0.0)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.model.data_preprocessor.mean == cfg.model.data_preprocessor.std == [127.5] * 3
    assert cfg.model.backbone.drop_path_rate == drop_path
    criterion = cfg.model.decode_head.criterion
    assert criterion.loss_cls == dict(type="mmseg_m2f.ClassLoss", loss_weight=1.0, no_object_weight=0.1)
    assert criterion.loss_mask == dict(type="mmseg_m2f.MaskFocalLoss", loss_weight=20.0)
    assert criterion.loss_dice == dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=1.0)


@pytest.mark.parametrize(
    ("leaf", "num_heads", "channels"),
    [
        ("segvit_vit_b_ade20k-512_160k", 12, 384),
        ("segvit_vit_l_ade20k-640_160k", 16, 512),
        ("segvit-shrunk_vit_l_ade20k-640_160k", 16, 512),
    ],
)
def test_segvit_recipe__heads_widths_and_dropout(leaf, num_heads, channels):
    decoder = build(leaf, num_layers=9 if "shrunk" in leaf else 1, out_indices=(0,)).decode_head.query_decoder
    layers = [module for module in decoder.modules() if isinstance(module, AttentionToMaskLayer)]
    assert len(layers) == 3
    attentions = [module for module in decoder.modules() if isinstance(module, (Attention, ScoringAttention))]
    assert {(attention.num_heads, attention.dropout) for attention in attentions} == {(num_heads, 0.1)}
    assert {m.p for m in decoder.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert decoder.query_feat.weight.shape == (150, channels)
    assert decoder.query_feat.weight.std().item() == pytest.approx(1, abs=0.02)
    assert decoder.cls_embed.weight.std().item() == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize(
    ("data", "at_one", "at_half"),
    [
        ("pascal_context_short_480", (520, 693), (260, 347)),  # the short side decides
        ("ade20k_ratio_640", (640, 853), (320, 427)),
        ("cocostuff10k_ratio_512", (512, 683), (256, 341)),
    ],
)
def test_segvit_recipe__several_scales_go_by_the_single_one(data, at_one, at_half):
    cfg = Config.fromfile(ROOT / f"configs/_base_/datasets/{data}.py")
    assert resized(cfg.test_pipeline[1]) == at_one
    scales = [resized(transform) for transform in cfg.tta_pipeline[1].transforms[0]]
    assert (scales[0], scales[2]) == (at_half, at_one)


def resized(transform: dict) -> tuple[int, int]:
    """Height and width of an image of 375 × 500 pixels."""
    return TRANSFORMS.build(transform)(dict(img=np.zeros((375, 500, 3), np.uint8)))["img"].shape[:2]


def test_segvit__images_that_patches_do_not_fill():
    model = build("segvit_tiny_shapes_debug")
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.arange(70).div(10).long().expand(1, 53, -1).clone()))
    images = torch.randn(1, 3, 53, 70)
    total, _ = model.parse_losses(model.loss(images, [sample]))
    total.backward()
    assert total.isfinite()
    (result,) = model.eval().predict(images)
    assert result.pred_sem_seg.data.shape == (1, 53, 70)


def test_segvit_continual__second_task_changes_neither_backbone_nor_the_first():
    model = build("segvit-continual_tiny_shapes-second_demo", num_layers=2, out_indices=(0, 1))
    assert not any(p.requires_grad for p in model.backbone.parameters())
    decoder = model.decode_head.query_decoder
    learns = {name.split(".")[1] for name, p in decoder.named_parameters() if p.requires_grad}
    assert learns == {"1"}


def test_segvit_recipe__decay_and_learning_rates_are_the_published_ones():
    cfg = Config.fromfile(ROOT / "configs/segvit/segvit_vit_b_ade20k-512_160k.py")
    cfg.model.backbone.update(num_layers=1, out_indices=(0,), init_cfg=None)
    model = MODELS.build(cfg.model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found["backbone.layers.0.ln1.weight"] == (2e-5, 0.0)
    assert found["backbone.layers.0.attn.attn.in_proj_weight"] == (2e-5, 0.01)
    assert found["decode_head.query_decoder.stages.0.layers.0.norms.0.weight"] == (pytest.approx(2e-4), 0.01)
    assert found["decode_head.query_decoder.query_feat.weight"] == (pytest.approx(2e-4), 0.01)
