import math

import pytest
import torch
from mmengine.registry import MODELS


def build(**arguments):
    return MODELS.build(dict(type="mmseg_m2f.EntropyAwareDistillLoss", **arguments))


def test_distill_loss__by_hand():
    """An undecided teacher and a student that says 3:1 for the class; half of the target is the label."""
    student = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1)
    teacher, labels = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
    expected = 0.75 * math.log(0.75 / 0.75) + 0.25 * math.log(0.25 / 0.25)
    assert build()(student, teacher, labels).item() == pytest.approx(expected, abs=1e-6)
    soft = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert build(soft_weight=1.0, loss_weight=3.0)(student, teacher, labels).item() == pytest.approx(3 * soft, rel=1e-5)


def test_distill_loss__float32_under_autocast_and_nothing_into_the_teacher():
    student = (torch.randn(1, 5, 4, 4) * 20).bfloat16().requires_grad_()
    teacher = (torch.randn(1, 5, 4, 4) * 20).bfloat16().requires_grad_()
    labels = torch.randint(5, (1, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = build()(student, teacher, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, build()(student.float(), teacher.float(), labels))
    assert student.grad.any()
    assert teacher.grad is None


def test_distill_loss__share_out_of_range():
    with pytest.raises(ValueError, match=r"soft_weight is a share in \[0, 1\], got 1.5"):
        build(soft_weight=1.5)
