import pytest
import torch

from mmseg_m2f.core.postprocess import (
    detr_panoptic_map,
    resize_maps,
    semantic_scores,
    tight_boxes,
    top_boxes,
)


def test_semantic_scores__by_hand():
    class_logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    mask_logits = torch.tensor([[[[3.0, -2.0]], [[-1.0, 2.0]]]])
    expected = torch.tensor([[[[0.6907, 0.2660]], [[0.2407, 0.5182]]]])
    torch.testing.assert_close(semantic_scores(class_logits, mask_logits), expected, rtol=0, atol=1e-4)


def test_semantic_scores__query_order_changes_nothing():
    class_logits, mask_logits = torch.randn(1, 5, 4), torch.randn(1, 5, 3, 3)
    order = torch.randperm(5)
    shuffled = semantic_scores(class_logits[:, order], mask_logits[:, order])
    torch.testing.assert_close(shuffled, semantic_scores(class_logits, mask_logits))


def test_resize_maps__same_size_is_the_same_tensor():
    maps = torch.randn(1, 2, 5, 7)
    assert resize_maps(maps, (5, 7)) is maps


def confident_of(classes: list[int], num_classes: int) -> torch.Tensor:
    """Class logits Q K1 of confident queries."""
    return torch.nn.functional.one_hot(torch.tensor(classes), num_classes + 1).float() * 20


def left_of(columns: list[int]) -> torch.Tensor:
    """Mask logits Q 4 8: +8 in the first columns, −8 elsewhere; negative counts from the right."""
    logits = torch.full((len(columns), 4, 8), -8.0)
    for mask, count in zip(logits, columns, strict=True):
        mask[:, :count] = 8.0 if count > 0 else mask[:, :count]
        if count < 0:
            mask[:, count:] = 8.0
    return logits


IS_THING = torch.tensor([True, False])


def test_tight_boxes__include_the_last_pixel():
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, 2:4, 3:7] = True
    assert tight_boxes(masks).tolist() == [[3, 2, 7, 4], [0, 0, 0, 0]]


def test_top_boxes__corners_in_pixels_best_first_cut_to_the_image():
    class_logits = torch.log(torch.tensor([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.4, 1.0], [0.5, 0.5, 0.1, 0.1]])
    found = top_boxes(class_logits, boxes, IS_THING, size=(10, 20))
    # The first is mostly "no object" and is kept all the same; the last is stuff.
    assert found.scores.tolist() == pytest.approx([0.6, 0.2])
    torch.testing.assert_close(found.boxes, torch.tensor([[14.0, 0.0, 20.0, 10.0], [5.0, 2.5, 15.0, 7.5]]))
    assert found.masks is None


def test_top_boxes__masks_of_the_same_queries():
    class_logits = torch.log(torch.tensor([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1]]))
    logits = left_of([2, 5])
    found = top_boxes(class_logits, torch.rand(2, 4), IS_THING, size=(4, 8), mask_logits=logits, max_per_image=1)
    assert torch.equal(found.masks, logits[1:] > 0)


def test_detr_panoptic_map__highest_logit_wins_whatever_the_score():
    logits = torch.tensor([[[2.0, -1.0, 0.2]], [[1.0, 1.0, -0.3]]])
    panoptic = detr_panoptic_map(confident_of([0, 0], 2), logits, IS_THING, size=(1, 3), min_area=0)
    assert panoptic.tolist() == [[1000, 2000, 1000]]


def test_detr_panoptic_map__small_segments_leave_their_pixels_to_others():
    logits = left_of([1, 8])  # the first wins a column of 4 pixels
    logits[0, :, 0] += 1
    class_logits = confident_of([0, 1], 2)
    assert (detr_panoptic_map(class_logits, logits, IS_THING, size=(4, 8)) == 1).all()
    kept = detr_panoptic_map(class_logits, logits, IS_THING, size=(4, 8), min_area=3)
    assert kept[0].tolist() == [1000, 1, 1, 1, 1, 1, 1, 1]


def test_detr_panoptic_map__stuff_of_one_class():
    # Stuff left and right, a thing in the middle that reaches faintly to the right.
    logits = left_of([3, -3, 1])
    logits[2] = -8.5
    logits[2, :, 3:5] = 8.0
    logits[2, :, 5:] = -7.0
    class_logits = confident_of([1, 1, 0], 2)
    published = detr_panoptic_map(class_logits, logits, IS_THING, size=(4, 8))
    assert published[0].tolist() == [1, 1, 1, 1000, 1000, 1000, 1000, 1000]  # the second stuff query is removed
    merged = detr_panoptic_map(class_logits, logits, IS_THING, size=(4, 8), merge_stuff=True)
    assert merged[0].tolist() == [1, 1, 1, 1000, 1000, 1, 1, 1]


def test_detr_panoptic_map__another_size_and_nothing_confident():
    logits = left_of([4, -4])
    panoptic = detr_panoptic_map(confident_of([0, 1], 2), logits, IS_THING, size=(8, 4))
    assert panoptic.tolist() == [[1000, 1000, 1, 1]] * 8
    unsure = detr_panoptic_map(torch.zeros(2, 3), logits, IS_THING, size=(8, 4))
    assert (unsure == 2).all()
