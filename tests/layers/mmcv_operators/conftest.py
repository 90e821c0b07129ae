"""mmcv's functions call the operators of this package, also where a compiled mmcv is installed."""

import importlib

import pytest

from mmseg_m2f import compat
from mmseg_m2f.layers.mmcv_operators import deformable_convolution, regions, suppression

MODULES = (
    "bbox", "carafe", "deform_conv", "deform_roi_pool", "focal_loss", "masked_conv", "modulated_deform_conv",
    "multi_scale_deform_attn", "nms", "psa_mask", "roi_align", "roi_pool", "sync_bn",
)  # fmt: skip


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """Take the plain PyTorch path, also where torchvision's operators load."""
    for name in MODULES:
        module = importlib.import_module(f"mmcv.ops.{name}")
        monkeypatch.setattr(module, "ext_module", compat._StandInExtension("mmcv._ext"))
    for module in (deformable_convolution, regions, suppression):
        monkeypatch.setattr(module, "has_torchvision_operators", lambda: False)
