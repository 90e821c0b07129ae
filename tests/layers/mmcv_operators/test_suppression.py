import pytest
import torch
import torchvision
from mmcv.ops import batched_nms, bbox_overlaps, nms, nms_match, soft_nms
from torch import Tensor

from mmseg_m2f.layers.mmcv_operators import suppression
from tests.layers.mmcv_operators import references


def random_boxes(number: int = 60, spread: float = 40.0) -> tuple[Tensor, Tensor]:
    corners = torch.rand(number, 2) * spread
    return torch.cat([corners, corners + 4 + torch.rand(number, 2) * 20], 1), torch.rand(number)


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms__equals_a_loop_over_boxes(monkeypatch, threshold, offset, block):
    monkeypatch.setattr(suppression, "_BLOCK", block)
    boxes, scores = random_boxes()
    dets, kept = nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == references.nms(boxes.tolist(), scores.tolist(), threshold, offset)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms__torchvisions_is_taken_and_keeps_the_same(with_torchvision, threshold):
    boxes, scores = random_boxes(200)
    plain = nms(boxes, scores, threshold)[1]
    calls = with_torchvision(suppression, "nms")
    assert nms(boxes, scores, threshold)[1].tolist() == plain.tolist()
    assert plain.tolist() == torchvision.ops.nms(boxes, scores, threshold).tolist()
    nms(boxes, scores, threshold, offset=1)  # torchvision has no offset
    assert len(calls) == 2


def test_batched_nms__equals_torchvisions(with_torchvision):
    boxes, scores = random_boxes(200)
    classes = torch.randint(0, 3, (len(boxes),))
    expected = torchvision.ops.batched_nms(boxes, scores, classes, 0.4).tolist()
    assert batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.4))[1].tolist() == expected
    with_torchvision(suppression, "nms")
    assert batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.4))[1].tolist() == expected


def test_nms__takes_score_threshold_number_half_precision_and_nothing():
    boxes, scores = random_boxes()
    _, expected = nms(boxes, scores, 0.5)
    assert nms(boxes, scores, 0.5, max_num=3)[1].tolist() == expected[:3].tolist()
    assert nms(boxes, scores, 0.5, score_threshold=0.5)[1].tolist() == [i for i in expected.tolist() if scores[i] > 0.5]
    rounded = boxes.half()
    assert nms(rounded, scores.half(), 0.5)[1].tolist() == nms(rounded.float(), scores.half().float(), 0.5)[1].tolist()
    assert nms(boxes[:0], scores[:0], 0.5)[1].tolist() == []


def test_nms__a_chain_of_boxes_is_decided_from_the_best_on():
    left = torch.arange(200) * 4.0
    boxes = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)  # IoU of neighbours 6/14, of others below 0.12
    kept = nms(boxes, torch.arange(200, 0, -1).float(), 0.3)[1]
    assert kept.tolist() == list(range(0, 200, 2))


def test_batched_nms__keeps_boxes_of_other_classes():
    boxes, scores = random_boxes()
    classes = torch.randint(0, 3, (len(boxes),))
    dets, kept = batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.4))
    expected = []
    for k in range(3):
        of_class = (classes == k).nonzero()[:, 0]
        places = references.nms(boxes[of_class].tolist(), scores[of_class].tolist(), 0.4, 0)
        expected += of_class[places].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert dets[:, 4].tolist() == sorted(dets[:, 4].tolist(), reverse=True)


@pytest.mark.parametrize("spread", [40.0, 400.0])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms__equals_a_loop_over_picks(method, spread):
    boxes, scores = random_boxes(spread=spread)
    dets, kept = soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.05, method=method)
    picks = references.soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, 0)
    assert kept.tolist() == [i for i, _ in picks]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in picks]), rtol=1e-4, atol=1e-5)
    assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms__the_best_box_is_picked_whatever_its_score():
    boxes, scores = random_boxes(5)
    assert soft_nms(boxes, scores * 1e-6)[1].tolist() == [int(scores.argmax())]
    assert soft_nms(boxes[:0], scores[:0])[1].tolist() == []


def test_nms_match__lists_what_each_box_suppresses():
    boxes, scores = random_boxes()
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    assert [group.tolist() for group in groups] == references.nms_match(boxes.tolist(), scores.tolist(), 0.3)


@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps__of_all_and_of_pairs(offset):
    first, second = random_boxes(5)[0], random_boxes(5)[0]
    expected = torch.tensor([[references.iou(a, b, offset) for b in second.tolist()] for a in first.tolist()])
    torch.testing.assert_close(bbox_overlaps(first, second, offset=offset), expected)
    torch.testing.assert_close(bbox_overlaps(first, second, offset=offset, aligned=True), expected.diag())
    inner = torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    outer = torch.tensor([[0.0, 0.0, 8.0, 3.0]])
    assert bbox_overlaps(inner, outer, mode="iof").item() == 0.5
