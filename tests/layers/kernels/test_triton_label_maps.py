"""Run on a GPU where there is one, else in Triton's interpreter: slow, hence the small tensors.

`conftest.py` sets TRITON_INTERPRET, which Triton reads while it is imported.
"""

import importlib.util
import sys

import pytest
import torch
from torch import Tensor

from mmseg_m2f.compat import is_installed
from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.layers.kernels import triton_label_maps as kernel

needs_triton = pytest.mark.skipif(not is_installed("triton"), reason="Triton is not installed: pip install triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

RESIZINGS = {
    "nothing": Resizing((6, 7), (6, 7), (6, 7)),
    "once": Resizing((24, 28), (24, 28), (24, 28)),
    "crop": Resizing((24, 28), (21, 25), (21, 25)),
    "smaller": Resizing((24, 28), (21, 25), (10, 11)),
    "larger": Resizing((25, 29), (23, 25), (37, 41)),
}
#: Images, queries, classes.
COUNTS = {
    "usual": (2, 20, 7),
    "one query": (1, 1, 3),
    "one class": (2, 5, 1),
    "powers of two": (1, 16, 64),
    "many classes": (1, 9, 600),
    "many queries": (1, 300, 5),
}


def predicted(images: int, queries: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Class probabilities B Q K and mask logits B Q 6 7."""
    class_probs = (torch.randn(images, queries, classes + 1) * 4).softmax(-1)[..., :-1]
    return class_probs.to(DEVICE), (torch.randn(images, queries, 6, 7) * 6).to(DEVICE, dtype)


def scores_of(class_probs: Tensor, mask_logits: Tensor, resizing: Resizing, *, resize_scores: bool) -> Tensor:
    """By definition, in float64."""
    canvas = resize_maps(mask_logits.double(), resizing.canvas)[..., : resizing.crop[0], : resizing.crop[1]]
    probs = canvas.sigmoid() if resize_scores else resize_maps(canvas, resizing.size).sigmoid()
    return resize_maps(torch.einsum("bqk,bqhw->bkhw", class_probs.double(), probs), resizing.size)


def assert_best(labels: Tensor, scores: Tensor, tolerance: float = 1e-5) -> None:
    """Every label has the highest score up to rounding, and nearly all are the very best."""
    best = scores.max(1)
    assert (best.values - scores.gather(1, labels.unsqueeze(1)).squeeze(1)).max() <= tolerance
    assert (labels == best.indices).float().mean() > 0.99


@needs_triton
@pytest.mark.parametrize("resize_scores", [False, True])
@pytest.mark.parametrize("resizing", RESIZINGS.values(), ids=list(RESIZINGS))
def test_triton_label_maps__best_class_at_every_size(resizing, resize_scores):
    inputs = predicted(*COUNTS["usual"])
    labels = kernel.label_maps(*inputs, resizing, resize_scores=resize_scores)
    assert labels.dtype == torch.long
    assert len(labels.unique()) > 2
    assert_best(labels, scores_of(*inputs, resizing, resize_scores=resize_scores))


@needs_triton
@pytest.mark.parametrize("name", COUNTS)
def test_triton_label_maps__best_of_any_number_of_classes_and_queries(name):
    inputs = predicted(*COUNTS[name])
    labels = kernel.label_maps(*inputs, RESIZINGS["crop"])
    assert_best(labels, scores_of(*inputs, RESIZINGS["crop"], resize_scores=False))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_label_maps__half_precision_is_computed_in_float32(dtype):
    inputs = predicted(*COUNTS["usual"], dtype)
    labels = kernel.label_maps(*inputs, RESIZINGS["crop"])
    assert_best(labels, scores_of(*inputs, RESIZINGS["crop"], resize_scores=False))


@needs_triton
def test_triton_label_maps__strides_change_nothing():
    class_probs, mask_logits = predicted(*COUNTS["usual"])
    spaced = mask_logits.transpose(2, 3).contiguous().transpose(2, 3)
    assert not spaced.is_contiguous()
    found = [kernel.label_maps(class_probs, x, RESIZINGS["once"]) for x in (mask_logits, spaced)]
    assert torch.equal(*found)


@needs_triton
@pytest.mark.parametrize("level", [100.0, 0.0, -3.0, -200.0])
def test_triton_label_maps__first_of_equal_classes(level):
    mask_logits = torch.full((1, 3, 6, 7), level, device=DEVICE)
    class_probs = torch.zeros(1, 3, 1100, device=DEVICE)
    class_probs[:, :, [7, 600, 1099]] = 0.25  # multiplied one after the other
    labels = kernel.label_maps(class_probs, mask_logits, RESIZINGS["once"])
    assert (labels == (7 if level > -200 else 0)).all()


@needs_triton
def test_triton_label_maps__not_a_number_gives_the_first_class():
    class_probs, mask_logits = predicted(*COUNTS["usual"])
    mask_logits[:] = torch.nan
    assert (kernel.label_maps(class_probs, mask_logits, RESIZINGS["once"]) == 0).all()


@needs_triton
def test_triton_label_maps__no_image():
    class_probs, mask_logits = predicted(*COUNTS["usual"])
    assert kernel.label_maps(class_probs[:0], mask_logits[:0], RESIZINGS["once"]).shape == (0, 24, 28)


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter knows no TF32")
def test_triton_label_maps__tensor_cores_where_the_user_allows_them():
    inputs = predicted(*COUNTS["many classes"])
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        labels = kernel.label_maps(*inputs, RESIZINGS["crop"])
    finally:
        torch.set_float32_matmul_precision(usual)
    assert_best(labels, scores_of(*inputs, RESIZINGS["crop"], resize_scores=False), tolerance=5e-3)


@needs_triton
def test_triton_label_maps__refuses_float64():
    with pytest.raises(TypeError, match=r"expected float32, float16 or bfloat16, got torch\.float64"):
        kernel.label_maps(*predicted(*COUNTS["usual"], torch.float64), RESIZINGS["once"])


@needs_triton
def test_triton_label_maps__refuses_what_it_cannot_count():
    class_probs, many = (torch.empty(1, queries, 3, device="meta") for queries in (4, 600))
    with pytest.raises(ValueError, match=f"fewer than {2**31} mask logits per image, got 4 and {2**32}"):
        kernel.label_maps(class_probs, torch.empty(1, 4, 2**15, 2**15, device="meta"), RESIZINGS["once"])
    with pytest.raises(ValueError, match="expected 1 to 512 queries"):
        kernel.label_maps(many, torch.empty(1, 600, 4, 4, device="meta"), RESIZINGS["once"])


def test_triton_label_maps__is_no_more_than_absent_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    spec = importlib.util.spec_from_file_location("without_triton", kernel.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.triton is None
    with pytest.raises(AssertionError, match="without asking is_available"):
        module.label_maps(*predicted(*COUNTS["usual"]), RESIZINGS["once"])
