"""Random parts of an image with objects, magnified."""

import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmseg_m2f.datasets import MagnifiedCrop


def scene(height: int, width: int) -> dict:
    """An image whose pixels are their positions, with one square object of 4 pixels in its middle."""
    image = np.stack([*np.mgrid[:height, :width], np.zeros((height, width))], -1).astype(np.uint8)
    mask = np.zeros((1, height, width), np.uint8)
    top, left = height // 2 - 2, width // 2 - 2
    mask[:, top : top + 4, left : left + 4] = 1
    boxes = HorizontalBoxes(np.asarray([[left, top, left + 4, top + 4]], np.float32))
    return dict(
        img=image,
        img_shape=(height, width),
        gt_masks=BitmapMasks(mask, height, width),
        gt_bboxes=boxes,
        gt_bboxes_labels=np.zeros(1, np.int64),
        gt_ignore_flags=np.zeros(1, bool),
    )


@pytest.mark.parametrize("factor", [1.0, 1.75, 2.0, 3.0])
def test_magnified_crop__gives_at_most_the_crop_and_that_part_of_the_image(factor: float) -> None:
    crop = MagnifiedCrop(crop_size=(32, 48), factors=[factor])
    for _ in range(5):
        result = crop(scene(100, 120))
        height, width = result["img_shape"]
        assert 32 - factor < height <= 32
        assert 48 - factor < width <= 48
        assert result["img"].shape[:2] == (height, width)
        rows = result["img"][:, 0, 0].astype(float)
        assert rows[-1] - rows[0] == pytest.approx(height / factor, abs=2)  # a part 1 / factor as high
        assert result["gt_masks"].masks.shape[1:] == (height, width)


def test_magnified_crop__whole_image_where_it_is_smaller() -> None:
    result = MagnifiedCrop(crop_size=(64, 64), factors=[2.0])(scene(20, 24))
    assert result["img"].shape == (40, 48, 3)
    assert result["gt_masks"].masks.sum() == 8 * 8
    assert result["gt_bboxes"].tensor.tolist() == [[20, 16, 28, 24]]


def test_magnified_crop__without_objects_is_kept() -> None:
    crop = MagnifiedCrop(crop_size=(8, 8), factors=[2.0])
    assert {len(crop(scene(60, 60))["gt_masks"]) for _ in range(20)} >= {0}


def test_magnified_crop__draws_among_its_factors() -> None:
    crop = MagnifiedCrop(crop_size=(100, 100), factors=[1.0, 2.0])
    assert {crop(scene(20, 20))["img_shape"] for _ in range(20)} == {(20, 20), (40, 40)}


@pytest.mark.parametrize("factors", [[], [0.0], [-1.0], [2.0, 65.0]])
def test_magnified_crop__refuses_factors(factors: list[float]) -> None:
    with pytest.raises(ValueError, match=r"MagnifiedCrop: factors=.*above 0 and at most 64"):
        MagnifiedCrop(crop_size=(64, 80), factors=factors)
