import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmseg_m2f.engine.crop_comparison import CropComparison


def sample(size: tuple[int, int], objects: int | None) -> DetDataSample:
    made = DetDataSample(metainfo=dict(img_shape=size))
    if objects is not None:
        made.gt_instances = InstanceData(labels=torch.zeros(objects))
    return made


def advice(crops: list[tuple[tuple[int, int], int]], images: list[tuple[tuple[int, int], int | None]]) -> str | None:
    comparison = CropComparison()
    for size, objects in crops:
        comparison.note_crops(dict(inputs=[torch.zeros(3, *size)], data_samples=[sample(size, objects)]))
    comparison.note_images([sample((999, 999), 999)])
    comparison.forget_images()  # of the validation before
    comparison.note_images([sample(size, objects) for size, objects in images])
    return comparison.advice()


def test_advice__images_larger_and_more_crowded_than_crops():
    found = advice([((64, 64), 3), ((32, 64), 5)], [((64, 128), 10), ((80, 110), 11)])
    assert found is not None
    assert found.startswith(
        "Of 2 validation images 1 are more than 2 times as large as the training crops (64 x 64) and 1 hold more than "
        "2 times as many objects as any of them (5)"
    )
    assert found.endswith("--cfg-options window_size=64")


def test_advice__one_of_both_and_an_oblong_crop():
    assert "window_size=32,64" in (found := advice([((32, 64), 3)], [((64, 128), 3)]) or "")
    assert "objects as any" not in found
    assert "as large as" not in (advice([((64, 64), 1)], [((64, 64), 3)]) or "as large as")


@pytest.mark.parametrize("images", [[((64, 64), 3)], [((64, 64), None)], [], [((640, 640), 3)] + 10 * [((64, 64), 3)]])
def test_advice__none(images: list):
    assert advice([((64, 64), 3)], images) is None


def test_advice__nothing_known_of_the_crops():
    assert advice([], [((64, 64), 3)]) is None


def test_note_crops__panoptic_samples_list_their_segments():
    comparison = CropComparison()
    crop = DetDataSample(metainfo=dict(segment_labels=[0, 0, 1]))
    comparison.note_crops(dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[crop]))
    comparison.note_images([sample((8, 8), 7)])
    assert "as any of them (3)" in (comparison.advice() or "")
    comparison.note_crops("no batch")
