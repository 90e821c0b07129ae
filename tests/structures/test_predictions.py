import pytest
import torch

from mmseg_m2f.structures import BoxPrediction, MaskPrediction, boxes_of, in_float32, predicted_boxes


def test_mask_prediction__logits_are_inner_products() -> None:
    embeddings, features = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]]), torch.tensor([[[[3.0]], [[4.0]]]])
    prediction = MaskPrediction(torch.zeros(1, 2, 3), embeddings, features)
    assert prediction.has_masks
    assert prediction.mask_logits().flatten().tolist() == [11, -4]


def test_in_float32__shared_features_stay_shared() -> None:
    features = torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16)
    layers = [MaskPrediction(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2).bfloat16(), features) for _ in range(2)]
    first, second = in_float32(layers)
    assert first.mask_features is second.mask_features
    assert {part.dtype for part in (*first, *second) if part is not None} == {torch.float32}


def test_boxes_of__masks_alone_are_refused() -> None:
    boxes = torch.rand(1, 2, 4)
    assert boxes_of(BoxPrediction(torch.zeros(1, 2, 3), boxes)) is boxes
    masks = MaskPrediction(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2), torch.zeros(1, 2, 3, 3))
    with pytest.raises(ValueError, match=r"query_decoder predicts masks alone. Use BoxDecoder or AnchorMaskDecoder"):
        boxes_of(masks)


def test_mask_prediction__boxes_beside_masks() -> None:
    boxes = torch.rand(2, 3, 4).bfloat16()
    masks = MaskPrediction(torch.zeros(2, 3, 3), torch.zeros(2, 3, 2), torch.zeros(2, 2, 3, 3), boxes)
    assert predicted_boxes(masks) is boxes_of(masks) is boxes
    (exact,) = in_float32([masks])
    assert torch.equal(boxes_of(exact), boxes.float())
    assert torch.equal(boxes_of(masks.of_images(slice(1, 2))), boxes[1:])
    some = masks.of_queries(slice(1, None))
    assert torch.equal(boxes_of(some), boxes[:, 1:])
    assert some.mask_features is masks.mask_features
    assert predicted_boxes(masks._replace(boxes=None)) is None
