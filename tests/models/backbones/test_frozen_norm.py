import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmseg_m2f.models.backbones import FrozenBN


def twins(dtype: torch.dtype = torch.float64) -> tuple[FrozenBN, nn.BatchNorm2d]:
    usual = nn.BatchNorm2d(5).to(dtype).eval()
    for tensor in (usual.weight, usual.bias, usual.running_mean):
        tensor.data.normal_()
    usual.running_var.uniform_(0.5, 2)
    frozen = FrozenBN(5).to(dtype)
    frozen.load_state_dict(usual.state_dict())
    return frozen.requires_grad_(False), usual


def test_frozen_bn__value_and_gradient_are_those_of_batch_norm_in_evaluation():
    frozen, usual = twins()
    frozen.train()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64, requires_grad=True)
    values = [norm(x) for norm in (frozen, usual)]
    torch.testing.assert_close(*values)
    upstream = torch.randn_like(x)
    torch.testing.assert_close(*(torch.autograd.grad(value, x, upstream)[0] for value in values))
    assert frozen.num_batches_tracked == 0


def test_frozen_bn__keeps_no_map():
    frozen, _ = twins()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        frozen(torch.randn(2, 5, 8, 8, dtype=torch.float64, requires_grad=True))
    assert kept == [5]


def test_frozen_bn__half_precision():
    frozen, usual = twins(torch.float32)
    x = torch.randn(2, 5, 4, 3).bfloat16().requires_grad_()
    values = [norm(x) for norm in (frozen, usual)]
    assert values[0].dtype == torch.bfloat16
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("library", ["mmseg", "mmdet"])
def test_frozen_bn__in_a_backbone_of_another_library(library):
    cfg = dict(type=f"{library}.ResNet", depth=18, norm_cfg=dict(type="mmseg_m2f.FrozenBN", requires_grad=False))
    backbone = MODELS.build(cfg | dict(norm_eval=True))
    backbone.train()
    norms = [module for module in backbone.modules() if isinstance(module, FrozenBN)]
    assert len(norms) == 20
    backbone(torch.randn(1, 3, 64, 64))[-1].sum().backward()
    assert backbone.conv1.weight.grad.any()
    assert backbone.bn1.weight.grad is None
