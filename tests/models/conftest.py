"""A Mask2Former small enough to run in milliseconds."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_CLASSES = 5


@pytest.fixture
def model_config() -> ConfigDict:
    """`mask2former_tiny` with 5 classes, 64 points and an 8 channels wide ResNet-18."""
    cfg = Config.fromfile(CONFIGS / "_base_/models/mask2former_tiny.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.sampling.num_points = 64
    cfg.backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    return cfg


@pytest.fixture
def segmentor(model_config: ConfigDict) -> torch.nn.Module:
    return MODELS.build(model_config)


def make_sample(label_map: torch.Tensor, **metainfo: object) -> SegDataSample:
    """A sample with a label map H W."""
    return SegDataSample(gt_sem_seg=PixelData(data=label_map.unsqueeze(0)), metainfo=metainfo)


def make_batch(size: tuple[int, int] = (64, 96), batch: int = 2) -> tuple[torch.Tensor, list[SegDataSample]]:
    """Random images and label maps of 8×8 blocks."""
    blocks = torch.randint(NUM_CLASSES, (batch, size[0] // 8, size[1] // 8))
    label_maps = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    samples = [make_sample(x, img_path=f"image {i}", ori_shape=size) for i, x in enumerate(label_maps)]
    return torch.randn(batch, 3, *size), samples
