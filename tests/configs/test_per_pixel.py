"""Leaves of per-pixel heads in mmseg's segmentors: each loads, builds, steps and predicts; recipes are mmseg's own."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.models.decode_heads import ContextAwareHead, ExplicitClassHead

CONFIGS = Path(__file__).parents[2] / "configs"
MMSEG = Path(mmseg.__file__).parent / ".mim/configs"
LEAVES = sorted(path for folder in ("cac", "ecenet", "per_pixel") for path in (CONFIGS / folder).glob("*.py"))
#: Published leaves, the recipe of mmseg they are built on, and the channels of the features that are classified.
RECIPES = {
    "cac-fcn_mobilenet_v2": ("mobilenet_v2/mobilenet-v2-d8_fcn_4xb4-160k_ade20k-512x512", 512),
    "cac-deeplabv3plus_r50": ("deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512", 512),
    "cac-ocrnet_hrnet_w18": ("ocrnet/ocrnet_hr18_4xb4-160k_ade20k-512x512", 512),
    "cac-upernet_swin_t": ("swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512", 512),
    "cac-upernet_swin_b": (
        "swin/swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512",
        512,
    ),
    "cac-segnext_mscan_t": ("segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512", 256),
}


def build(cfg: Config, **scope: str) -> torch.nn.Module:
    """The model with random initial weights."""
    cfg.model.backbone.pop("init_cfg", None)
    cfg.model.pop("pretrained", None)
    return MODELS.build(dict(cfg.model, **scope))


def published(name: str) -> Config:
    return load_config(CONFIGS / f"cac/{name}_ade20k-512_160k.py")


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def stripes(num_classes: int) -> SegDataSample:
    """Vertical stripes of the first classes."""
    labels = torch.arange(64).div(16, rounding_mode="floor").clamp(max=num_classes - 1).expand(64, -1)
    metainfo = dict(ori_shape=(64, 64), img_shape=(64, 64), img_path="stripes")
    return SegDataSample(gt_sem_seg=PixelData(data=labels.unsqueeze(0).clone()), metainfo=metainfo)


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_leaf__checks_builds_steps_and_predicts(path):
    assert len(path.read_text().splitlines()) <= 20
    cfg = load_config(path)
    check_config(cfg)
    with DefaultScope.overwrite_default_scope("mmengine"):  # as the Runner builds it
        model = build(cfg)
    assert cfg.num_classes == model.num_classes
    model.data_preprocessor.size, model.data_preprocessor.size_divisor = None, 32  # crops of 64 pixels keep their size
    # Batch norm after pooling to one pixel needs two images.
    batch = dict(
        inputs=[torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)],
        data_samples=[stripes(cfg.num_classes) for _ in range(2)],
    )
    trained = model.decode_head[-1] if isinstance(model.decode_head, torch.nn.ModuleList) else model.decode_head
    assert isinstance(trained, (ContextAwareHead, ExplicitClassHead)) == path.stem.startswith(("cac-", "ecenet"))
    before = [parameter.clone() for parameter in trained.parameters()]
    model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert any((x != y).any() for x, y in zip(before, trained.parameters(), strict=True))
    predicted = model.eval().test_step(batch)
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in predicted] == [(1, 64, 64)] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_published__mmsegs_model_and_two_projectors(name):
    recipe, channels = RECIPES[name]
    model = build(published(name))
    plain = build(Config.fromfile(MMSEG / f"{recipe}.py"), _scope_="mmseg")
    assert size(model) == size(plain) + 3 * channels**2 + 2 * channels
    assert size(model.backbone) == size(plain.backbone)


@pytest.mark.parametrize("name", RECIPES)
def test_published__mmsegs_schedule(name):
    recipe, _ = RECIPES[name]
    cfg = published(name)
    plain = Config.fromfile(MMSEG / f"{recipe}.py")
    for key in ("lr", "weight_decay", "momentum", "betas"):
        assert cfg.optim_wrapper.optimizer.get(key) == plain.optim_wrapper.optimizer.get(key)
    assert cfg.optim_wrapper.get("clip_grad") == plain.optim_wrapper.get("clip_grad")
    for ours, theirs in zip(cfg.param_scheduler, plain.param_scheduler, strict=True):
        assert ours.pop("type") == f"mmengine.{theirs.pop('type')}"
        assert ours == theirs
    assert cfg.train_cfg.max_iters == plain.train_cfg.max_iters


def test_published__swin_l_is_wider_only():
    model = build(published("cac-upernet_swin_l"))
    # 234 M (arXiv 2103.14030, appendix) with the auxiliary head, and the two projectors.
    assert size(model) == pytest.approx(234e6 + 3 * 512**2, rel=3e-3)


def test_published__norms_and_position_tables_are_not_decayed():
    cfg = published("cac-upernet_swin_t")
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {group["lr"] for group in groups} == {6e-5}
    assert decay[id(model.backbone.stages[0].blocks[0].attn.w_msa.relative_position_bias_table)] == 0
    assert decay[id(model.decode_head.host.bottleneck.bn.weight)] == 0
    assert decay[id(model.decode_head.proj[0].weight)] == 0.01


def test_ecenet__published_settings():
    cfg = load_config(CONFIGS / "ecenet/ecenet_swin_b_ade20k-640_160k.py")
    model = build(cfg)
    head, backbone = model.decode_head, cfg.model.backbone
    assert size(head) == pytest.approx(9.89e6, rel=5e-3)
    assert (backbone.pretrain_img_size, backbone.window_size, backbone.drop_path_rate) == (384, 12, 0.3)
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert (cfg.crop_size, cfg.sync_bn) == ((640, 640), "torch")
    assert cfg.model.test_cfg == dict(mode="slide", crop_size=(640, 640), stride=(608, 608))
    attention, gate = head.attentions[0], head.reconstruction.levels[0].gate
    assert (head.channels, attention.num_heads, attention.attn_sign) == (256, 4, -1)
    assert head.dropout.p == 0.1
    assert [type(part) for part in (attention.q[1], gate[-1])] == [nn.Identity] * 2
    weights = {name: loss.loss_weight for name, loss in head.mask_losses.items()}
    assert weights | dict(loss_div=head.loss_div.loss_weight) == dict(loss_mask=5.0, loss_dice=2.0, loss_div=0.2)
    head.init_weights()
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_ecenet__schedule():
    """None was published: Swin's, with sizes drawn from a continuous range."""
    cfg = load_config(CONFIGS / "ecenet/ecenet_swin_b_ade20k-640_160k.py")
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, cfg.train_cfg.max_iters) == (6e-5, 0.01, 160000)
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, decay.power, decay.end) == (1e-6, 1500, 1.0, 160000)
    resize = cfg.train_pipeline[2]
    assert (resize.scale, resize.ratio_range) == ((2560, 640), (0.5, 2.0))


@pytest.mark.parametrize(
    ("baseline", "name"),
    [
        ("per_pixel/upernet_r18_shapes_demo", "cac-upernet_r18_shapes_demo"),
        ("per_pixel/deeplabv3plus_r18_shapes_demo", "cac-deeplabv3plus_r18_shapes_demo"),
        ("segnext/segnext_mscan_tiny_shapes_demo", "cac-segnext_mscan_tiny_shapes_demo"),
        ("segnext/segnext_mscan_t_shapes_1500", "cac-segnext_mscan_t_shapes_1500"),
    ],
)
def test_shapes__differs_from_its_baseline_in_the_classifier_alone(baseline, name):
    plain, aware = (load_config(CONFIGS / f"{leaf}.py") for leaf in (baseline, f"cac/{name}"))
    head = aware.model.decode_head
    assert head.pop("host") == plain.model.decode_head
    assert head == dict(type="mmseg_m2f.ContextAwareHead", aux_align_corners=False, distill_size="labels")
    aware.model.decode_head = plain.model.decode_head
    assert aware.model == plain.model
    assert aware.optim_wrapper == plain.optim_wrapper
    assert aware.train_cfg == plain.train_cfg
    assert aware.train_dataloader == plain.train_dataloader
