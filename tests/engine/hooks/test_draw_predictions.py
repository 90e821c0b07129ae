from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image

from mmseg_m2f.engine.hooks import DrawPredictions, SaveLabels
from mmseg_m2f.engine.hooks.draw_predictions import class_colours, sheet_entry

CLASSES, PALETTE = ("road", "tree"), [[128, 64, 128], [0, 128, 0]]


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def runner() -> Mock:
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES, palette=PALETTE))
    return Mock(spec=Runner, test_dataloader=SimpleNamespace(dataset=dataset))


def sample(path: str = "folder/street.jpg", **metainfo: object) -> BaseDataElement:
    element = BaseDataElement(metainfo=dict(img_path=path, **metainfo))
    element.pred_sem_seg = PixelData(data=torch.tensor([[[0, 1], [1, 1]]]))
    element.gt_sem_seg = PixelData(data=torch.tensor([[[0, 1], [255, 1]]]))
    return element


def batch(size: int = 1) -> dict:
    return dict(inputs=[torch.arange(12, dtype=torch.uint8).view(3, 2, 2)] * size)


def test_draw_predictions__writes_a_picture_for_each_image(tmp_path: Path) -> None:
    hook = DrawPredictions(str(tmp_path / "show"))
    outputs = [sample("a/one.jpg"), sample("shapes(seed=0, index=1)")]
    hook.after_test_iter(runner(), 0, batch(2), outputs)
    assert sorted(p.name for p in (tmp_path / "show").iterdir()) == ["one.png", "shapes(seed=0, index=1).png"]
    assert open_picture(tmp_path / "show/one.png").width > 256


def test_draw_predictions__equal_names_do_not_overwrite(tmp_path: Path) -> None:
    hook = DrawPredictions(str(tmp_path))
    hook.after_test_iter(runner(), 0, batch(2), [sample("a/one.jpg"), sample("b/one.jpg")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "one_2.png"]


def test_draw_predictions__sample_without_prediction_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DrawPredictions, x: expected a semantic prediction 'pred_sem_seg'"):
        DrawPredictions(str(tmp_path)).after_test_iter(
            runner(), 0, batch(), [BaseDataElement(metainfo=dict(img_path="x.png"))]
        )


def test_save_labels__pixel_values_are_class_indices(tmp_path: Path) -> None:
    SaveLabels(str(tmp_path)).after_test_iter(runner(), 0, batch(), [sample()])
    picture = open_picture(tmp_path / "street.png")
    assert np.asarray(picture).tolist() == [[0, 1], [1, 1]]
    assert picture.convert("RGB").getpixel((1, 0)) == (0, 128, 0)


def test_sheet_entry__image_is_rgb_and_channels_last() -> None:
    entry = sheet_entry(batch(), 0, sample())
    assert entry is not None
    assert entry.name == "street"
    assert entry.image[0, 1].tolist() == [9, 5, 1]  # channel order of the batch is BGR
    assert entry.truth is not None
    assert entry.truth.tolist() == [[0, 1], [255, 1]]


def test_sheet_entry__augmented_views_show_the_largest_upright_one() -> None:
    views = [torch.full((3, side, side), side, dtype=torch.uint8) for side in (2, 8, 9)]
    samples = [sample(flip=side == 9) for side in (2, 8, 9)]
    data_batch = dict(inputs=[[view] for view in views], data_samples=[[s] for s in samples])
    prediction = sample()
    prediction.pred_sem_seg = PixelData(data=torch.zeros(2, 2, dtype=torch.long)[None])
    entry = sheet_entry(data_batch, 0, prediction)
    assert entry is not None
    assert entry.image.shape == (8, 8, 3)


def test_class_colours__made_up_where_the_dataset_has_none() -> None:
    classes, palette = class_colours(SimpleNamespace(metainfo=dict(classes=CLASSES)))
    assert classes == ["road", "tree"]
    assert len(palette) == 2


def test_class_colours__dataset_without_classes_is_named() -> None:
    with pytest.raises(ValueError, match=r"SimpleNamespace: expected class names.*Pass metainfo="):
        class_colours(SimpleNamespace(metainfo={}))
