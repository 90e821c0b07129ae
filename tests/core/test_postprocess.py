import pytest
import torch

from mmseg_m2f.core.postprocess import panoptic_map, resize_maps, semantic_scores, tight_boxes, top_instances


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


def sure_of(classes: list[int], num_classes: int) -> torch.Tensor:
    """Class logits Q K1 of queries that are sure."""
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


def test_panoptic_map__things_are_numbered_and_stuff_is_merged():
    # A thing left, a thing right, stuff in two pieces between them; the last query sees nothing.
    logits = left_of([2, -2, 1, 1])
    logits[2:] = -8.0
    logits[2, :, 2:4], logits[3, :, 4:5] = 8.0, 8.0
    panoptic = panoptic_map(sure_of([0, 0, 1, 1], 2), logits, IS_THING)
    assert panoptic[0].tolist() == [1000, 1000, 1, 1, 1, 2, 2000, 2000]


def test_panoptic_map__covered_and_unsure_queries_are_dropped():
    logits = left_of([4, 5, 8])
    class_logits = sure_of([0, 0, 1], 2)
    logits[0] += 4.0  # wins four of the five columns of the second
    class_logits[2] = 0.0
    panoptic = panoptic_map(class_logits, logits, IS_THING, overlap_threshold=0.5)
    assert panoptic[0].tolist() == [1000] * 4 + [2] * 4


def test_panoptic_map__nothing_recognised():
    assert (panoptic_map(sure_of([2, 2], 2), left_of([3, 3]), IS_THING) == 2).all()


def test_top_instances__score_is_class_times_mask():
    class_logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    mask_logits = torch.tensor([[[3.0, -2.0, 1.0, 0.5]]])
    found = top_instances(class_logits, mask_logits, torch.tensor([True, True]), max_per_image=1)
    assert found.scores.item() == pytest.approx(0.7 * 0.768697, abs=1e-5)
    assert found.masks.tolist() == [[[True, False, True, True]]]


def test_top_instances__fewer_pairs_than_asked_for():
    found = top_instances(torch.randn(3, 2), torch.randn(3, 4, 4), torch.tensor([True]), max_per_image=100)
    assert len(found.scores) == 3


def test_top_instances__stuff_takes_no_place_from_things():
    class_logits = torch.log(torch.tensor([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1]]))
    masks = torch.ones(2, 4, 4)
    kept = top_instances(class_logits, masks, IS_THING, max_per_image=2)
    assert sorted(kept.scores.tolist()) == pytest.approx([0.0731, 0.1462], abs=1e-4)
    assert len(top_instances(class_logits, masks, IS_THING, max_per_image=2, things_first=False).scores) == 0


def test_tight_boxes__include_the_last_pixel():
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, 2:4, 3:7] = True
    assert tight_boxes(masks).tolist() == [[3, 2, 7, 4], [0, 0, 0, 0]]
