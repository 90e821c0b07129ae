"""Objects in COCO's format."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from PIL import Image

from mmseg_m2f.datasets import CocoInstance
from tests.datasets.coco_data import change_json, polygon, write_objects

# pycocotools, which mmdet draws masks with, is older than numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

LOADING = [
    dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmengine.LoadImageFromFile")]),
    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
]
PACKING = dict(type="mmdet.PackDetInputs", meta_keys=("img_path",))
CAT, DOG = dict(category_id=3), dict(category_id=7)
LEFT, RIGHT = dict(segmentation=polygon(0, 0, 4, 6)), dict(segmentation=polygon(4, 0, 8, 6))


def test_coco_instance__needs_neither_area_nor_box(tmp_path: Path) -> None:
    arguments = write_objects(tmp_path, DOG | RIGHT, CAT | LEFT | dict(bbox=[0, 0, 4, 6], area=24), num_images=2)
    dataset = CocoInstance(**arguments, pipeline=[*LOADING, PACKING])
    assert dataset.metainfo["classes"] == ("cat", "dog")
    sample = dataset[0]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [1, 0]
    masks = sample.gt_instances.masks.masks
    assert masks.sum((1, 2)).tolist() == [24, 24]
    assert masks[0, :, 4:].all()
    assert sample.gt_instances.bboxes.tensor.tolist() == [[4, 0, 8, 6], [0, 0, 4, 6]]
    assert dataset[1]["data_samples"].gt_instances.masks.masks.shape == (0, 6, 8)


def test_coco_instance__classes_are_numbered_as_metainfo_lists_them(tmp_path: Path) -> None:
    """mmdet's dataset numbers them as the file does, whatever the order of the names."""
    arguments = write_objects(tmp_path, DOG | RIGHT, CAT | LEFT)
    labels = [i["bbox_label"] for i in CocoInstance(**arguments).get_data_info(0)["instances"]]
    swapped = CocoInstance(**arguments, metainfo=dict(classes=("dog", "cat"))).get_data_info(0)["instances"]
    assert (labels, [i["bbox_label"] for i in swapped]) == ([1, 0], [0, 1])
    with pytest.raises(ValueError, match=r"exactly one category named 'cow', got 0.*It has: \['cat', 'dog'\]"):
        CocoInstance(**arguments, metainfo=dict(classes=("cow",)))


def test_coco_instance__crowds_are_ignored_objects(tmp_path: Path) -> None:
    rle = dict(size=[6, 8], counts=[24, 24])  # the right half: run lengths go down the columns
    arguments = write_objects(tmp_path, CAT | dict(segmentation=rle, bbox=[4, 0, 4, 6], iscrowd=1))
    sample = CocoInstance(**arguments, pipeline=[*LOADING, PACKING])[0]["data_samples"]
    assert len(sample.gt_instances.labels) == 0
    assert sample.ignored_instances.labels.tolist() == [0]
    assert np.array_equal(sample.ignored_instances.masks.masks[0], np.tile(np.arange(8) >= 4, (6, 1)))
    with pytest.raises(ValueError, match="drop_empty=True and min_size=0 leave none"):
        CocoInstance(**arguments, drop_empty=True)


def test_coco_instance__objects_without_a_polygon_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    monkeypatch.setattr("mmseg_m2f.datasets.coco_files.print_log", lambda text, **_: lines.append(text))
    line = [1, 1, 5, 5]
    arguments = write_objects(
        tmp_path, CAT | dict(segmentation=[line]), CAT | dict(segmentation=[line, *polygon(0, 0, 4, 6)]), DOG | LEFT
    )
    instances = CocoInstance(**arguments, metainfo=dict(classes=("cat",))).get_data_info(0)["instances"]
    assert [len(instance["mask"]) for instance in instances] == [1]
    text = "\n".join(lines)
    assert "1 objects left out: no polygon of three points or more (0)" in text
    assert "1 objects left out: their categories are not in metainfo.classes (2)" in text


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (
            dict(segmentation=dict(size=[8, 6], counts=[48])),
            r"run lengths of the image's size .*\[6, 8\], got \[8, 6\]",
        ),
        (dict(segmentation=[0, 0, 4, 0, 4, 6]), r"a list of polygons .*got \[0, 0, 4, 0, 4, 6\]"),
        (dict(segmentation=[[0, 0, 4, 0, 4, 6, 1]]), "as many x as y"),
        (dict(bbox=[0, 0, 4, 6]), "without segmentation"),
        (dict(segmentation=dict(counts=[48])), "without size"),
    ],
)
def test_coco_instance__names_the_annotation_at_fault(tmp_path: Path, annotation: dict, message: str) -> None:
    arguments = write_objects(tmp_path, CAT | annotation)
    with pytest.raises(ValueError, match=rf"data\.json.*{message}"):
        CocoInstance(**arguments)


def test_coco_instance__file_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.json: expected images in `images`, got none among 0 images"):
        CocoInstance(**write_objects(tmp_path, num_images=0))


def test_coco_instance__unknown_category(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"category_id \(\[3, 7\] …\), got 4. Add the category"):
        CocoInstance(**write_objects(tmp_path, dict(category_id=4) | LEFT))


def test_coco_instance__missing_image_and_image_of_another_size(tmp_path: Path) -> None:
    arguments = write_objects(tmp_path, CAT | LEFT)
    change_json(tmp_path, lambda content: content["images"][0].update(height=8, width=6))
    with pytest.raises(ValueError, match=r"0\.jpg is 6 x 8 .*, but its annotation is for 8 x 6"):
        CocoInstance(**arguments, pipeline=LOADING)[0]
    (tmp_path / "images/0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"Image .*0\.jpg does not exist"):
        CocoInstance(**arguments, pipeline=LOADING)[0]


def test_coco_instance__equals_mmdet_s_dataset(tmp_path: Path) -> None:
    from mmdet.datasets import CocoDataset

    box = dict(bbox=[1, 1, 5, 4], area=20, iscrowd=0)
    crowd = dict(segmentation=dict(size=[6, 8], counts=[24, 24]), bbox=[4, 0, 4, 6], area=24, iscrowd=1)
    arguments = write_objects(tmp_path, CAT | box | dict(segmentation=polygon(1, 1, 6, 5)), DOG | crowd)
    theirs = CocoDataset(
        data_root=str(tmp_path),
        ann_file="data.json",
        data_prefix=dict(img="images"),
        metainfo=dict(classes=("cat", "dog")),
        pipeline=[*LOADING, PACKING],
    )[0]["data_samples"]
    ours = CocoInstance(**arguments, pipeline=[*LOADING, PACKING])[0]["data_samples"]
    for field in ("gt_instances", "ignored_instances"):
        assert (ours.get(field).labels == theirs.get(field).labels).all()
        assert (ours.get(field).bboxes.tensor == theirs.get(field).bboxes.tensor).all()
        assert np.array_equal(ours.get(field).masks.masks, theirs.get(field).masks.masks)


def test_coco_instance__becomes_panoptic_with_semantic_maps_beside(tmp_path: Path) -> None:
    """ADE20K's way: objects in a JSON file, classes of all pixels in PNGs."""
    arguments = write_objects(tmp_path, CAT | LEFT)
    arguments["data_prefix"]["seg_map_path"] = "labels"
    (tmp_path / "labels").mkdir()
    labels = np.tile(np.asarray([0, 0, 2, 2, 0, 1, 2, 255], np.uint8), (6, 1))  # 0 grass, 1 dog, 2 cat
    Image.fromarray(labels).save(tmp_path / "labels/0.png")
    pipeline = [
        LOADING[0],
        dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True, with_seg=True),
        dict(type="mmseg_m2f.ObjectsToSegments", thing_classes=[2, 1]),
        dict(type="mmengine.RandomFlip", prob=1.0),
        dict(type="mmseg_m2f.SegmentsToObjects"),
        PACKING,
    ]
    sample = CocoInstance(**arguments, pipeline=pipeline)[0]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [2]
    assert sample.gt_instances.masks[0, 0].tolist() == [False] * 4 + [True] * 4
    assert sample.gt_sem_seg.sem_seg[0, 0].tolist() == [255, 255, 255, 0, 2, 2, 2, 2]


@pytest.mark.parametrize("flag", [2, -1, "1", 0.5, None, [1]])
def test_coco_instance__iscrowd_is_a_flag(tmp_path: Path, flag: object) -> None:
    with pytest.raises(ValueError, match=r"annotation 0: expected 0, 1, true or false as iscrowd, got"):
        CocoInstance(**write_objects(tmp_path, CAT | LEFT | dict(iscrowd=flag)))


def test_coco_instance__iscrowd_as_true_and_false(tmp_path: Path) -> None:
    arguments = write_objects(tmp_path, CAT | LEFT | dict(iscrowd=True), CAT | LEFT | dict(iscrowd=False))
    instances = CocoInstance(**arguments).get_data_info(0)["instances"]
    assert [instance["ignore_flag"] for instance in instances] == [1, 0]


@pytest.mark.parametrize("box", [[0.1, 0.1, 0.5, 0.9], [5, 1, 2, 2], [4, 0, 8, 6], [0, 0, 0, 0], [0, 0, -4, 6]])
def test_coco_instance__box_beside_its_mask_is_replaced(
    tmp_path: Path, box: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mmseg_m2f.datasets.coco_files.print_log", lambda text, **_: lines.append(text))
    rle = dict(segmentation=dict(size=[6, 8], counts=[0, 24, 24]))
    arguments = write_objects(tmp_path, *(CAT | mask | dict(bbox=box) for mask in (LEFT, rle)))
    instances = CocoInstance(**arguments).get_data_info(0)["instances"]
    assert [instance["bbox"] for instance in instances] == [[0, 0, 4, 6]] * 2
    said = ["boxes replaced by those around the masks" in line for line in lines]
    assert said == ([] if box == [0, 0, 0, 0] else [True])


@pytest.mark.parametrize("box", ["0 0 4 6", [0, 0, 4], [0, 0, 4, None], [0, 0, float("nan"), 6], [0, 0, 10**400, 6]])
def test_coco_instance__box_that_is_none(tmp_path: Path, box: object) -> None:
    with pytest.raises(ValueError, match=r"annotation 0: expected bbox=\[left, top, width, height\] in pixels, got"):
        CocoInstance(**write_objects(tmp_path, CAT | LEFT | dict(bbox=box)))


def test_coco_instance__ids_of_the_file_are_told(tmp_path: Path) -> None:
    dataset = CocoInstance(**write_objects(tmp_path, CAT | LEFT), metainfo=dict(classes=("dog", "cat")))
    assert dataset.metainfo["category_ids"] == (7, 3)
    assert dataset.get_data_info(0)["img_id"] == 10


def test_get_cat_ids__balances_classes(tmp_path: Path) -> None:
    cat, dog = CAT | LEFT | dict(image_id=10), DOG | LEFT | dict(image_id=11)
    crowd = CAT | LEFT | dict(image_id=12, iscrowd=1)
    arguments = write_objects(tmp_path, cat, dog, crowd, num_images=5)
    dataset = CocoInstance(**arguments)
    assert [dataset.get_cat_ids(index) for index in range(3)] == [[0], [1], []]
    # Each class is in one of five images: repeated √(0.8 / 0.2) = 2 times.
    assert len(ClassBalancedDataset(dataset, oversample_thr=0.8)) == 2 + 2 + 3
