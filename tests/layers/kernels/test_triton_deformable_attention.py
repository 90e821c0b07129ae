"""Run on a GPU where there is one, else in Triton's interpreter: slow, hence the small tensors.

`conftest.py` sets TRITON_INTERPRET, which Triton reads while it is imported.
"""

import importlib.util
import shutil
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mmseg_m2f.compat import is_installed
from mmseg_m2f.layers.deformable_attention import deformable_attention_in_pytorch
from mmseg_m2f.layers.kernels import fused_deformable_attention as cpu_kernel
from mmseg_m2f.layers.kernels import triton_deformable_attention as kernel

needs_triton = pytest.mark.skipif(not is_installed("triton"), reason="Triton is not installed: pip install triton")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Case(NamedTuple):
    shapes: list[int]
    queries: int
    heads: int
    channels: int
    points: int
    images: int = 1
    spread: float = 2.0  # of the offsets, in cells


TINY = Case([3, 4, 2, 2], queries=5, heads=2, channels=4, points=2)
CASES = {
    "mask2former": Case([5, 7, 3, 4, 1, 1], queries=17, heads=2, channels=32, points=4),  # two blocks
    "one_point": Case([3, 2], queries=6, heads=3, channels=8, points=1, images=2),
    "no_powers_of_two": Case([7, 5, 3, 3], queries=9, heads=3, channels=6, points=3),
    "one_channel": Case([4, 3], queries=5, heads=1, channels=1, points=2),
    "more_readings_than_channels": Case([4, 6, 2, 3, 1, 2], queries=5, heads=1, channels=2, points=6),
    "one_cell": Case([1, 1], queries=7, heads=2, channels=4, points=4, spread=0.7),
    "far_outside": Case([6, 5, 3, 3], queries=8, heads=1, channels=4, points=4, spread=50.0),
}


def random_inputs(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Value, reference points, offsets, logits, gradient of the output."""
    levels = len(case.shapes) // 2
    tokens = sum(height * width for height, width in sizes_of(case.shapes))
    per_head = (case.images, case.queries, case.heads)
    return [
        torch.randn(case.images, tokens, case.heads, case.channels).to(DEVICE, dtype),
        torch.rand(case.queries, 2).to(DEVICE),
        (torch.randn(*per_head, levels, case.points, 2) * case.spread).to(DEVICE, dtype),
        (torch.randn(*per_head, levels * case.points) * 2).to(DEVICE, dtype),
        torch.randn(case.images, case.queries, case.heads * case.channels).to(DEVICE, dtype),
    ]


def sizes_of(shapes: list[int]) -> list[tuple[int, int]]:
    return list(zip(shapes[::2], shapes[1::2], strict=True))


def run(shapes: list[int], inputs: list[Tensor]) -> list[Tensor]:
    """Output, then the gradients of value, offsets and logits."""
    value, *others, grad = inputs
    return [
        kernel.forward(value, shapes, *others),
        *kernel.backward(value, shapes, *others, grad),
    ]


def run_reference(shapes: list[int], inputs: list[Tensor]) -> list[Tensor]:
    """The same in plain PyTorch and float64."""
    value, reference_points, offsets, logits, grad = (x.double() for x in inputs)
    leaves = [x.requires_grad_() for x in (value, offsets, logits)]
    output = deformable_attention_in_pytorch(value, sizes_of(shapes), reference_points, offsets, logits)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]


def run_on_cpu(shapes: list[int], inputs: list[Tensor]) -> list[Tensor]:
    value, *others, grad = (x.cpu() for x in inputs)
    return [
        cpu_kernel.deformable_attention(value, shapes, *others),
        *cpu_kernel.deformable_attention_backward(value, shapes, *others, grad),
    ]


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_triton_deformable_attention__equals_pytorch_in_float64(name):
    case = CASES[name]
    inputs = random_inputs(case)
    for actual, expected in zip(run(case.shapes, inputs), run_reference(case.shapes, inputs), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_deformable_attention__half_precision_is_rounded_once(dtype):
    rounding = torch.finfo(dtype).eps / 2
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        rounding *= 2  # the interpreter cuts off where a GPU rounds to the nearest
    inputs = random_inputs(TINY, dtype)
    for actual, expected in zip(run(TINY.shapes, inputs), run_reference(TINY.shapes, inputs), strict=True):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=rounding, atol=1e-5)


@needs_triton
@needs_compiler
def test_triton_deformable_attention__equals_the_kernel_of_the_cpu():
    inputs = random_inputs(TINY)
    for actual, expected in zip(run(TINY.shapes, inputs), run_on_cpu(TINY.shapes, inputs), strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-5, atol=2e-6)


@needs_triton
@needs_compiler
def test_triton_deformable_attention__edges_are_those_of_the_kernel_of_the_cpu():
    # Places on the centres of cells, and of the cells that would lie one and two steps outside.
    shapes, places = [3, 4], torch.cartesian_prod(torch.arange(-2.0, 6), torch.arange(-2.0, 5))
    inputs = random_inputs(Case(shapes, queries=len(places), heads=1, channels=2, points=1))
    inputs[1].zero_()
    inputs[2] = (places + 0.5).view(inputs[2].shape).to(DEVICE)
    for actual, expected in zip(run(shapes, inputs), run_on_cpu(shapes, inputs), strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=1e-6)


@needs_triton
def test_triton_deformable_attention__reads_between_cells():
    # One row of two cells, 10 and 20; a place a quarter of a cell right of the first centre, half a cell below it.
    value = torch.tensor([10.0, 20.0], device=DEVICE).view(1, 2, 1, 1)
    reference_points = torch.tensor([[0.25, 0.5]], device=DEVICE)
    offsets = torch.tensor([0.25, 0.5], device=DEVICE).view(1, 1, 1, 1, 1, 2)
    logits = torch.zeros(1, 1, 1, 1, device=DEVICE)
    grad = torch.ones(1, 1, 1, device=DEVICE)
    output, *grads = run([1, 2], [value, reference_points, offsets, logits, grad])
    assert output.item() == 0.5 * (0.75 * 10 + 0.25 * 20)
    assert [g.flatten().tolist() for g in grads] == [[0.375, 0.125], [0.5 * (20 - 10), -(0.75 * 10 + 0.25 * 20)], [0]]


@needs_triton
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_triton_deformable_attention__offsets_that_are_no_places_read_zero(number):
    inputs = random_inputs(TINY)
    wrong, outside = inputs[2].clone(), inputs[2].clone()
    wrong[:, ::2, :, 0, 0, 0], outside[:, ::2, :, 0, 0, 0] = number, 100.0
    results = [run(TINY.shapes, [*inputs[:2], offsets, *inputs[3:]]) for offsets in (wrong, outside)]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@needs_triton
def test_triton_deformable_attention__large_logits_do_not_overflow():
    inputs = random_inputs(TINY)
    inputs[3] = inputs[3] + 1e4
    for actual, expected in zip(run(TINY.shapes, inputs), run_reference(TINY.shapes, inputs), strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@needs_triton
def test_triton_deformable_attention__strides_change_nothing():
    inputs = random_inputs(TINY)
    spaced = [torch.stack([x, -x], -1)[..., 0] for x in inputs]
    assert not any(x.is_contiguous() for x in spaced)
    for actual, expected in zip(run(TINY.shapes, spaced), run(TINY.shapes, inputs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@needs_triton
def test_triton_deformable_attention__no_queries():
    inputs = random_inputs(TINY._replace(queries=0))
    output, grad_value, grad_offsets, grad_logits = run(TINY.shapes, inputs)
    assert output.shape == (1, 0, 8)
    assert grad_offsets.shape == (1, 0, 2, 2, 2, 2)
    assert grad_logits.shape == (1, 0, 2, 4)
    assert torch.equal(grad_value, torch.zeros_like(inputs[0]))


@needs_triton
def test_triton_deformable_attention__refuses_float64():
    with pytest.raises(TypeError, match=r"expected float32, float16 or bfloat16, got torch\.float64"):
        run(TINY.shapes, random_inputs(TINY, torch.float64))


@needs_triton
def test_triton_deformable_attention__refuses_what_32_bits_cannot_count():
    value = torch.empty(1, 2**27, 2, 8, device="meta")
    others = [x.to("meta") for x in random_inputs(TINY)[1:4]]
    with pytest.raises(ValueError, match=f"expected fewer than {2**31} values per image, got {2**31}"):
        kernel.forward(value, [2**13, 2**14], *others)


def test_triton_deformable_attention__is_no_more_than_absent_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    spec = importlib.util.spec_from_file_location("without_triton", kernel.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    value, *others, _ = random_inputs(TINY)
    assert module.triton is None
    with pytest.raises(AssertionError, match="without asking is_available"):
        module.forward(value, TINY.shapes, *others)
