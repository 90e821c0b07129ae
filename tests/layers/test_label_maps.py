import pytest
import torch

from mmseg_m2f.compat import is_installed
from mmseg_m2f.core.results import semantic_labels
from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.layers import label_maps as module
from mmseg_m2f.layers.label_maps import label_maps

RESIZING = Resizing((12, 14), (12, 13), (12, 13))


def predicted() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 5, 4) * 3, torch.randn(2, 5, 6, 7) * 4


@pytest.mark.skipif(not is_installed("triton"), reason="Triton is not installed: pip install triton")
def test_label_maps__kernel_and_pytorch_give_the_same(monkeypatch):
    inputs = predicted()
    plain = label_maps(*inputs, RESIZING)
    assert torch.equal(plain, semantic_labels(*inputs, RESIZING))
    monkeypatch.setattr(module, "_has_kernel", lambda _: True)
    if torch.cuda.is_available():
        inputs = tuple(x.cuda() for x in inputs)
    assert torch.equal(label_maps(*inputs, RESIZING).cpu(), plain)


def test_label_maps__plain_pytorch_where_there_is_no_gpu_or_no_kernel_is_wanted(monkeypatch):
    _, mask_logits = predicted()
    monkeypatch.setattr(module, "is_available", lambda: True)
    assert not module._has_kernel(mask_logits)
    monkeypatch.setenv("MMSEG_M2F_KERNELS", "off")
    assert not module._has_kernel(mask_logits.to("meta"))
