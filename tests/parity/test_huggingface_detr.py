"""Equality with Hugging Face's DETR on the same random weights, taken through the name map, with padding."""

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.checkpoints.small_detr import build_huggingface, build_ours

pytestmark = pytest.mark.parity


def build_twins(*, with_masks: bool) -> tuple[torch.nn.Module, torch.nn.Module]:
    theirs, ours = build_huggingface(with_masks=with_masks), build_ours(with_masks=with_masks)
    ours.load_state_dict(convert(theirs.state_dict(), to="ours").weights, strict=True)
    return theirs.double(), ours.double()


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images, and which of their pixels are no padding: three quarters of the first, all rows of the second."""
    images = torch.randn(2, 3, 128, 160).double()
    valid = torch.zeros(2, 128, 160, dtype=torch.bool)
    valid[0, :96, :128] = True
    valid[1, :, :140] = True
    return images * valid.unsqueeze(1), valid


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equality far below what tells two queries (axis 1) of an image apart."""
    assert expected.std(1).mean() > 1e-5
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
def test_huggingface_detr__classes_and_boxes(padded: bool):
    theirs, ours = build_twins(with_masks=False)
    images, valid = make_batch()
    states = []
    decoder = theirs.model.decoder
    decoder.layers[0].register_forward_hook(lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        expected = theirs(pixel_values=images, pixel_mask=valid.long() if padded else None)
        first = decoder.layernorm(states[0])
        predictions = ours.decode_head(ours.extract_feat(images), valid if padded else None)
    assert len(predictions) == 2
    assert_close(predictions[0].class_logits, theirs.class_labels_classifier(first))
    assert_close(predictions[0].boxes, theirs.bbox_predictor(first).sigmoid())
    assert_close(predictions[1].class_logits, expected.logits)
    assert_close(predictions[1].boxes, expected.pred_boxes)


def test_huggingface_detr__padding_matters():
    theirs, _ = build_twins(with_masks=False)
    images, valid = make_batch()
    with torch.no_grad():
        outputs = [theirs(pixel_values=images, pixel_mask=mask).pred_boxes for mask in (valid.long(), None)]
    assert (outputs[0] - outputs[1]).abs().amax() > 1e-3


@pytest.mark.parametrize("padded", [False, True])
def test_huggingface_detr__masks(padded: bool):
    theirs, ours = build_twins(with_masks=True)
    images, valid = make_batch()
    with torch.no_grad():
        expected = theirs(pixel_values=images, pixel_mask=valid.long() if padded else None)
        prediction = ours.decode_head(ours.extract_feat(images), valid if padded else None, last_only=True)[-1]
        masks = prediction.mask_logits()
    assert_close(prediction.class_logits, expected.logits)
    assert_close(prediction.boxes, expected.pred_boxes)
    assert masks.shape == (2, 7, 32, 40)
    assert_close(masks, expected.pred_masks)
