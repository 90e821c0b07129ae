"""Every leaf loads, builds, steps once and predicts; a backbone is swapped by one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.models.query_decoders import BoxDecoder
from mmseg_m2f.models.segmentors import MaskDetector

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("cac", "ecenet", "per_pixel")  # stepped in test_per_pixel.py
EVERY_LEAF = sorted((ROOT / "configs").glob("[!_]*/*.py"))
LEAVES = [path for path in EVERY_LEAF if path.parent.name not in ELSEWHERE]
BACKBONES = ["r18_from_scratch", "swin_t", "mscan_t", "mit_b2", "mmdet_r50", "convnext_t", "timm_efficientnetv2_s"]
BACKBONES += ["pyramid_vit_tiny_from_scratch", "adapter_vit_tiny_from_scratch"]


#: Backbones in names of leaves, the quickest first.
QUICKEST = ("tiny", "r18", "lite0", "r50", "mscan_t", "vit_s", "vit_b")


def family(path: Path) -> tuple[str, str, str]:
    """Folder, method and task of a leaf."""
    tasks = [task for task in ("instance", "panoptic", "detection") if task in path.stem]
    return path.parent.name, path.stem.split("_")[0], tasks[0] if tasks else "semantic"


def cost(path: Path) -> tuple[int, bool, str]:
    """Orders the leaves of a family by the time of a step."""
    backbone = next((number for number, name in enumerate(QUICKEST) if name in path.stem), len(QUICKEST))
    return backbone, not path.stem.endswith("_debug"), path.stem


def quickest_of_each_family(paths: list[Path]) -> set[Path]:
    return {min((other for other in paths if family(other) == family(path)), key=cost) for path in paths}


ONE_PER_FAMILY = quickest_of_each_family(LEAVES)


def without_downloads(cfg: Config) -> Config:
    """The same config with random initial weights."""
    cfg.model.backbone.pop("init_cfg", None)
    if "pretrained" in cfg.model.backbone:
        cfg.model.backbone.pretrained = False
    return cfg


def make_sample(model: torch.nn.Module) -> BaseDataElement:
    """Vertical stripes of the first classes, as the model's framework labels them."""
    num_classes = model.decode_head.num_classes
    stripes = torch.arange(64).mul(4).div(64, rounding_mode="floor").clamp(max=num_classes - 1).expand(64, -1)
    metainfo = dict(ori_shape=(64, 64), img_shape=(64, 64), batch_input_shape=(64, 64))
    if not isinstance(model, MaskDetector):
        return SegDataSample(gt_sem_seg=PixelData(data=stripes.unsqueeze(0).clone()), metainfo=metainfo)
    labels = stripes.unique()
    masks = BitmapMasks((stripes == labels[:, None, None]).numpy().astype(np.uint8), 64, 64)
    instances = InstanceData(labels=labels, masks=masks, bboxes=torch.zeros(len(labels), 4))
    return DetDataSample(gt_instances=instances, metainfo=metainfo)


def step_and_predict(cfg: Config) -> torch.nn.Module:
    """One optimizer step on one image, then a prediction."""
    cfg.model.data_preprocessor.update(batch_augments=None)
    decoder = cfg.model.decode_head.get("query_decoder") or {}
    if decoder.get("type") == "mmseg_m2f.AnchorMaskDecoder":
        decoder.num_queries = 40  # the published 300 are more than 64² pixels have cells
    model = MODELS.build(cfg.model)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = dict(inputs=[torch.randint(256, (3, 64, 64), dtype=torch.uint8)], data_samples=[make_sample(model)])
    model.data_preprocessor.size = None  # crops of 64 pixels keep their size
    model.data_preprocessor.size_divisor = model.data_preprocessor.pad_size_divisor = 32
    model.data_preprocessor.test_cfg = dict(size_divisor=32)
    head = getattr(model.decode_head, "query_decoder", model.decode_head)  # itself where it classifies pixels
    trained = {name: p for name, p in head.named_parameters() if p.requires_grad}
    before = {name: p.clone() for name, p in trained.items()}
    model.train().train_step(batch, optim_wrapper)
    assert any((p != before[name]).any() for name, p in trained.items())
    (predicted,) = model.eval().test_step(batch)
    if not isinstance(model, MaskDetector):
        assert predicted.pred_sem_seg.data.shape == (1, 64, 64)
    elif isinstance(model.decode_head.query_decoder, BoxDecoder) and not model.decode_head.query_decoder.mask_head:
        assert predicted.pred_instances.bboxes.shape[1:] == (4,)
    else:
        assert predicted.pred_instances.masks.shape[1:] == (64, 64)
    return model


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_leaf__passes_the_checks(path):
    assert len(path.read_text().splitlines()) <= 20
    check_config(load_config(path))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path in ONE_PER_FAMILY else pytest.mark.exhaustive) for path in LEAVES],
    ids=lambda path: path.stem,
)
def test_leaf__steps_and_predicts(path):
    cfg = load_config(path)
    model = step_and_predict(without_downloads(cfg))
    assert cfg.num_classes == model.decode_head.num_classes


@pytest.mark.parametrize("path", EVERY_LEAF, ids=lambda path: path.stem)
def test_leaf__averages_views_by_what_its_segmentor_predicts(path):
    cfg = load_config(path)
    logits = cfg.model.type.endswith("EncoderDecoder")  # averaged as probabilities; scores of masks as they are
    assert cfg.tta_model.type == ("mmseg.SegTTAModel" if logits else "mmseg_m2f.SemanticTTA")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone__swapped_by_one_line(backbone):
    leaf = ROOT / "configs/mask2former/mask2former_r18_shapes_debug.py"
    cfg = load_config(leaf, dict(backbone=backbone))
    check_config(cfg)
    model = step_and_predict(without_downloads(cfg))
    assert type(model.backbone).__name__ == cfg.model.backbone.type.rpartition(".")[2]
    assert model.decode_head.num_classes == cfg.num_classes


@pytest.mark.parametrize(("backbone", "width", "depth"), [("dinov2_vit_g", 1536, 40), ("dinov3_vit_l", 1024, 24)])
def test_backbone__large_vision_transformers_under_eomt(backbone, width, depth):
    leaf = ROOT / "configs/eomt/eomt_dinov2_vit_l_coco-panoptic-1280_12e.py"
    cfg = load_config(leaf, dict(backbone=backbone))
    check_config(cfg)
    assert cfg.model.backbone.img_size == (1280, 1280)
    with torch.device("meta"):  # no weights, which would fill the memory
        vit = MODELS.build(without_downloads(cfg).model.backbone).vit
    assert (vit.embed_dim, len(vit.blocks), vit.patch_embed.grid_size) == (width, depth, (80, 80))
    assert vit.patch_embed.patch_size == (16, 16)
    assert vit.num_prefix_tokens == 5


def parameters(name: str) -> int:
    cfg = without_downloads(Config.fromfile(ROOT / f"configs/{name}.py"))
    return sum(p.numel() for p in MODELS.build(cfg.model).parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 44.04 M with the 133 classes of COCO; ADE20K's 150 add 17 rows of 257 numbers to the class layer.
        ("mask2former/mask2former_r50_ade20k-512_160k", 44.04e6 + 17 * 257),
        ("mask2former/mask2former_r50_coco-panoptic-1024_50e", 44.04e6),
        ("maskformer/maskformer_r50_ade20k-512_160k", 41.3e6),
        ("maskformer/maskformer_r50_coco-panoptic-800_300e", 45.07e6),
        ("detr/detr_r50_coco-detection-800_500e", 41.58e6),
    ],
)
def test_leaf__published_size(name, expected):
    assert parameters(name) == pytest.approx(expected, rel=1e-3)
