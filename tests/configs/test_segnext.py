"""MSCAN and its recipes: published sizes, ranks and parameter groups; MSCAN below heads of mask classification."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, TRANSFORMS
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

CONFIGS = Path(__file__).parents[2] / "configs"
HEADS = [
    "mask2former_tiny",
    "mask2former_fpn",
    "mask2former_hamburger",
    "mask2former_transformer_fpn",
    "maskformer_tiny",
]


def build(path: str) -> tuple[nn.Module, Config]:
    cfg = Config.fromfile(CONFIGS / path)
    cfg.model.backbone.pop("init_cfg")
    return MODELS.build(cfg.model), cfg


def with_weights(size: str) -> dict:
    """The published backbone's settings."""
    return Config.fromfile(CONFIGS / f"_base_/backbones/mscan_{size}.py").backbone


def mscan(size: str) -> nn.Module:
    """With random initial weights."""
    cfg = with_weights(size)
    cfg.pop("init_cfg")
    return MODELS.build(cfg).eval()


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.mark.parametrize(
    ("size", "backbone", "whole", "rank", "drop_path"),
    [
        ("t", 3.90, 4.26, 16, 0.1),
        ("s", 13.45, 13.93, 16, 0.1),
        ("b", 26.28, 27.64, 64, 0.1),
        ("l", 44.64, 48.93, 64, 0.3),
    ],
)
def test_segnext__published_size_and_rank(size, backbone, whole, rank, drop_path):
    model, cfg = build(f"segnext/segnext_mscan_{size}_ade20k-512_160k.py")
    assert millions(model.backbone) == pytest.approx(backbone, abs=0.005)
    assert millions(model) == pytest.approx(whole, abs=0.005)
    assert rank == model.decode_head.hamburger.ham.R
    assert cfg.model.backbone.drop_path_rate == drop_path
    for data in ("cityscapes-1024_160k", "cocostuff164k-512_80k"):
        other = Config.fromfile(CONFIGS / f"segnext/segnext_mscan_{size}_{data}.py").model
        assert (other.backbone, other.decode_head.ham_kwargs.MD_R) == (with_weights(size), rank)


@pytest.mark.parametrize("size", "tsbl")
@pytest.mark.parametrize(
    ("data", "crop", "scale", "iterations", "test_cfg"),
    [
        ("ade20k-512_160k", 512, (2048, 512), 160000, dict(mode="whole")),
        ("cocostuff164k-512_80k", 512, (2048, 512), 80000, dict(mode="whole")),
        (
            "cityscapes-1024_160k",
            1024,
            (2048, 1024),
            160000,
            dict(mode="slide", crop_size=(1024, 1024), stride=(768, 768)),
        ),
    ],
)
def test_segnext__published_recipe(size, data, crop, scale, iterations, test_cfg):
    cfg = Config.fromfile(CONFIGS / f"segnext/segnext_mscan_{size}_{data}.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("mmengine.AdamW", 6e-5, 0.01)
    assert (optimizer.betas, cfg.optim_wrapper.clip_grad, cfg.sync_bn) == ((0.9, 0.999), None, "torch")
    warm_up, fall = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, fall.power, fall.eta_min) == (1e-6, 1500, 1.0, 0.0)
    assert cfg.train_cfg.max_iters == fall.end == iterations
    resize, cut = cfg.train_pipeline[2:4]
    assert (tuple(resize.scale), tuple(resize.ratio_range)) == (scale, (0.5, 2.0))
    assert (tuple(cut.crop_size), cut.cat_max_ratio) == ((crop, crop), 0.75)
    assert cfg.model.test_cfg == test_cfg


@pytest.mark.parametrize("data", ["ade20k_ratio_512_multiple32", "cocostuff164k_ratio_512_multiple32"])
def test_segnext__tests_at_multiples_of_32_that_are_resized(data):
    cfg = Config.fromfile(CONFIGS / f"_base_/datasets/{data}.py")
    assert resized(cfg.test_pipeline[1:3]) == (512, 704)
    scales, multiples = cfg.tta_pipeline[1].transforms[:2]
    sizes = [resized([scale, *multiples]) for scale in scales]
    assert sizes == [(256, 352), (384, 544), (512, 704), (640, 896), (768, 1056), (896, 1248)]


def resized(transforms: list[dict]) -> tuple[int, int]:
    """Height and width of an image of 500 × 683 pixels."""
    results = dict(img=np.zeros((500, 683, 3), np.uint8))
    for transform in transforms:
        results = TRANSFORMS.build(transform)(results)
    return results["img"].shape[:2]


@pytest.mark.parametrize(("size", "expected"), [("t", 23.59), ("s", 33.26), ("b", 46.09), ("l", 64.45)])
def test_mask2former_over_mscan__published_size(size, expected):
    model, _ = build(f"mask2former/mask2former_mscan_{size}_ade20k-512_160k.py")
    assert millions(model) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "leaf", ["segnext/segnext_mscan_t_ade20k-512_160k", "mask2former/mask2former_mscan_t_ade20k-512_160k"]
)
def test_mscan__norms_are_not_decayed(leaf):
    model, cfg = build(f"{leaf}.py")
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    norms = [m for m in model.backbone.modules() if isinstance(m, (_BatchNorm, nn.LayerNorm))]
    assert len(norms) == 2 + 3 + 4 + 2 * 13  # stem, other reductions, stages, blocks
    assert {decay[id(p)] for norm in norms for p in norm.parameters()} == {0.0}
    assert decay[id(model.backbone.block1[0].attn.proj_1.weight)] > 0
    scaled = decay[id(model.backbone.block1[0].layer_scale_1)]
    assert scaled == (cfg.optim_wrapper.optimizer.weight_decay if leaf.startswith("segnext") else 0)
    assert cfg.sync_bn == "torch"
    faster = 10 if leaf.startswith("segnext") else 1
    assert {rate[id(p)] for p in model.decode_head.parameters()} == {cfg.optim_wrapper.optimizer.lr * faster}


@pytest.mark.parametrize(("head", "size"), list(zip(HEADS, "tsblt", strict=True)))
def test_mscan__below_heads_of_mask_classification(head, size):
    cfg = Config.fromfile(CONFIGS / f"_base_/models/{head}.py").model
    backbone = Config.fromfile(CONFIGS / f"_base_/backbones/mscan_{size}.py").backbone
    backbone.pop("init_cfg")
    cfg.backbone = backbone
    cfg.decode_head.num_classes = 5
    model = MODELS.build(cfg)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        prediction = model.decode_head(model.extract_feat(torch.empty(1, 3, 64, 96)))[-1]
        assert prediction.mask_logits().shape[-2:] == (16, 24)


@pytest.mark.parametrize("size", "tsbl")
def test_mscan__strides_and_widths(size):
    backbone = mscan(size)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        maps = backbone(torch.empty(1, 3, 128, 128))
    widths = (32, 64, 160, 256) if size == "t" else (64, 128, 320, 512)
    sides = (32, 16, 8, 4)
    assert [tuple(x.shape[1:]) for x in maps] == [(c, n, n) for c, n in zip(widths, sides, strict=True)]


@pytest.mark.parametrize(
    ("size", "products", "operations", "published"),
    [("t", 6.40, 6.61, 7), ("s", 15.65, 15.87, 16), ("b", 34.66, 34.92, 35), ("l", 69.69, 70.00, 70)],
)
def test_segnext__published_multiply_adds(size, products, operations, published):
    """In thousand millions, on 512 × 512 pixels; the published ones count normalisations and resizing, too."""
    model = build(f"segnext/segnext_mscan_{size}_ade20k-512_160k.py")[0].eval()
    model.forward = lambda images: model.encode_decode(images, [dict(img_shape=(512, 512))])
    analyzer = FlopAnalyzer(model, (torch.zeros(1, 3, 512, 512),))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = {operator: count / 1e9 for operator, count in analyzer.by_operator().items()}
    assert counts["conv"] + counts["bmm"] == pytest.approx(products, abs=0.005)
    assert sum(counts.values()) == pytest.approx(operations, abs=0.005)
    assert round(sum(counts.values())) == published


def test_mscan__attention_is_a_plain_product():
    backbone = mscan("t")
    gate = backbone.block1[0].attn.spatial_gating_unit
    x = torch.randn(1, 32, 8, 8)
    assert not gate(torch.zeros_like(x)).any()
    once = gate(x)
    gate.conv3.weight.data *= 2
    gate.conv3.bias.data *= 2
    torch.testing.assert_close(gate(x), 2 * once)
    for stage, width in enumerate((32, 64, 160, 256), 1):
        tokens = torch.randn(1, 64, width)
        for block in getattr(backbone, f"block{stage}"):
            block.layer_scale_1.data.zero_()
            block.layer_scale_2.data.zero_()
            assert torch.equal(block(tokens, 8, 8), tokens)


def hamburger() -> nn.Module:
    """Three bases for maps of eight channels."""
    return MODELS.build(
        dict(
            type="mmseg.LightHamHead",
            in_channels=[4, 4, 4],
            in_index=[0, 1, 2],
            channels=8,
            ham_channels=8,
            num_classes=2,
            ham_kwargs=dict(MD_R=3),
            norm_cfg=dict(type="GN", num_groups=1),
            loss_decode=dict(type="mmseg.CrossEntropyLoss"),
        )
    ).hamburger.ham.eval()


def test_hamburger__draws_its_bases_anew():
    ham, x = hamburger(), torch.rand(1, 8, 5, 6)
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        found.append(ham(x))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_hamburger__reconstructs_better_with_each_step_and_has_the_rank_of_its_bases():
    ham, x = hamburger(), torch.rand(1, 8, 5, 6)
    errors = []
    for ham.eval_steps in (0, 1, 2, 4, 7):
        torch.manual_seed(1)
        found = ham(x)
        assert (found >= 0).all()
        errors.append((found - x).square().sum().item())
    assert errors == sorted(errors, reverse=True)
    assert torch.linalg.matrix_rank(found.flatten(2)[0], rtol=1e-4) <= 3
