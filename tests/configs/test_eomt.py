"""EoMT's leaves: published recipes, sizes and windows."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.hooks import MaskAnnealing
from mmseg_m2f.engine.parameter_rule import ParameterRule
from mmseg_m2f.models.backbones import TimmTokenStream

FOLDER = Path(__file__).parents[2] / "configs/eomt"
COCO, COCO_TWICE = 88692, 177384
COCO_STEPS = [(14782, 29564), (29564, 44346), (44346, 59128), (59128, 73910)]
COCO_TWICE_STEPS = [(29564, 59128), (73910, 103474), (118256, 147820)]
ADE_STEPS = [(6520, 13040), (13040, 19560), (19560, 26080), (26080, 32600)]
CITYSCAPES_STEPS = [(3317, 6634), (6634, 9951), (9951, 13268), (13268, 16585)]


PUBLISHED = sorted(path.stem for path in FOLDER.glob("eomt_dino*.py"))
WITH_OBJECTS = [leaf for leaf in PUBLISHED if "coco" in leaf]


def read(leaf: str) -> Config:
    """With random initial weights."""
    cfg = Config.fromfile(FOLDER / f"{leaf}.py")
    cfg.model.backbone.pretrained = False
    return cfg


def build(cfg: Config) -> nn.Module:
    """Without any memory for the weights."""
    with torch.device("meta"):
        return MODELS.build(cfg.model)


def annealing(cfg: Config) -> MaskAnnealing:
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == "mmseg_m2f.MaskAnnealing")
    return HOOKS.build(hook)


@pytest.mark.parametrize(
    ("leaf", "iterations", "steps"),
    [
        ("eomt_dinov2_vit_s_coco-panoptic-640_24e", COCO_TWICE, COCO_TWICE_STEPS),
        ("eomt_dinov2_vit_b_coco-panoptic-640_24e", COCO_TWICE, COCO_TWICE_STEPS),
        ("eomt_dinov2_vit_l_coco-panoptic-640_12e", COCO, COCO_STEPS),
        ("eomt_dinov2_vit_l_coco-panoptic-1280_12e", COCO, COCO_STEPS),
        ("eomt_dinov2_vit_l_coco-instance-640_12e", COCO, COCO_STEPS),
        ("eomt_dinov2_vit_l_coco-instance-1280_12e", COCO, COCO_STEPS),
        ("eomt_dinov2_vit_l_ade20k-512_31e", 39120, ADE_STEPS),
        ("eomt_dinov2_vit_l_cityscapes-1024_107e", 19902, CITYSCAPES_STEPS),
    ],
)
def test_eomt_recipe__published_iterations_and_annealing_of_each_joint_block(leaf, iterations, steps):
    cfg, default = read(leaf), signature(TimmTokenStream).parameters["num_joint_blocks"].default
    num_blocks = cfg.model.backbone.get("num_joint_blocks", default)
    assert (cfg.train_cfg.max_iters, num_blocks) == (iterations, len(steps))
    hook = annealing(cfg)
    assert hook.power == 0.9
    for block, (start, end) in enumerate(steps):
        assert prob(hook, start, iterations, num_blocks)[block] == pytest.approx(1, abs=1e-6)
        assert 0 < prob(hook, start + 1, iterations, num_blocks)[block] < 1
        assert 0 < prob(hook, end - 1, iterations, num_blocks)[block] < 0.01
        assert prob(hook, end + 1, iterations, num_blocks)[block] == 0


def prob(hook: MaskAnnealing, iteration: int, max_iters: int, num_blocks: int) -> list[float]:
    return hook.probabilities(iteration / max_iters, num_blocks)


def test_eomt_recipe__of_the_giant_by_its_options():
    options = dict(backbone="dinov2_vit_g", model=dict(backbone=dict(num_joint_blocks=5)))
    cfg = load_config(FOLDER / "eomt_dinov2_vit_l_coco-panoptic-640_12e.py", options)
    hook, num_blocks = annealing(cfg), cfg.model.backbone.num_joint_blocks
    starts, ends = (14782, 25869, 36955, 48042, 59128), (29564, 40651, 51737, 62824, 73910)
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert prob(hook, start - 1, COCO, num_blocks)[block] == pytest.approx(1, abs=1e-6)
        assert 0.999 < prob(hook, start + 2, COCO, num_blocks)[block] < 1
        assert 0 < prob(hook, end - 2, COCO, num_blocks)[block] < 0.01
        assert prob(hook, end + 1, COCO, num_blocks)[block] == 0


@pytest.mark.parametrize("leaf", PUBLISHED)
def test_eomt_recipe__published_optimizer_warmup_and_losses(leaf):
    """Batch 16: 8 processes with 2 images each."""
    cfg = read(leaf)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("mmengine.AdamW", 1e-4, 0.05)
    assert optimizer.betas == (0.9, 0.999)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=0.01, norm_type=2)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)
    (warmup,) = (HOOKS.build(hook) for hook in cfg.custom_hooks if hook.type == "mmseg_m2f.TwoStageWarmup")
    assert (warmup.head_iters, warmup.backbone_iters, warmup.power) == (500, 1000, 0.9)
    assert cfg.param_scheduler is None
    criterion = cfg.model.decode_head.criterion
    assert (criterion.loss_cls.loss_weight, criterion.loss_cls.no_object_weight) == (2.0, 0.1)
    assert (criterion.loss_mask.loss_weight, criterion.loss_dice.loss_weight) == (5.0, 5.0)
    assert [cost.weight for cost in criterion.assigner.match_costs] == [2.0, 5.0, 5.0]
    sampling = criterion.sampling
    assert (sampling.num_points, sampling.oversample, sampling.importance) == (12544, 3.0, 0.75)
    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ("leaf", "depth"),
    [("eomt_dinov2_vit_s_coco-panoptic-640_24e", 12), ("eomt_dinov2_vit_l_ade20k-512_31e", 24)],
)
def test_eomt_recipe__published_rates_and_decay_of_each_part(leaf, depth):
    cfg = read(leaf)
    model = build(cfg)
    groups = ParameterRule(cfg.optim_wrapper, cfg.optim_wrapper.paramwise_cfg).parameter_groups(model)
    assert {group["weight_decay"] for group in groups} == {0.05}
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    vit = model.backbone.vit
    for index, block in enumerate(vit.blocks):
        (rate,) = {rates[id(p)] for p in block.parameters()}
        assert rate == pytest.approx(1e-4 * 0.8 ** (depth - 1 - index))
    assert (
        rates[id(vit.patch_embed.proj.weight)] == rates[id(vit.pos_embed)] == pytest.approx(1e-4 * 0.8 ** (depth - 1))
    )
    assert {rates[id(p)] for part in (vit.norm, model.decode_head) for p in part.parameters()} == {1e-4}


@pytest.mark.parametrize(
    ("leaf", "millions", "queries"),
    [
        # timm's ViT for patches of 14 and 518 × 518 pixels, less what patches of 16 and the crop change; the head as in
        # `test_joint_encoder__published_size`.
        ("eomt_dinov2_vit_s_coco-panoptic-640_24e", 23.976, 200),
        ("eomt_dinov2_vit_b_coco-panoptic-640_24e", 93.663, 200),
        ("eomt_dinov2_vit_l_coco-panoptic-640_12e", 316.696, 200),
        ("eomt_dinov2_vit_l_coco-panoptic-1280_12e", 321.611, 200),
        ("eomt_dinov2_vit_l_coco-instance-640_12e", 316.641, 200),
        ("eomt_dinov2_vit_l_coco-instance-1280_12e", 321.557, 200),
        ("eomt_dinov2_vit_l_ade20k-512_31e", 316.021, 100),
        ("eomt_dinov2_vit_l_cityscapes-1024_107e", 319.032, 100),
    ],
)
def test_eomt__size_and_queries(leaf, millions, queries):
    model = build(read(leaf))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)
    assert model.decode_head.query_decoder.query_feat.num_embeddings == queries


@pytest.mark.parametrize("leaf", WITH_OBJECTS)
def test_eomt_recipe__published_jitter_sizes_and_thresholds_with_objects(leaf):
    cfg, side = read(leaf), 1280 if "1280" in leaf else 640
    assert tuple(cfg.model.backbone.img_size) == cfg.crop_size == (side, side)
    (jitter,) = (step for step in cfg.train_pipeline if step.type == "mmengine.RandomResize")
    assert (tuple(jitter.scale), tuple(jitter.ratio_range), jitter.keep_ratio) == ((side, side), (0.1, 2.0), True)
    (crop,) = (step for step in cfg.train_pipeline if step.type.endswith("RandomCrop"))
    assert tuple(crop.crop_size) == (side, side)
    (resize,) = (step for step in cfg.test_pipeline if step.type.endswith("Resize"))
    assert (tuple(resize.scale), resize.keep_ratio) == ((side, side), True)
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.test_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline
    assert cfg.model.data_preprocessor.pad_size_divisor == side
    results = build(cfg).test_cfg
    assert (results.object_threshold, results.overlap_threshold, results.max_per_image) == (0.8, 0.8, 100)
    assert (results.panoptic, results.instance) == ("panoptic" in leaf, True)


@pytest.mark.parametrize(
    ("leaf", "side"), [("eomt_dinov2_vit_l_ade20k-512_31e", 512), ("eomt_dinov2_vit_l_cityscapes-1024_107e", 1024)]
)
def test_eomt_recipe__published_jitter_and_windows_of_semantic_leaves(leaf, side):
    cfg = read(leaf)
    assert tuple(cfg.model.backbone.img_size) == cfg.crop_size == (side, side)
    (jitter,) = (step for step in cfg.train_pipeline if step.type == "mmengine.RandomChoiceResize")
    assert jitter.scales == [int(side * step / 10) for step in range(5, 21)]  # the short side
    (crop,) = (step for step in cfg.train_pipeline if step.type == "mmseg.RandomCrop")
    assert tuple(crop.crop_size) == tuple(cfg.model.data_preprocessor.size) == (side, side)
    (resize,) = (step for step in cfg.test_pipeline if step.type == "mmengine.Resize")
    assert (min(resize.scale), resize.keep_ratio) == (side, True)
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.test_dataloader.dataset.pipeline == cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(side, side), stride=(side, side))
    assert cfg.model.data_preprocessor.test_cfg == dict(size=(side, side))


@pytest.mark.parametrize(
    ("size", "canvas", "lefts"),
    [
        ((512, 683), (512, 683), (0, 171)),  # no multiple of the patch size
        ((341, 256), (512, 512), (0,)),
        ((400, 1700), (512, 1700), (0, 512, 1024, 1188)),
    ],
)
def test_eomt__windows_see_padding_only_where_the_image_is_smaller(size, canvas, lefts):
    cfg = read("eomt_dinov2_vit_l_ade20k-512_31e")
    cfg.model.backbone.update(num_joint_blocks=1, model_options=dict(embed_dim=32, depth=2, num_heads=4))
    model = MODELS.build(cfg.model).eval()
    image, sample = torch.randint(256, (3, *size), dtype=torch.uint8), SegDataSample(metainfo=dict(ori_shape=size))
    batch = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
    assert batch["inputs"].shape[-2:] == canvas
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    (result,) = model.predict(**batch)
    assert result.pred_sem_seg.data.shape == (1, *size)
    for window, left in zip(seen, lefts, strict=True):
        assert torch.equal(window, batch["inputs"][..., left : left + 512])
