import json
from collections.abc import Sequence
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

CLASSES, PALETTE = ("road", "tree"), [[128, 64, 128], [0, 128, 0]]


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


class Images:
    """As much of a data set as the hooks read."""

    def __init__(self, *paths: str, ids: Sequence[int] = (), **metainfo: object) -> None:
        self.metainfo = dict(classes=CLASSES, palette=PALETTE) | metainfo
        self.infos = [dict(img_path=path) for path in paths]
        for info, image_id in zip(self.infos, ids, strict=False):
            info["img_id"] = image_id

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict:
        return self.infos[index]


def runner(*paths: str, **dataset: object) -> Mock:
    dataset = Images(*(paths or ["folder/street.jpg"]), **dataset)
    return Mock(spec=Runner, test_dataloader=SimpleNamespace(dataset=dataset), model=SimpleNamespace())


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


def written(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]


def batch(size: int = 1) -> dict:
    return dict(inputs=[torch.arange(12, dtype=torch.uint8).view(3, 2, 2)] * size)


def test_draw_predictions__writes_a_picture_for_each_image(tmp_path: Path) -> None:
    hook = DrawPredictions(str(tmp_path / "show"))
    outputs = [sample("a/one.jpg"), sample("shapes(seed=0, index=1)")]
    hook.after_test_iter(runner("a/one.jpg", "shapes(seed=0, index=1)"), 0, batch(2), outputs)
    assert sorted(written(tmp_path / "show")) == ["a/one.png", "shapes(seed=0, index=1).png"]
    assert open_picture(tmp_path / "show/a/one.png").width > 256


def test_draw_predictions__equal_names_do_not_overwrite(tmp_path: Path) -> None:
    hook = DrawPredictions(str(tmp_path))
    paths = ["a/one.jpg", "b/one.jpg", "b/one.png"]
    hook.after_test_iter(runner(*paths), 0, batch(3), [sample(path) for path in paths])
    assert sorted(written(tmp_path)) == ["a/one.png", "b/one.jpg.png", "b/one.png.png"]


def test_draw_predictions__sample_without_prediction_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DrawPredictions, x.png: expected 'pred_panoptic_seg', 'pred_instances' or"):
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
    images = runner("a/one.jpg", "b/one.jpg")
    for index, path in enumerate(["a/one.jpg", "b/one.jpg"]):
        hook.after_test_iter(images, index, batch(), [detected(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["panoptic"]
    hook.after_test_epoch(images)
    panoptic, found = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("panoptic", "instances"))
    files = {annotation["image_id"]: annotation["file_name"] for annotation in panoptic["annotations"]}
    assert files == {"a/one.jpg": "a/one.png", "b/one.jpg": "b/one.png"}
    assert [(entry["image_id"], entry["score"]) for entry in found[:2]] == [("a/one.jpg", 0.75), ("a/one.jpg", 0.25)]
    assert np.asarray(open_picture(tmp_path / "panoptic/b/one.png"))[..., 0].tolist() == [[1, 2], [2, 2]]


def test_save_predictions__ids_of_the_data_set(tmp_path: Path) -> None:
    hook, images = SavePredictions(str(tmp_path)), runner("a/1.jpg", "a/2.jpg", ids=[139, 285], category_ids=(7, 90))
    hook.after_test_iter(images, 0, batch(), [detected("a/2.jpg")])
    hook.after_test_epoch(images)
    panoptic, found = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("panoptic", "instances"))
    assert [(entry["image_id"], entry["category_id"]) for entry in found] == [(285, 90), (285, 7)]
    assert panoptic["images"] == [dict(id=285, file_name="2.jpg", height=2, width=2)]
    assert [category["id"] for category in panoptic["categories"]] == [7, 90]
    (annotation,) = panoptic["annotations"]
    assert (annotation["image_id"], [s["category_id"] for s in annotation["segments_info"]]) == (285, [7, 90])


def test_save_predictions__processes_agree_on_the_names(tmp_path: Path) -> None:
    """Each process sees some of the images, in its own order, and keeps those of others."""
    paths = ["a/0.png", "b/0.png", "c/0.png", "d/0.png"]
    for own in (["c/0.png", "a/0.png"], ["b/0.png", "d/0.png"]):
        hook = SavePredictions(str(tmp_path))
        hook.after_test_iter(runner(*paths), 0, batch(), [sample(path) for path in own])
    assert sorted(written(tmp_path)) == [f"labels/{folder}/0.png" for folder in "abcd"]


def test_save_predictions__label_maps(tmp_path: Path) -> None:
    hook = SavePredictions(str(tmp_path))
    hook.after_test_iter(runner(), 0, batch(), [sample()])
    hook.after_test_epoch(runner())
    assert np.asarray(open_picture(tmp_path / "labels/street.png")).tolist() == [[0, 1], [1, 1]]
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
