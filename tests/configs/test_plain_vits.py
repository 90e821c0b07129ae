"""Plain vision transformers under every head by one line, and what their ingredients build."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from tests.configs.test_leaves import make_sample

CONFIGS = Path(__file__).parents[2] / "configs"
PYRAMID = {"backbone": "pyramid_vit_tiny_from_scratch", "model.neck.scales": [4, 2, 1, 0.5]}
ADAPTER = {"backbone": "adapter_vit_tiny_from_scratch"}
PLAIN = {"backbone": "pyramid_vit_tiny_from_scratch", "model.neck": None, "model.backbone.out_indices": [1, 3]}
HEADS = [
    ("maskformer/maskformer_r18_shapes_debug", PYRAMID),
    ("mask2former/mask2former_r18_shapes-instance_demo", ADAPTER),
    ("segvit/segvit_tiny_shapes_debug", PLAIN),
    ("per_pixel/upernet_r18_shapes_demo", PYRAMID),
    ("cac/cac-upernet_r18_shapes_debug", ADAPTER),
]
MORE_HEADS = [
    ("mask2former/mask2former_r18_shapes-panoptic_demo", PYRAMID),
    ("detr/detr-tiny_r18_shapes_debug", PYRAMID),
    ("ecenet/ecenet_r18_shapes_debug", PYRAMID),
    ("segnext/segnext_r18_shapes_demo", ADAPTER),
    ("context_cluster/semantic-fpn_coc_tiny_shapes_debug", PYRAMID),
    ("per_pixel/deeplabv3plus_r18_shapes_demo", ADAPTER),
    ("per_pixel/segformer_r18_shapes_demo", PYRAMID),
]


@pytest.mark.parametrize(
    ("leaf", "options"),
    [*HEADS, *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in MORE_HEADS)],
    ids=lambda value: value.split("/")[1] if isinstance(value, str) else "",
)
def test_heads__train_and_predict_over_a_plain_vision_transformer(leaf, options):
    cfg = load_config(CONFIGS / f"{leaf}.py", options | {"model.backbone.model_options.depth": 4})
    check_config(cfg)
    model = MODELS.build(cfg.model)
    preprocessor = model.data_preprocessor
    preprocessor.size, preprocessor.size_divisor, preprocessor.pad_size_divisor = None, 32, 32
    preprocessor.batch_augments = None
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    batch = dict(inputs=images, data_samples=[make_sample(model) for _ in images])
    trained = {name: p.clone() for name, p in model.named_parameters() if name.startswith(("backbone.", "neck."))}
    model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    moved = {name for name, p in model.named_parameters() if name in trained and not torch.equal(p, trained[name])}
    assert any(name.startswith("backbone.vit.blocks.0.") for name in moved)
    predicted = model.eval().test_step(batch)
    assert len(predicted) == 2


@pytest.mark.parametrize(
    "name", ["pyramid_dinov2_vit_b", "pyramid_dinov3_vit_s", "pyramid_mae_vit_l", "resized_dinov2_vit_l"]
)
def test_ingredient__neck_fits_its_backbone(name):
    cfg = Config.fromfile(CONFIGS / f"_base_/backbones/{name}.py")
    cfg.backbone.pretrained = False
    with torch.device("meta"):
        backbone, neck = MODELS.build(cfg.backbone).eval(), MODELS.build(cfg.neck)
        maps = neck(backbone(torch.zeros(1, 3, 64, 96)))
    assert [tuple(x.shape[-2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    if "in_channels" in cfg.neck:
        assert cfg.neck.in_channels == backbone.feature_info.channels[-1]


@pytest.mark.parametrize(
    ("name", "expected"), [("adapter_dinov3_vit_s", 3_421_232), ("adapter_dinov3_vit_b", 10_193_984)]
)
def test_ingredient__frozen_adapter_trains_what_dinov3_adds(name, expected):
    cfg = Config.fromfile(CONFIGS / f"_base_/backbones/{name}.py")
    cfg.backbone.pretrained = False
    with torch.device("meta"):
        backbone = MODELS.build(cfg.backbone)
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == expected


def test_leaf__low_rank_training_of_vit_s():
    cfg = load_config(CONFIGS / "mask2former/mask2former-pyramid_dinov2_vit_s-lora_ade20k-512_160k.py")
    cfg.model.backbone.pretrained = False
    with torch.device("meta"):
        backbone = MODELS.build(cfg.model.backbone)
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == 294_912 + 147_456
