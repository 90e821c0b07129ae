import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from mmseg_m2f.predictions import ImageResult, Objects
from mmseg_m2f.predictions.result_files import coco_objects, number_segments, write_maps, write_records

CLASSES, PALETTE = ["sky", "dog"], [(0, 0, 200), (200, 100, 0)]
PANOPTIC = np.array([[0, 0, 1001, 1001], [0, 2001, 2, 1001], [1002, 2, -1, 0]])


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def make_objects(seed: int = 0) -> Objects:
    masks = np.random.default_rng(seed).random((2, 5, 7)) > 0.5
    boxes = np.array([[0.5, 1, 3.25, 4], [2, 2, 4, 5]], np.float32)
    return Objects(np.array([1, 1]), np.array([0.9, 0.25], np.float32), boxes, masks)


def test_number_segments__void_is_zero_and_boxes_are_x_y_width_height() -> None:
    numbered, infos = number_segments(PANOPTIC, 2)
    assert numbered.tolist() == [[1, 1, 2, 2], [1, 3, 0, 2], [0, 0, 0, 1]]
    assert infos[0] == dict(id=1, category_id=0, isthing=0, area=4, bbox=[0, 0, 4, 3], iscrowd=0)
    assert infos[1] == dict(id=2, category_id=1, isthing=1, area=3, bbox=[2, 0, 2, 2], iscrowd=0)
    assert [info["id"] for info in infos] == [1, 2, 3]


def test_number_segments__nothing_recognised() -> None:
    numbered, infos = number_segments(np.full((2, 2), 2), 2)
    assert infos == []
    assert not numbered.any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised within pycocotools.decode
def test_coco_objects__pycocotools_reads_the_masks_back() -> None:
    objects = make_objects()
    entries = coco_objects(objects)
    assert [entry["score"] for entry in entries] == [0.9, 0.25]
    assert [entry["category_id"] for entry in entries] == [1, 1]
    assert entries[0]["bbox"] == [0.5, 1, 2.75, 3]
    decoded = [run_lengths.decode(entry["segmentation"]) for entry in json.loads(json.dumps(entries))]
    np.testing.assert_array_equal(np.stack(decoded), objects.masks)


def test_coco_objects__boxes_alone_and_none() -> None:
    assert "segmentation" not in coco_objects(make_objects()._replace(masks=None))[0]
    none = Objects(*(field[:0] for field in make_objects()))
    assert coco_objects(none) == []


def test_write__panoptic_png_and_json_belong_together(tmp_path: Path) -> None:
    prediction = ImageResult((3, 4), panoptic=PANOPTIC)
    record = write_maps(prediction, tmp_path, file="a/b.png", image="a/b.jpg", num_classes=2, palette=PALETTE)
    write_records([record], tmp_path, classes=CLASSES, palette=PALETTE)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["images"] == [dict(id="a/b.jpg", file_name="a/b.jpg", height=3, width=4)]
    assert content["categories"][1] == dict(id=1, name="dog", color=[200, 100, 0])
    (annotation,) = content["annotations"]
    ids = read_png(tmp_path / "panoptic" / annotation["file_name"]).astype(int) @ [1, 256, 65536]
    areas = {info["id"]: info["area"] for info in annotation["segments_info"]}
    assert areas == {number: int((ids == number).sum()) for number in np.unique(ids) if number}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panoptic", "panoptic.json"]


def test_write__objects_of_all_images_in_one_list(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "empty.jpg"]
    found = [make_objects()._replace(masks=None), make_objects()._replace(masks=None)]
    found.append(Objects(*(field[:0] for field in make_objects()[:3])))
    records = [
        write_maps(ImageResult((5, 7), instances=o), tmp_path, file="x.png", image=n, num_classes=2, palette=PALETTE)
        for n, o in zip(names, found, strict=True)
    ]
    write_records(records, tmp_path, classes=CLASSES, palette=PALETTE)
    content = json.loads((tmp_path / "instances.json").read_text())
    assert [entry["image_id"] for entry in content] == ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instances.json"]


def test_write__label_maps_need_no_json(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [255, 1]])
    prediction = ImageResult((2, 2), semantic=labels)
    record = write_maps(prediction, tmp_path, file="a.png", image="a.jpg", num_classes=2, palette=PALETTE)
    write_records([record], tmp_path, classes=CLASSES, palette=PALETTE)
    np.testing.assert_array_equal(read_png(tmp_path / "labels/a.png"), labels)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
