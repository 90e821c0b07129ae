import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmseg_m2f.datasets import CocoInstance
from mmseg_m2f.evaluation import MaskAP
from mmseg_m2f.predictions import ImageResult, Objects, read_result
from mmseg_m2f.predictions.file_names import ImageName, ImageNames
from mmseg_m2f.predictions.palettes import Categories, read_categories
from mmseg_m2f.predictions.result_files import coco_objects, number_segments, write_maps, write_records
from tests.datasets.coco_data import polygon, write_objects
from tests.evaluation.object_samples import object_sample

CATEGORIES = Categories(["sky", "dog"], [(0, 0, 200), (200, 100, 0)], [3, 90])
PANOPTIC = np.array([[0, 0, 1001, 1001], [0, 2001, 2, 1001], [1002, 2, -1, 0]])


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def make_objects(seed: int = 0) -> Objects:
    masks = np.random.default_rng(seed).random((2, 5, 7)) > 0.5
    boxes = np.array([[0.5, 1, 3.25, 4], [2, 2, 4, 5]], np.float32)
    return Objects(np.array([1, 1]), np.array([0.9, 0.25], np.float32), boxes, masks)


def test_number_segments__void_is_zero_and_boxes_are_x_y_width_height() -> None:
    numbered, infos = number_segments(PANOPTIC, [0, 1])
    assert numbered.tolist() == [[1, 1, 2, 2], [1, 3, 0, 2], [0, 0, 0, 1]]
    assert infos[0] == dict(id=1, category_id=0, isthing=0, area=4, bbox=[0, 0, 4, 3], iscrowd=0)
    assert infos[1] == dict(id=2, category_id=1, isthing=1, area=3, bbox=[2, 0, 2, 2], iscrowd=0)
    assert [info["id"] for info in infos] == [1, 2, 3]


def test_number_segments__nothing_recognised() -> None:
    numbered, infos = number_segments(np.full((2, 2), 2), [5, 9])
    assert infos == []
    assert not numbered.any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised within pycocotools.decode
def test_coco_objects__pycocotools_reads_the_masks_back() -> None:
    objects = make_objects()
    entries = coco_objects(objects, [3, 90])
    assert [entry["score"] for entry in entries] == [0.9, 0.25]
    assert [entry["category_id"] for entry in entries] == [90, 90]
    assert entries[0]["bbox"] == [0.5, 1, 2.75, 3]
    decoded = [run_lengths.decode(entry["segmentation"]) for entry in json.loads(json.dumps(entries))]
    np.testing.assert_array_equal(np.stack(decoded), objects.masks)


def test_coco_objects__scores_keep_their_order() -> None:
    close = np.nextafter(np.float32(0.1), np.float32([1, 0])).astype(np.float32)
    entries = coco_objects(make_objects()._replace(scores=close), [3, 90])
    assert [np.float32(entry["score"]) for entry in entries] == close.tolist()
    assert entries[0]["score"] > entries[1]["score"]


def test_results__ids_may_be_texts() -> None:
    entries = coco_objects(make_objects(), ["cat", "n02"])
    assert [entry["category_id"] for entry in entries] == ["n02", "n02"]
    _, infos = number_segments(np.full((2, 2), 1 + 1000), ["cat", "n02"])
    assert [info["category_id"] for info in infos] == ["n02"]


def test_coco_objects__boxes_alone_and_none() -> None:
    assert "segmentation" not in coco_objects(make_objects()._replace(masks=None), [3, 90])[0]
    none = Objects(*(field[:0] for field in make_objects()[:4]))
    assert coco_objects(none, [3, 90]) == []


def test_write__panoptic_png_and_json_belong_together(tmp_path: Path) -> None:
    result = ImageResult((3, 4), panoptic=PANOPTIC)
    record = write_maps(result, tmp_path, name=ImageName("a/b.png", "a/b.jpg", 139), categories=CATEGORIES)
    write_records([record], tmp_path, categories=CATEGORIES)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["images"] == [dict(id=139, file_name="a/b.jpg", height=3, width=4)]
    assert content["categories"][1] == dict(id=90, name="dog", color=[200, 100, 0])
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
        write_maps(ImageResult((5, 7), instances=o), tmp_path, name=ImageName("x.png", n, n), categories=CATEGORIES)
        for n, o in zip(names, found, strict=True)
    ]
    write_records(records, tmp_path, categories=CATEGORIES)
    content = json.loads((tmp_path / "instances.json").read_text())
    assert [entry["image_id"] for entry in content] == ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instances.json"]


def test_write__label_maps_need_no_json(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [255, 1]])
    result = ImageResult((2, 2), semantic=labels)
    record = write_maps(result, tmp_path, name=ImageName("a.png", "a.jpg", 1), categories=CATEGORIES)
    write_records([record], tmp_path, categories=CATEGORIES)
    np.testing.assert_array_equal(read_png(tmp_path / "labels/a.png"), labels)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised within pycocotools
def test_write__cocoeval_finds_our_ap_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Against the data set's own file, whose ids have gaps."""
    generator = np.random.default_rng(0)
    truth = write_objects(tmp_path, *random_rectangles(generator), num_images=4)
    dataset = CocoInstance(**truth, test_mode=True)
    metric, records, names, categories = MaskAP(), [], ImageNames(dataset), read_categories(dataset)
    metric.dataset_meta = dataset.metainfo
    for index in range(4):
        info = dataset.get_data_info(index)
        true = [(i["bbox_label"], decode(i["mask"])) for i in info["instances"]]
        found = [
            (label, float(s), shifted(m, generator)) for (label, m), s in zip(true, generator.random(9), strict=False)
        ]
        sample = object_sample(found, true, size=(6, 8), path=info["img_path"])
        metric.process(None, [sample])
        element = BaseDataElement(metainfo=dict(img_path=info["img_path"]))
        element.pred_instances = InstanceData(**sample["pred_instances"])
        records.append(write_maps(read_result(element), tmp_path, name=names.of(element), categories=categories))
    write_records(records, tmp_path, categories=categories)
    file = COCO(str(tmp_path / "data.json"))
    judged = COCOeval(file, file.loadRes(str(tmp_path / "instances.json")), "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    figures = metric.evaluate(4)
    assert 0.1 < figures["AP"] < 0.9
    assert [figures[name] for name in ("AP", "AP50", "AP75")] == pytest.approx(judged.stats[:3].tolist(), abs=1e-9)


def random_rectangles(generator: np.random.Generator) -> list[dict]:
    corners = [(*generator.integers(0, 3, 2), *generator.integers(4, 7, 2)) for _ in range(12)]
    return [
        dict(
            id=index + 1,  # pycocotools takes the id 0 for none
            image_id=10 + index % 4,
            category_id=(3, 7)[index % 2],
            iscrowd=0,
            area=int((right - left) * (bottom - top)),
            bbox=[int(v) for v in (left, top, right - left, bottom - top)],
            segmentation=[[float(v) for v in polygon(left, top, right, bottom)[0]]],
        )
        for index, (left, top, right, bottom) in enumerate(corners)
    ]


def decode(polygons: list) -> np.ndarray:
    return run_lengths.decode(run_lengths.merge(run_lengths.frPyObjects(polygons, 6, 8))).astype(bool)


def shifted(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.roll(mask, generator.integers(0, 2), 1)
