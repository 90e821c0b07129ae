"""Leaves of Context Cluster: published sizes, centres, and the backbone below heads of mask classification."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("arch", "parameters", "multiply_adds"), [("small", 18.41e6, 35.9e9), ("medium", 33.05e6, 52.1e9)]
)
def test_semantic_fpn__published_size(arch, parameters, multiply_adds):
    cfg = Config.fromfile(CONFIGS / f"context_cluster/semantic-fpn_coc_{arch}-4_ade20k-512_80k.py").model
    cfg.backbone.pop("init_cfg")
    model = MODELS.build(cfg).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode_head(model.extract_feat(torch.empty(1, 3, 512, 512)))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=5e-3)
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    assert (sum(counts.values()) - counts["aten.bmm"]) / 2 == pytest.approx(multiply_adds, rel=5e-3)


def test_semantic_fpn__published_recipe():
    cfg = Config.fromfile(CONFIGS / "context_cluster/semantic-fpn_coc_small-25_ade20k-512_80k.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("mmengine.AdamW", 1e-4, 1e-4)
    assert (cfg.optim_wrapper.clip_grad, cfg.optim_wrapper.paramwise_cfg, cfg.sync_bn) == (None, None, "torch")
    (fall,) = cfg.param_scheduler
    assert (fall.type, fall.power, fall.eta_min, fall.end) == ("mmengine.PolyLR", 0.9, 0.0, 80000)
    assert cfg.train_cfg.max_iters == 80000
    resize = cfg.train_pipeline[2]
    assert (tuple(resize.scale), tuple(resize.ratio_range)) == ((2048, 512), (0.5, 2.0))
    assert cfg.test_pipeline[2] == dict(type="mmseg.ResizeToMultiple", size_divisor=32)
    head, neck = cfg.model.decode_head, cfg.model.neck
    assert (head.channels, head.dropout_ratio, head.align_corners, neck.out_channels) == (128, 0.1, False, 256)
    assert cfg.model.backbone.get("drop_path_rate", 0) == 0


@pytest.mark.parametrize("arch", ["small", "medium"])
@pytest.mark.parametrize(("centres", "side"), [(4, 2), (25, 5), (49, 7)])
def test_semantic_fpn__centres(arch, centres, side):
    cfg = Config.fromfile(CONFIGS / f"context_cluster/semantic-fpn_coc_{arch}-{centres}_ade20k-512_80k.py").model
    cfg.backbone.pop("init_cfg")
    with torch.device("meta"):
        backbone = MODELS.build(cfg.backbone)
    assert cfg.backbone.arch == arch
    assert tuple(backbone.arch.center_grid) == (side,) * 4


@pytest.mark.parametrize(
    "head",
    ["mask2former_tiny", "mask2former_fpn", "mask2former_hamburger", "mask2former_transformer_fpn", "maskformer_tiny"],
)
def test_context_cluster__trains_below_heads_of_mask_classification(head):
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{head}.py").model
    cfg.backbone = Config.fromfile(CONFIGS / "_base_/backbones/coc_tiny_from_scratch.py").backbone
    cfg.decode_head.num_classes = 5
    model = MODELS.build(cfg)
    prediction = model.decode_head(model.extract_feat(torch.randn(1, 3, 64, 64)))[-1]
    prediction.mask_logits().square().sum().backward()
    assert model.backbone.patch_embed.proj.weight.grad.any()
