import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_m2f.layers import matrix_products
from mmseg_m2f.layers.matrix_products import (
    Linear,
    PointwiseConv,
    batched_products,
    linear,
    pointwise_conv,
    use_fast_products,
)
from tests.operator_counts import OperatorCount

needs_one_dnn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")), reason="no oneDNN"
)


@pytest.fixture
def slow_products(monkeypatch):
    """As on a processor where oneDNN is faster."""
    monkeypatch.setattr(matrix_products, "products_are_slow", lambda: True)
    monkeypatch.delenv("MMSEG_M2F_KERNELS", raising=False)


def assert_same(ours, theirs, *inputs):
    values = [f(*inputs) for f in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(values[0])
    needed = [x for x in inputs if x is not None and x.requires_grad]
    gradients = [torch.autograd.grad(value, needed, upstream) for value in values]
    for got, expected in zip(*gradients, strict=True):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    return values[0]


@needs_one_dnn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), [((2, 7, 24), 40), ((33, 40), 24), ((1, 2, 3, 8), 8), ((1, 5), 1)])
def test_linear__equals_torch(slow_products, shape, outputs, with_bias):
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(outputs, shape[-1], requires_grad=True)
    bias = torch.randn(outputs, requires_grad=True) if with_bias else None
    result = assert_same(linear, F.linear, x, weight, bias)
    assert type(result.grad_fn).__name__ == "_LinearBackward"


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_linear__as_one_node_where_torchs_products_are_fast(monkeypatch, dtype, with_bias):
    monkeypatch.setattr(matrix_products, "products_are_slow", lambda: False)
    x = torch.randn(5, 2, 7, dtype=dtype).transpose(0, 1).requires_grad_()
    weight = torch.randn(4, 7, dtype=dtype, requires_grad=True)
    bias = torch.randn(4, dtype=dtype, requires_grad=True) if with_bias else None
    needed = [tensor for tensor in (x, weight, bias) if tensor is not None]
    values = [f(x, weight, bias) for f in (linear, F.linear)]
    assert type(values[0].grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(*values)
    upstream = torch.randn_like(values[0])
    gradients = [torch.autograd.grad(value, needed, upstream) for value in values]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)
    with torch.no_grad():
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


def test_linear__operators(monkeypatch):
    monkeypatch.setattr(matrix_products, "products_are_slow", lambda: False)
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((2, 5, 7), (4, 7), (4,)))
    used = []
    for product in (linear, F.linear):
        with OperatorCount() as counted:
            product(x, weight, bias).sum().backward()
        used.append(counted.operators)
    assert used[0] <= used[1] - 4


@needs_one_dnn
@pytest.mark.parametrize(("rows", "columns"), [(7, 33), (1, 1), (0, 4), (4, 0)])
def test_batched_products__equal_torch(slow_products, rows, columns):
    a, b = torch.randn(3, rows, 24), torch.randn(3, 24, columns).mT
    torch.testing.assert_close(batched_products(a, b), a @ b.mT, rtol=1e-5, atol=1e-5)


@needs_one_dnn
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("size", [(5, 3), (1, 1), (16, 16)])
def test_pointwise_conv__equals_torch(slow_products, size, with_bias):
    x = torch.randn(3, 12, *size, requires_grad=True)
    weight = torch.randn(20, 12, 1, 1, requires_grad=True)
    bias = torch.randn(20, requires_grad=True) if with_bias else None
    result = assert_same(pointwise_conv, F.conv2d, x, weight, bias)
    assert type(result.grad_fn).__name__ == "_PointwiseConvBackward"
    assert_same(pointwise_conv, F.conv2d, x.transpose(2, 3), weight, bias)


@needs_one_dnn
def test_linear__only_gradients_that_are_asked_for(slow_products):
    x, weight = torch.randn(4, 8), torch.randn(6, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(linear(x, weight).sum(), weight)
    torch.testing.assert_close(gradient, x.sum(0).expand(6, -1))


@pytest.mark.parametrize("case", ["double", "autocast", "empty", "vector", "off", "counted", "traced"])
def test_linear__torchs_own_way_elsewhere(slow_products, monkeypatch, case):
    def fail(*_: object) -> None:
        raise AssertionError("took the fast way")

    monkeypatch.setattr(matrix_products, "_product", fail)
    if case not in ("double", "off", "counted"):
        monkeypatch.setattr(matrix_products._Linear, "forward", fail)
    layer, x = Linear(8, 4), torch.randn(3, 8)
    if case == "double":
        assert layer.double()(x.double()).dtype == torch.float64
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
    elif case == "empty":
        assert layer(x[:0]).shape == (0, 4)
    elif case == "vector":
        assert layer(x[0]).shape == (4,)
    elif case == "off":
        monkeypatch.setenv("MMSEG_M2F_KERNELS", "off")
        layer(x)
    elif case == "counted":
        with FlopCounterMode(display=False) as counter:
            layer(x)
        assert counter.get_total_flops() == 2 * 3 * 8 * 4
    else:
        monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
        layer(x)


def test_use_fast_products__changes_linear_layers_and_pointwise_convolutions_alone(slow_products):
    attention = nn.MultiheadAttention(8, 2)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1, stride=2))
    grouped = nn.Conv2d(8, 8, 1, groups=2)
    model = nn.ModuleList([plain, attention, grouped])
    use_fast_products(model)
    assert [type(module) for module in plain] == [Linear, PointwiseConv, nn.Conv2d, nn.Conv2d]
    assert type(grouped) is nn.Conv2d
    attention(*[torch.randn(3, 1, 8)] * 3)
    for again in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):  # our own bytes
        assert torch.equal(again[0](torch.ones(2, 8)), plain[0](torch.ones(2, 8)))


def test_use_fast_products__nothing_where_torch_is_fast(monkeypatch):
    monkeypatch.setattr(matrix_products, "products_are_slow", lambda: False)
    layer = nn.Conv2d(2, 2, 1)
    use_fast_products(layer)
    assert type(layer) is nn.Conv2d
