import torch
from mmcv.ops.sync_bn import SyncBatchNormFunction
from torch import nn


def test_sync_batch_norm__equals_torchs_on_one_process():
    layer, reference = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.normal_(layer.weight)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    arguments = (layer.running_mean, layer.running_var, layer.weight, layer.bias, 0.1, layer.eps, None, 1, "default")
    found, expected = SyncBatchNormFunction.apply(x, *arguments), reference(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.running_mean, reference.running_mean)
    torch.testing.assert_close(layer.running_var, reference.running_var)
    upstream = torch.randn_like(expected)
    found_grads = torch.autograd.grad(found, (x, layer.weight, layer.bias), upstream)
    expected_grads = torch.autograd.grad(expected, (x, reference.weight, reference.bias), upstream)
    for actual, wanted in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)
