"""Classes are names: validation and test data, checkpoints and the head agree on their order."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmseg_m2f.engine.class_agreement import (
    NamedClasses,
    align_dataset,
    check_category_order,
    check_initial_classes,
    check_same_classes,
    checkpoint_classes,
    dataset_classes,
    matching_rows,
)
from tests.datasets.coco_data import CATEGORIES, change_json, polygon, write_objects, write_panoptic
from tests.fake_runner import fake_runner
from tests.tiny_segmentation import write_dataset

TRAIN = NamedClasses(("cat", "dog", "cow"), "train_dataloader.dataset")


@DATASETS.register_module()
class KnownClasses(BaseSegDataset):
    """Label 0 is a cat, 1 a dog."""

    METAINFO: ClassVar[dict] = dict(classes=("cat", "dog"), palette=[[1, 1, 1], [2, 2, 2]])


def run_with(dataset: dict, *, loop: str = "val", metrics: tuple = ()) -> Runner:
    """What a Runner has of one loop."""
    config = Config({f"{loop}_dataloader": dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler"))})
    config[f"{loop}_dataloader"].dataset = dataset
    loader = Runner.build_dataloader(config[f"{loop}_dataloader"])
    evaluator = SimpleNamespace(metrics=metrics, dataset_meta=loader.dataset.metainfo)
    runner = fake_runner(
        cfg=config, visualizer=SimpleNamespace(dataset_meta=None), seed=0, build_dataloader=Runner.build_dataloader
    )
    running = SimpleNamespace(dataloader=loader, evaluator=evaluator)
    for name, value in (("dataloader", loader), ("loop", running), ("evaluator", evaluator)):
        setattr(runner, f"{loop}_{name}", value)
    return runner


def aligned(runner: Runner, expected: NamedClasses, *, loop: str = "val") -> object:
    """The dataset after aligning; what the Runner, its loop, metrics and pictures use is the same one."""
    align_dataset(runner, loop, expected)
    running = getattr(runner, f"{loop}_loop")
    dataset = running.dataloader.dataset
    assert getattr(runner, f"_{loop}_dataloader") is running.dataloader
    assert running.evaluator.dataset_meta["classes"] == dataset.metainfo["classes"]
    return dataset


@pytest.mark.parametrize("loop", ["val", "test"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_align_dataset__objects_in_another_order(tmp_path: Path, loop: str, wrapped: bool) -> None:
    dog = dict(category_id=7, segmentation=polygon(0, 0, 4, 6))
    dataset = dict(type="mmseg_m2f.CocoInstance", **write_objects(tmp_path, dog), test_mode=True)
    dataset = dict(type="ConcatDataset", datasets=[dataset]) if wrapped else dataset
    runner = run_with(dataset, loop=loop)
    assert dataset_classes(getattr(runner, f"{loop}_dataloader").dataset, loop=loop).names == ("cat", "dog")
    found = aligned(runner, NamedClasses(("dog", "cat"), "checkpoint a.pth"), loop=loop)
    assert tuple(found.metainfo["classes"]) == ("dog", "cat")
    assert found.get_data_info(0)["instances"][0]["bbox_label"] == 0


def test_align_dataset__segments_in_another_order(tmp_path: Path) -> None:
    dataset = dict(type="mmseg_m2f.CocoPanoptic", **write_panoptic(tmp_path), test_mode=True)
    runner = run_with(dataset)
    assert runner.val_dataloader.dataset.metainfo["classes"] == ("cat", "dog", "grass", "sky")
    found = aligned(runner, NamedClasses(("dog", "cat", "sky", "grass"), "train_dataloader.dataset"))
    # In the file: grass, dog, a crowd of cats, a cat.
    assert [label for _, label, _, _ in found.get_data_info(0)["segments_info"]] == [3, 0, 1, 1]
    assert (found.metainfo["thing_ids"], found.metainfo["stuff_ids"]) == ((0, 1), (2, 3))
    assert found.metainfo["palette"] == [(0, 0, 200), (200, 0, 0), (0, 200, 200), (0, 200, 0)]


def test_align_dataset__label_maps_of_known_classes(tmp_path: Path) -> None:
    write_dataset(tmp_path, count=1)
    prefix = dict(img_path="images", seg_map_path="labels")
    dataset = dict(type="KnownClasses", data_root=str(tmp_path), img_suffix=".png", data_prefix=prefix)
    dataset["pipeline"] = [dict(type="mmseg.LoadAnnotations")]
    runner = run_with(dataset)
    before = runner.val_dataloader.dataset[0]["gt_seg_map"]
    found = aligned(runner, NamedClasses(("dog", "cat"), "train_dataloader.dataset"))
    assert np.array_equal(found[0]["gt_seg_map"], 1 - before)
    assert found.metainfo["palette"] == [[2, 2, 2], [1, 1, 1]]


def test_align_dataset__label_maps_without_names_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, count=1)
    prefix = dict(img_path="images", seg_map_path="labels")
    dataset = dict(type="mmseg.BaseSegDataset", data_root=str(tmp_path), img_suffix=".png", data_prefix=prefix)
    runner = run_with(dict(dataset, metainfo=dict(classes=("dog", "cat"))))
    with pytest.raises(ValueError, match=r"val_dataloader.dataset has the same classes in another order") as raised:
        align_dataset(runner, "val", NamedClasses(("cat", "dog"), "train_dataloader.dataset"))
    assert "expected ['cat', 'dog'], got ['dog', 'cat']" in str(raised.value)
    assert "the labels of BaseSegDataset are numbers without names" in str(raised.value)


def test_align_dataset__fewer_and_more_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class that the file does not have is refused; one that training does not have is left out with a warning."""
    dog = dict(category_id=7, segmentation=polygon(0, 0, 4, 6))
    dataset = dict(type="mmseg_m2f.CocoInstance", **write_objects(tmp_path, dog), test_mode=True)
    with pytest.raises(ValueError, match=r"has other classes than .*'cow'.*exactly one category named 'cow', got 0"):
        align_dataset(run_with(dataset), "val", TRAIN)
    found = aligned(run_with(dataset), NamedClasses(("cat",), "train_dataloader.dataset"))
    assert found.metainfo["classes"] == ("cat",)
    assert found.get_data_info(0)["instances"] == []


def test_align_dataset__a_parent_category_without_objects(tmp_path: Path) -> None:
    """A category that stands for all others takes a class in both splits, or in none."""
    dog = dict(category_id=7, segmentation=polygon(0, 0, 4, 6))
    arguments = write_objects(tmp_path, dog)
    with_parent = [dict(id=0, name="animals"), *(dict(id=c["id"], name=c["name"]) for c in CATEGORIES[1:3])]
    change_json(tmp_path, lambda content: content.update(categories=with_parent))
    runner = run_with(dict(type="mmseg_m2f.CocoInstance", **arguments, test_mode=True))
    found = aligned(runner, NamedClasses(("cat", "dog"), "train_dataloader.dataset"))
    assert (found.metainfo["classes"], found.get_data_info(0)["instances"][0]["bbox_label"]) == (("cat", "dog"), 1)


def test_align_dataset__stuff_left_out_and_foreign_metrics_are_refused(tmp_path: Path) -> None:
    panoptic = dict(type="mmseg_m2f.CocoPanoptic", **write_panoptic(tmp_path / "p"), things_only=True)
    with pytest.raises(ValueError, match="things_only=True, metainfo.classes would make stuff void"):
        align_dataset(run_with(panoptic), "val", NamedClasses(("dog", "cat"), "train_dataloader.dataset"))
    dog = dict(category_id=7, segmentation=polygon(0, 0, 4, 6))
    objects = dict(type="mmseg_m2f.CocoInstance", **write_objects(tmp_path / "o", dog))
    metric = type("CocoMetric", (), dict(__module__="mmdet.evaluation.metrics.coco_metric"))()
    runner = run_with(objects, metrics=(metric,))
    with pytest.raises(ValueError, match="CocoMetric numbers classes in the order of its own annotation file"):
        align_dataset(runner, "val", NamedClasses(("dog", "cat"), "train_dataloader.dataset"))


def test_align_dataset__the_same_names_touch_nothing(tmp_path: Path) -> None:
    dog = dict(category_id=7, segmentation=polygon(0, 0, 4, 6))
    runner = run_with(dict(type="mmseg_m2f.CocoInstance", **write_objects(tmp_path, dog)))
    loader = runner.val_dataloader
    for expected in (None, NamedClasses(("cat", "dog"), "x"), NamedClasses(("Cat", "dog "), "x")):
        align_dataset(runner, "val", expected)
    assert runner.val_loop.dataloader is loader


def test_check_category_order__mmdet_follows_the_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images/0.png")
    content = dict(
        categories=[dict(id=1, name="cat"), dict(id=2, name="dog")],
        images=[dict(id=1, file_name="0.png", height=6, width=8)],
        annotations=[
            dict(id=1, image_id=1, category_id=2, bbox=[0, 0, 4, 6], area=24, segmentation=polygon(0, 0, 4, 6))
        ],
    )
    (tmp_path / "objects.json").write_text(json.dumps(content))
    for classes, fits in ((("cat", "dog"), True), (("dog", "cat"), False)):
        dataset = DATASETS.build(
            dict(
                type="mmdet.CocoDataset",
                data_root=str(tmp_path),
                ann_file="objects.json",
                data_prefix=dict(img="images"),
                metainfo=dict(classes=classes),
            )
        )
        if fits:
            check_category_order(dataset, loop="train")
        else:
            with pytest.raises(ValueError, match=r"CocoDataset numbers .*\['cat', 'dog'\], but .* is \['dog', 'cat'\]"):
                check_category_order(dataset, loop="train")


def test_checkpoint_classes__where_mmengine_stores_them() -> None:
    stored = dict(meta=dict(dataset_meta=dict(classes=("cat", "dog"))))
    assert checkpoint_classes(stored, source="a.pth") == NamedClasses(("cat", "dog"), "checkpoint a.pth")
    assert checkpoint_classes(dict(state_dict={}), source="a.pth") is None


def test_check_same_classes__shows_the_first_difference() -> None:
    many = NamedClasses(tuple(f"c{i}" for i in range(20)), "train_dataloader.dataset")
    swapped = NamedClasses((*many.names[:15], "c16", "c15", *many.names[17:]), "checkpoint a.pth")
    with pytest.raises(ValueError, match=r"same classes in another order.*'c15', 'c16'.*number 15 differs.* Do that\."):
        check_same_classes(many, swapped, remedy="Do that.")
    check_same_classes(many, None, remedy="")


def test_check_initial_classes__order_is_refused_and_others_are_said() -> None:
    swapped = NamedClasses(("dog", "cat", "cow"), "checkpoint a.pth")
    with pytest.raises(ValueError, match="replace_classifier=True"):
        check_initial_classes(TRAIN, swapped)
    with pytest.warns(UserWarning, match=r"has other classes than checkpoint a.pth"):
        check_initial_classes(TRAIN, NamedClasses(("car", "road", "sky"), "checkpoint a.pth"))
    check_initial_classes(TRAIN, NamedClasses(("car",), "checkpoint a.pth"))


def test_matching_rows__by_name() -> None:
    stored = ["Traffic Light", "car", "N/A", "N/A", "Car"]
    assert matching_rows(["car", "traffic-light", "bus", "N/A", "CAR"], stored) == [1, 0, None, None, None]
