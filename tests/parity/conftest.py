"""Our model and mmseg's with the same random weights."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from tests.random_weights import shake

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_CLASSES = 150


def upstream_config(name: str) -> Config:
    """A config shipped inside the installed mmseg package."""
    path = Path(mmseg.__file__).parent / ".mim" / "configs" / name.split("_")[0] / name
    return Config.fromfile(path, import_custom_modules=False)


def build_mmseg(depth: int = 50) -> torch.nn.Module:
    """mmseg's Mask2Former, batch norm frozen, weights and statistics and sampling offsets random."""
    cfg = upstream_config("mask2former_r50_8xb2-160k_ade20k-512x512.py").model
    cfg.backbone.update(depth=depth, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True, init_cfg=None)
    cfg.decode_head.in_channels = [256, 512, 1024, 2048] if depth >= 50 else [64, 128, 256, 512]
    for part in (cfg, cfg.backbone, cfg.decode_head):
        part["type"] = f"mmseg.{part['type']}"
    cfg.data_preprocessor.type = "mmseg.SegDataPreProcessor"
    model = MODELS.build(cfg)
    model.decode_head.init_weights()
    shake(model)
    return model


def build_ours(depth: int = 50, *, reference: str | None = "mmdet", **points: float) -> torch.nn.Module:
    """Our Mask2Former of the same size."""
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask2former.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.update(reference=reference)
    cfg.decode_head.criterion.sampling.update(points)
    cfg.backbone = dict(type="mmseg.ResNet", depth=depth, norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
    return MODELS.build(cfg)


def make_batch(size: int, num_objects: int, *, void: bool = False) -> tuple[torch.Tensor, list[SegDataSample]]:
    """Two random images with `num_objects` classes each, in blocks."""
    images = torch.randn(2, 3, size, size)
    samples = []
    for image in range(2):
        classes = torch.randperm(NUM_CLASSES)[:num_objects]
        blocks = classes[torch.randint(num_objects, (16, 16))]
        blocks.view(-1)[:num_objects] = classes
        if void:
            blocks[8:10] = 255
        label_map = blocks.repeat_interleave(size // 16, 0).repeat_interleave(size // 16, 1)
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=label_map.unsqueeze(0)),
            metainfo=dict(img_path=f"image {image}", img_shape=(size, size), ori_shape=(size, size)),
        )
        samples.append(sample)
    return images, samples


def aligned_gradient(model: torch.nn.Module) -> torch.Tensor:
    """The gradient of all trained parameters, in an order that upstream models and ours share."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for old, new in (("query_decoder.", ""), ("panoptic_head.", "decode_head.")):
        parameters = {name.replace(old, new): p for name, p in parameters.items()}
    return torch.cat([p.grad.flatten() for _, p in sorted(parameters.items())])


@pytest.fixture(scope="module")
def twins() -> tuple[torch.nn.Module, torch.nn.Module]:
    """mmseg's R50 model and ours, with equal weights."""
    torch.manual_seed(0)
    theirs = build_mmseg()
    ours = build_ours()
    ours.load_state_dict(theirs.state_dict())
    return theirs.train(), ours.train()
