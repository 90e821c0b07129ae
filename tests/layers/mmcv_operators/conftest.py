"""mmcv's functions call the operators of this package, also where a compiled mmcv is installed."""

import importlib

import pytest
import torch

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


@pytest.fixture
def with_torchvision(monkeypatch):
    """Gives a function after whose call torchvision's operators are taken, and what it returns lists their calls.

    For an environment where they load, which needs a torchvision built for the same torch.
    """
    if not compat.has_torchvision_operators():
        pytest.skip("torchvision's compiled operators do not load")

    def take(module, name):
        calls = []
        operators = torch.ops.torchvision
        original = getattr(operators, name)
        monkeypatch.setattr(module, "has_torchvision_operators", lambda: True)
        monkeypatch.setattr(operators, name, lambda *args: calls.append(name) or original(*args))
        return calls

    return take
