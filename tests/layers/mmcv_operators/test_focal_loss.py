import pytest
import torch
import torchvision
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss
from torch.nn import functional as F


def random_inputs(dtype=torch.float64):
    logits = (torch.randn(7, 4, dtype=dtype) * 3).requires_grad_()
    return logits, torch.tensor([0, 1, 2, 3, 4, 4, 1]), torch.rand(4, dtype=dtype) + 0.5


def sigmoid_reference(logits, target, gamma, alpha, weight):
    wanted = F.one_hot(target, 5)[:, :4].to(logits.dtype)
    p = logits.sigmoid()
    p_true = p * wanted + (1 - p) * (1 - wanted)
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    loss = balance * (1 - p_true) ** gamma * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return loss if weight is None else loss * torch.cat([weight, weight.new_ones(1)])[target][:, None]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_focal_loss__equals_its_definition_with_gradient(reduction, gamma, alpha, weighted):
    logits, target, weight = random_inputs()
    weight = weight if weighted else None
    expected = sigmoid_reference(logits, target, gamma, alpha, weight)
    expected = {"none": expected, "mean": expected.sum() / 7, "sum": expected.sum()}[reduction]
    found = sigmoid_focal_loss(logits, target, gamma, alpha, weight, reduction)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits, upstream), torch.autograd.grad(expected, logits, upstream)
    )


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6)])
def test_sigmoid_focal_loss__equals_torchvisions_with_gradient(gamma, alpha):
    logits, target, _ = random_inputs()
    wanted = F.one_hot(target, 5)[:, :4].to(logits.dtype)
    expected = torchvision.ops.sigmoid_focal_loss(logits, wanted, alpha, gamma)
    found = sigmoid_focal_loss(logits, target, gamma, alpha, None, "none")
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits, upstream), torch.autograd.grad(expected, logits, upstream)
    )


@pytest.mark.parametrize("weighted", [True, False])
def test_softmax_focal_loss__equals_its_definition_with_gradient(weighted):
    logits, target, weight = random_inputs()
    target = target.clamp(max=3)
    log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    expected = -0.25 * (1 - log_p.exp()) ** 2 * log_p * (weight[target] if weighted else 1)
    found = softmax_focal_loss(logits, target, 2.0, 0.25, weight if weighted else None, "sum")
    torch.testing.assert_close(found, expected.sum())
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected.sum(), logits))


def test_sigmoid_focal_loss__gradient_check_and_extreme_logits():
    logits, target, _ = random_inputs()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, None, "sum"), logits)
    extreme = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = sigmoid_focal_loss(extreme, torch.tensor([1]), 2.0, 0.25, None, "sum")
    assert loss.detach().item() == pytest.approx(0.75 * 300 + 0.25 * 300)
    assert torch.isfinite(torch.autograd.grad(loss, extreme)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sigmoid_focal_loss__computes_half_precision_in_single(dtype):
    logits, target, _ = random_inputs()
    low = logits.detach().to(dtype)
    found = sigmoid_focal_loss(low, target, 2.0, 0.25, None, "none")
    assert torch.equal(found, sigmoid_focal_loss(low.float(), target, 2.0, 0.25, None, "none").to(dtype))
