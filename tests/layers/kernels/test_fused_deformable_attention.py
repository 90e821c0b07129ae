"""The compiled kernel against the definition in plain PyTorch: values and gradients."""

import shutil

import pytest
import torch

from mmseg_m2f.layers import deformable_attention as layer
from mmseg_m2f.layers.deformable_attention import deformable_attention_in_pytorch
from mmseg_m2f.layers.kernels import compilation
from mmseg_m2f.layers.kernels import fused_deformable_attention as kernels

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler"
)


def random_inputs(
    sizes: list[tuple[int, int]],
    *,
    heads: int = 4,
    channels: int = 8,
    points: int = 4,
    queries: int = 9,
    dtype: torch.dtype = torch.float64,
    spread: float = 3.0,
) -> tuple[torch.Tensor, ...]:
    """Value, reference points, offsets, logits; places lie inside and far outside the maps."""
    tokens, levels = sum(h * w for h, w in sizes), len(sizes)
    return (
        torch.randn(2, tokens, heads, channels, dtype=dtype, requires_grad=True),
        torch.rand(queries, 2, dtype=dtype),
        (torch.randn(2, queries, heads, levels, points, 2, dtype=dtype) * spread).requires_grad_(),
        torch.randn(2, queries, heads, levels * points, dtype=dtype, requires_grad=True),
    )


def value_and_gradients(function, inputs, sizes) -> list[torch.Tensor]:
    value, reference, offsets, logits = inputs
    output = function(value, sizes, reference, offsets, logits)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weights).sum(), (value, offsets, logits))]


def compiled(value, sizes, *rest):
    assert kernels.is_available(value, num_readings=rest[-1].shape[-1])
    return kernels.deformable_attention(value, [side for size in sizes for side in size], *rest)


@needs_compiler
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([(3, 5), (7, 2), (11, 13)], {}),
        ([(3, 5), (6, 9), (11, 17)], dict(channels=32, heads=8, queries=40)),  # the size with a loop of its own
        ([(1, 1)], dict(points=1, heads=1)),
        ([(1, 9), (8, 1)], dict(channels=5)),
        ([(4, 4), (5, 5)], dict(spread=50.0)),
        ([(4, 4), (5, 5)], dict(spread=0.0)),  # between cells and on their edges
        ([(4, 4)], dict(queries=0)),
    ],
)
def test_kernel__equals_the_definition(sizes, options):
    inputs = random_inputs(sizes, **options)
    expected = value_and_gradients(deformable_attention_in_pytorch, inputs, sizes)
    for actual, reference in zip(value_and_gradients(compiled, inputs, sizes), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-10, atol=1e-10)


@needs_compiler
def test_kernel__float32_and_more_threads():
    sizes = [(12, 16), (24, 32)]
    inputs = random_inputs(sizes, dtype=torch.float32, queries=200, channels=32)
    exact = [x.double().detach().requires_grad_(x.requires_grad) for x in inputs]
    expected = value_and_gradients(deformable_attention_in_pytorch, exact, sizes)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        actual = value_and_gradients(compiled, inputs, sizes)
    finally:
        torch.set_num_threads(threads)
    for found, reference in zip(actual, expected, strict=True):
        assert ((found - reference).norm() / reference.norm()).item() < 1e-6


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernel__half_precision_is_computed_in_float32(dtype):
    sizes = [(6, 7), (12, 14)]
    inputs = [x.detach().requires_grad_(x.requires_grad) for x in random_inputs(sizes, dtype=dtype)]
    exact = [x.double().detach().requires_grad_(x.requires_grad) for x in inputs]
    actual = value_and_gradients(compiled, inputs, sizes)
    expected = value_and_gradients(deformable_attention_in_pytorch, exact, sizes)
    assert all(x.dtype == dtype for x in actual)
    bound = 2 * torch.finfo(dtype).eps  # rounding of the output, and of what is multiplied with it
    for found, reference in zip(actual, expected, strict=True):
        assert ((found.double() - reference).norm() / reference.norm()).item() < bound


@needs_compiler
def test_kernel__places_that_are_no_numbers_read_nothing():
    sizes = [(4, 4)]
    inputs = random_inputs(sizes)
    inputs[2].data[0, 0] = float("nan")
    inputs[2].data[0, 1] = float("inf")
    inputs[2].data[0, 2] = -1e300
    output = compiled(inputs[0], sizes, *inputs[1:])
    assert (output[0, :3] == 0).all()
    assert output[1].isfinite().all()


@needs_compiler
def test_kernel__is_an_operator_of_torch():
    sizes = [(3, 4), (6, 8)]
    value, *rest = random_inputs(sizes)
    torch.library.opcheck(kernels.deformable_attention, (value, [3, 4, 6, 8], *rest))


def test_deformable_attention__without_a_compiler_says_so_once_and_stays_the_same(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    compilation.load_library.cache_clear()
    sizes = [(3, 4), (6, 8)]
    inputs = random_inputs(sizes)
    try:
        actual = value_and_gradients(layer.deformable_attention, inputs, sizes)
        value_and_gradients(layer.deformable_attention, inputs, sizes)
    finally:
        compilation.load_library.cache_clear()
    expected = value_and_gradients(deformable_attention_in_pytorch, inputs, sizes)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    (message,) = [record.message for record in caplog.records if "was not compiled" in record.message]
    assert message.startswith("fused_deformable_attention.cpp was not compiled: [Errno 2] No such file or directory")


@needs_compiler
def test_load_library__a_source_with_an_error(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "broken.cpp"
    source.write_text("int f( { }")
    assert compilation.load_library(source) is None
    assert "broken.cpp was not compiled" in caplog.text
    assert list((tmp_path / "cache").rglob("*.so")) == []


@needs_compiler
def test_load_library__is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    assert compilation.load_library(source).answer() == 42
    (library,) = (tmp_path / "cache").rglob("*.so")
    written = library.stat().st_mtime_ns
    compilation.load_library.cache_clear()
    assert compilation.load_library(source).answer() == 42
    assert library.stat().st_mtime_ns == written
