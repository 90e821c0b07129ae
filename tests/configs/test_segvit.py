from inspect import signature
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

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
    settings = dict(shrink_stride=1) | backbone
    if vit is SHRUNK:
        settings = {p.name: p.default for p in signature(ShrunkVisionTransformer).parameters.values()} | backbone
    assert {name: settings[name] for name in vit} == vit
    assert (head.num_classes, cfg.crop_size, tuple(backbone.img_size)) == (num_classes, (crop, crop), (crop, crop))
    expected = dict(type="mmseg_m2f.AttentionToMaskDecoder")
    if vit is SHRUNK:
        expected = dict(type="mmseg_m2f.QueryUpsamplingDecoder", crop_size=(crop, crop))
    assert head.query_decoder == expected


def test_segvit__images_that_patches_do_not_fill():
    model = build("segvit_tiny_shapes_debug")
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.arange(70).div(10).long().expand(1, 53, -1).clone()))
    images = torch.randn(1, 3, 53, 70)
    total, _ = model.parse_losses(model.loss(images, [sample]))
    total.backward()
    assert total.isfinite()
    (answer,) = model.eval().predict(images)
    assert answer.pred_sem_seg.data.shape == (1, 53, 70)


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
