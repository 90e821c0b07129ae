"""Mask DINO's leaves: published sizes, losses, schedules and panoptic rule."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.models.segmentors.detector_results import QueryOutputs, checked_test_cfg, detector_results
from mmseg_m2f.structures import FeatureSpec
from tests.models.query_decoders.test_denoising import batch_of

FOLDER = Path(__file__).parents[2] / "configs/mask_dino"
SWIN_L = FeatureSpec((192, 384, 768, 1536), (4, 8, 16, 32))
NARROW = FeatureSpec((8, 8, 8, 8), (4, 8, 16, 32))
SEMANTIC = ("mask-dino_r50_ade20k-512_160k", "mask-dino_r50_cityscapes-512x1024_90k")


def read(leaf: str) -> Config:
    """With random initial weights."""
    cfg = Config.fromfile(FOLDER / f"{leaf}.py")
    cfg.model.backbone.pop("init_cfg", None)
    return cfg


def build(cfg: Config) -> nn.Module:
    """Without any memory for the weights."""
    with torch.device("meta"):
        return MODELS.build(cfg.model)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("leaf", "size"),
    [
        ("mask-dino_r50_coco-instance-1024_50e", 52_111_124),
        ("mask-dino_r50_coco-panoptic-1024_50e", 52_138_313),
        ("mask-dino_r50_ade20k-512_160k", 43_865_419),
        ("mask-dino_r50_cityscapes-512x1024_90k", 43_798_216),
    ],
)
def test_mask_dino_recipe__published_size(leaf, size):
    assert count(build(read(leaf))) == size


@pytest.mark.parametrize(("task", "num_classes"), [("instance", 80), ("panoptic", 133)])
def test_mask_dino_recipe__published_size_of_the_head_over_swin_l(task, num_classes):
    head = read(f"mask-dino_swin_l_coco-{task}-1024_50e").model.decode_head
    with torch.device("meta"):
        built = MODELS.build(head, default_args=dict(feature_spec=SWIN_L))
    # Each class has a row of 257 numbers in the class layer and one of 256 in the table of noisy labels.
    assert count(built) == 27_597_940 + (num_classes - 80) * (257 + 256)


@pytest.mark.parametrize(("task", "num_losses"), [("panoptic", 105), ("semantic", 95)])
def test_mask_dino_recipe__published_losses(task, num_losses):
    """Five of the cells, of ten predictions, and of the copies in each of these; learnt queries come from no cells."""
    cfg = read("mask-dino_r50_coco-panoptic-1024_50e" if task == "panoptic" else SEMANTIC[0]).model.decode_head
    cfg.criterion.sampling.num_points, cfg.query_decoder.num_queries = 16, 30  # images of 64 pixels have 85 cells
    head = MODELS.build(cfg, default_args=dict(feature_spec=NARROW))
    maps = [torch.randn(2, 8, 64 // stride, 64 // stride) for stride in NARROW.strides]
    losses = {name: value for name, value in head.loss(maps, batch_of(2, 1)).items() if "loss" in name}
    assert len(losses) == num_losses
    sum(losses.values()).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("leaf", SEMANTIC)
def test_mask_dino_recipe__semantic_models_match_by_sigmoids_and_learn_by_a_softmax(leaf):
    criterion = read(leaf).model.decode_head.criterion
    weights = {cost.type.removeprefix("mmseg_m2f."): cost.weight for cost in criterion.assigner.match_costs}
    assert weights == dict(ClassFocalCost=4, MaskBCECost=5, MaskDiceCost=5, BoxL1Cost=5, BoxGIoUCost=2)
    assert criterion.loss_cls == dict(type="mmseg_m2f.ClassLoss", loss_weight=4, no_object_weight=0.1)
    names = ("loss_mask", "loss_dice", "loss_bbox", "loss_iou")
    assert [criterion[name].loss_weight for name in names] == [5, 5, 5, 2]


@pytest.mark.parametrize(
    ("leaf", "max_iters", "milestones", "crop_size", "norm"),
    [
        ("mask-dino_r50_coco-panoptic-1024_50e", 368750, [327778, 355092], (1024, 1024), "mmseg_m2f.FrozenBN"),
        ("mask-dino_swin_l_coco-panoptic-1024_50e", 368750, [327778, 355092], (1024, 1024), None),
        ("mask-dino_r50_ade20k-512_160k", 160000, [135000, 150000], (512, 512), "mmseg_m2f.FrozenBN"),
        ("mask-dino_r50_cityscapes-512x1024_90k", 90000, [80000, 87000], (512, 1024), "BN"),
    ],
)
def test_mask_dino_recipe__published_schedule(leaf, max_iters, milestones, crop_size, norm):
    cfg = read(leaf)
    (steps,) = cfg.param_scheduler
    assert (steps.type, steps.milestones, steps.gamma) == ("mmengine.MultiStepLR", milestones, 0.1)
    assert (cfg.train_cfg.max_iters, steps.end) == (max_iters, max_iters)
    assert tuple(cfg.crop_size) == crop_size
    assert (cfg.auto_scale_lr.base_batch_size, cfg.optim_wrapper.clip_grad.max_norm) == (16, 0.01)
    assert cfg.model.backbone.get("norm_cfg", {}).get("type") == norm
    assert cfg.get("sync_bn") == ("torch" if norm == "BN" else None)


def test_mask_dino_recipe__published_rates():
    cfg = read(SEMANTIC[0])
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {
        "backbone.layer1.0.conv1.weight": (1e-5, 0.05),
        "decode_head.pixel_decoder.level_encoding.weight": (1e-4, 0.05),
        "decode_head.query_decoder.cls_embed.bias": (1e-4, 0.05),
        "decode_head.query_decoder.query_boxes.weight": (1e-4, 0),
        "decode_head.query_decoder.denoising.label_embed.weight": (1e-4, 0),
        "decode_head.query_decoder.transformer_decoder.post_norm.weight": (1e-4, 0),
    }
    parameters = dict(model.named_parameters())
    assert {name: of[id(parameters[name])] for name in expected} == expected


def test_mask_dino_recipe__panoptic_map_of_queries_surer_than_a_quarter():
    cfg = checked_test_cfg(read("mask-dino_r50_coco-panoptic-1024_50e").model.test_cfg)
    probs = torch.tensor([[[0.30, 0.10], [0.20, 0.24], [0.10, 0.90]]])  # the second of three queries is not sure enough
    masks = torch.full((1, 3, 4, 6), -5.0)
    for query in range(3):
        masks[0, query, :, 2 * query : 2 * query + 2] = 5
    outputs = QueryOutputs(probs.logit(), masks, torch.full((1, 3, 4), 0.5), "sigmoid")
    (found,) = detector_results(
        outputs, Resizing((4, 6), (4, 6), (4, 6)), torch.tensor([True, False]), num_things=1, cfg=cfg
    )
    assert found.panoptic[0].tolist() == [1000, 1000, 2, 2, 1, 1]  # class 0, object 1; nothing; class 1, which is stuff
    assert found.labels[0].tolist() == [0, 0, 1, 1, 1, 1]  # all vote for labels
    assert (found.instances.labels == 0).all()
