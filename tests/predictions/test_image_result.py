import numpy as np

from mmseg_m2f.predictions import ImageResult, Objects, resize_result


def make_objects() -> Objects:
    masks = np.zeros((1, 2, 4), dtype=bool)
    masks[0, 1, 2:] = True
    return Objects(np.array([3]), np.ones(1, np.float32), np.array([[2, 1, 4, 2]], np.float32), masks)


def test_prediction__names_its_results() -> None:
    label_map = np.zeros((2, 4), dtype=np.int64)
    assert ImageResult((2, 4)).kinds() == []
    assert ImageResult((2, 4), semantic=label_map, instances=make_objects()).kinds() == ["instances", "semantic"]


def test_resize_result__maps_masks_and_boxes_agree() -> None:
    panoptic = np.array([[0, 0, 1, 1], [0, 0, 1003, 1003]])
    resized = resize_result(ImageResult((2, 4), panoptic % 1000, panoptic, make_objects()), (6, 8))
    assert resized.size == (6, 8)
    np.testing.assert_array_equal(resized.panoptic, panoptic.repeat(3, 0).repeat(2, 1))
    np.testing.assert_array_equal(resized.semantic, resized.panoptic % 1000)
    np.testing.assert_array_equal(resized.instances.masks[0], resized.panoptic == 1003)
    assert resized.instances.boxes_px.tolist() == [[4, 3, 8, 6]]


def test_resize_result__missing_results_stay_missing() -> None:
    boxes_alone = ImageResult((2, 4), instances=make_objects()._replace(masks=None))
    resized = resize_result(boxes_alone, (4, 4))
    assert (resized.semantic, resized.panoptic, resized.instances.masks) == (None, None, None)
    assert resize_result(boxes_alone, (2, 4)) is boxes_alone


def test_resize_result__confidences_go_with_their_labels() -> None:
    confidence = np.array([[0.5, 0.25]], np.float32)
    resized = resize_result(
        ImageResult((1, 2), np.array([[3, 4]]), confidence=confidence, unknown=1 - confidence), (1, 4)
    )
    assert resized.semantic.tolist() == [[3, 3, 4, 4]]
    assert resized.confidence.tolist() == [[0.5, 0.5, 0.25, 0.25]]
    assert resized.unknown.tolist() == [[0.5, 0.5, 0.75, 0.75]]
