import pytest
import torch

from mmseg_m2f.core.losses import class_loss, mask_bce_loss, mask_dice_loss, mask_focal_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5, -3.0]])
MASKS = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
ALL_VALID = torch.ones(1, 4)


def test_mask_bce_loss__by_hand():
    assert mask_bce_loss(LOGITS, MASKS, ALL_VALID).item() == pytest.approx(0.2407135, abs=1e-6)


def test_mask_dice_loss__by_hand():
    assert mask_dice_loss(LOGITS, MASKS, ALL_VALID).item() == pytest.approx(0.1687084, abs=1e-6)


def test_mask_focal_loss__by_hand():
    assert mask_focal_loss(LOGITS, MASKS, ALL_VALID).item() == pytest.approx(0.00860494, abs=1e-8)


def test_class_loss__by_hand():
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 0.0, 3.0], [1.0, 2.0, 0.0]]])
    loss = class_loss(logits, torch.tensor([[0, 2, 2]]), torch.tensor([1.0, 1.0, 0.1]))
    assert loss.item() == pytest.approx(0.5482157, abs=1e-6)


@pytest.mark.parametrize("loss", [mask_bce_loss, mask_dice_loss, mask_focal_loss])
def test_mask_losses__no_value_and_no_gradient_from_void(loss):
    validity = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, MASKS * validity, validity)
    value.sum().backward()
    torch.testing.assert_close(value, loss(LOGITS[:, :2], MASKS[:, :2], ALL_VALID[:, :2]))
    assert logits.grad[0, 2:].tolist() == [0.0, 0.0]
    assert (logits.grad[0, :2] != 0).all()


@pytest.mark.parametrize("loss", [mask_bce_loss, mask_dice_loss, mask_focal_loss])
def test_mask_losses__all_void_is_zero(loss):
    nothing = torch.zeros(1, 4)
    assert loss(LOGITS, nothing, nothing).item() == 0.0


@pytest.mark.parametrize("loss", [mask_bce_loss, mask_dice_loss, mask_focal_loss])
def test_mask_losses__no_pair(loss):
    none = torch.zeros(0, 4)
    assert loss(none, none, none).sum().item() == 0.0
