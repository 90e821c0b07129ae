import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from mmseg_m2f.engine.hooks import DrawPredictions, SavePredictions
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.visualization.entries import sheet_entry

CLASSES, PALETTE = ("road", "tree"), [[128, 64, 128], [0, 128, 0]]


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


class TwoImages:
    metainfo = dict(classes=CLASSES, palette=PALETTE)

    def __len__(self) -> int:
        return 2


def runner() -> Mock:
    dataset = TwoImages()
    return Mock(spec=Runner, test_dataloader=SimpleNamespace(dataset=dataset))


def sample(path: str = "folder/street.jpg", **metainfo: object) -> BaseDataElement:
    element = BaseDataElement(metainfo=dict(img_path=path, **metainfo))
    element.pred_sem_seg = PixelData(data=torch.tensor([[[0, 1], [1, 1]]]))
    element.gt_sem_seg = PixelData(data=torch.tensor([[[0, 1], [255, 1]]]))
    return element


def detected(path: str = "folder/street.jpg") -> DetDataSample:
    """A tree in front of a road, seen as it is, but with an object that scores 0.25 as well."""
    element = DetDataSample(metainfo=dict(img_path=path, ori_shape=(2, 2)))
    tree = torch.tensor([[False, True], [True, True]])
    element.pred_panoptic_seg = PixelData(sem_seg=tree[None] * 1001)
    element.pred_instances = InstanceData(
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.75, 0.25]),
        bboxes=torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]),
        masks=torch.stack([tree, ~tree]),
    )
    element.gt_instances = InstanceData(labels=torch.tensor([1]), masks=tree[None])
    element.gt_sem_seg = PixelData(sem_seg=tree[None].long())
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
    with pytest.raises(ValueError, match=r"DrawPredictions, x: expected 'pred_panoptic_seg', 'pred_instances' or"):
        DrawPredictions(str(tmp_path)).after_test_iter(
            runner(), 0, batch(), [BaseDataElement(metainfo=dict(img_path="x.png"))]
        )


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_draw_predictions__objects_and_panoptic_maps_beside_their_truth(tmp_path: Path, threshold: float) -> None:
    hook = DrawPredictions(str(tmp_path), score_threshold=threshold)
    hook.after_test_iter(runner(), 0, batch(), [detected()])
    pixels = np.asarray(open_picture(tmp_path / "street.png"))
    # Columns: panoptic map, objects. Rows: input, truth, prediction. The road lies in the upper left quarter.
    corners = [[pixels[24 + 262 * row + 30, 84 + 262 * column + 30] for column in (0, 1)] for row in (0, 1, 2)]
    road = np.array(PALETTE[0])
    assert np.abs(corners[1][0] - (0.4 * corners[0][0] + 0.6 * road)).max() <= 1
    np.testing.assert_array_equal(corners[2][0], corners[1][0])
    np.testing.assert_array_equal(corners[1][1], corners[0][1])
    assert (corners[2][1] == corners[0][1]).all() == (threshold == 0.5)


def test_save_predictions__coco_files_after_the_last_image(tmp_path: Path) -> None:
    hook = SavePredictions(str(tmp_path))
    for index, path in enumerate(["a/one.jpg", "b/one.jpg"]):
        hook.after_test_iter(runner(), index, batch(), [detected(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["panoptic"]
    hook.after_test_epoch(runner())
    panoptic, found = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("panoptic", "instances"))
    files = {annotation["image_id"]: annotation["file_name"] for annotation in panoptic["annotations"]}
    assert files == {"a/one.jpg": "one.png", "b/one.jpg": "one_2.png"}
    assert [(entry["image_id"], entry["score"]) for entry in found[:2]] == [("a/one.jpg", 0.75), ("a/one.jpg", 0.25)]
    assert np.asarray(open_picture(tmp_path / "panoptic/one_2.png"))[..., 0].tolist() == [[1, 2], [2, 2]]


def test_save_predictions__label_maps(tmp_path: Path) -> None:
    hook = SavePredictions(str(tmp_path))
    hook.after_test_iter(runner(), 0, batch(), [sample()])
    hook.after_test_epoch(runner())
    assert np.asarray(open_picture(tmp_path / "labels/street.png")).tolist() == [[0, 1], [1, 1]]
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_sheet_entry__image_is_rgb_and_channels_last() -> None:
    entry = sheet_entry(batch(), 0, sample(), num_classes=2)
    assert entry is not None
    assert entry.name == "street"
    assert entry.image[0, 1].tolist() == [9, 5, 1]  # channel order of the batch is BGR
    assert entry.truth is not None
    assert entry.truth.semantic.tolist() == [[0, 1], [255, 1]]


def test_sheet_entry__augmented_views_show_the_largest_upright_one() -> None:
    views = [torch.full((3, side, side), side, dtype=torch.uint8) for side in (2, 8, 9)]
    samples = [sample(flip=side == 9) for side in (2, 8, 9)]
    data_batch = dict(inputs=[[view] for view in views], data_samples=[[s] for s in samples])
    prediction = sample()
    prediction.pred_sem_seg = PixelData(data=torch.zeros(2, 2, dtype=torch.long)[None])
    entry = sheet_entry(data_batch, 0, prediction, num_classes=2)
    assert entry is not None
    assert entry.image.shape == (8, 8, 3)


def test_class_colours__made_up_where_the_dataset_has_none() -> None:
    classes, palette = class_colours(SimpleNamespace(metainfo=dict(classes=CLASSES)))
    assert classes == ["road", "tree"]
    assert len(palette) == 2


def test_class_colours__dataset_without_classes_is_named() -> None:
    with pytest.raises(ValueError, match=r"SimpleNamespace: expected class names.*Pass metainfo="):
        class_colours(SimpleNamespace(metainfo={}))
