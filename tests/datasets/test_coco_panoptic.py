"""Panoptic data in COCO's format."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset

from mmseg_m2f.datasets import CocoPanoptic
from mmseg_m2f.structures import IGNORE_INDEX
from tests.datasets.coco_data import CATEGORIES, IDS, SEGMENTS, change_json, segment, write_ids, write_panoptic


def test_coco_panoptic__numbers_things_first_without_gaps(tmp_path: Path) -> None:
    dataset = CocoPanoptic(**write_panoptic(tmp_path))
    assert dataset.metainfo["classes"] == ("cat", "dog", "grass", "sky")
    assert (dataset.metainfo["thing_ids"], dataset.metainfo["stuff_ids"]) == ((0, 1), (2, 3))
    assert dataset.metainfo["palette"] == [(200, 0, 0), (0, 0, 200), (0, 200, 0), (0, 200, 200)]
    info = dataset.get_data_info(0)
    assert info["segments_info"] == [
        (70000, 2, False, False),
        (1, 1, True, False),
        (300, 0, True, True),
        (5, 0, True, False),
    ]
    assert (Path(info["img_path"]), Path(info["seg_map_path"])) == (
        tmp_path / "images/0.jpg",
        tmp_path / "segments/0.png",
    )
    assert (info["img_id"], info["height"], info["width"]) == (10, 6, 8)


def test_coco_panoptic__keeps_the_file_s_order(tmp_path: Path) -> None:
    dataset = CocoPanoptic(**write_panoptic(tmp_path), things_first=False)
    assert dataset.metainfo["classes"] == ("grass", "cat", "dog", "sky")
    assert dataset.metainfo["thing_ids"] == (1, 2)


def test_coco_panoptic__takes_classes_and_their_order_from_metainfo(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = write_panoptic(tmp_path)
    dataset = CocoPanoptic(**arguments, metainfo=dict(classes=("grass", "dog"), palette=[(1, 1, 1), (2, 2, 2)]))
    assert dataset.metainfo["thing_ids"] == (1,)
    assert dataset.metainfo["palette"] == [(1, 1, 1), (2, 2, 2)]
    assert [info[1] for info in dataset.get_data_info(0)["segments_info"]] == [0, 1, IGNORE_INDEX, IGNORE_INDEX]
    with pytest.raises(ValueError, match=r"exactly one category named 'gras'.*Nearest: \['grass'\]"):
        CocoPanoptic(**arguments, metainfo=dict(classes=("gras", "dog")))


def test_coco_panoptic__things_only_names_the_things(tmp_path: Path) -> None:
    dataset = CocoPanoptic(**write_panoptic(tmp_path), things_only=True, things_first=False)
    assert dataset.metainfo["classes"] == ("cat", "dog")
    assert [info[1] for info in dataset.get_data_info(0)["segments_info"]] == [2, 1, 0, 0]


def test_coco_panoptic__needs_to_know_the_things(tmp_path: Path) -> None:
    silent = [dict(id=entry["id"], name=entry["name"]) for entry in CATEGORIES]
    arguments = write_panoptic(tmp_path, categories=silent)
    with pytest.raises(ValueError, match=r"data\.json, categories: expected isthing.*'grass'.*thing_classes=\["):
        CocoPanoptic(**arguments)
    dataset = CocoPanoptic(**arguments, thing_classes=["dog"])
    assert dataset.metainfo["classes"] == ("dog", "grass", "cat", "sky")
    assert "palette" not in dataset.metainfo
    with pytest.raises(ValueError, match=r"thing_classes, got \['dgo'\]"):
        CocoPanoptic(**arguments, thing_classes=["dgo"])


def test_coco_panoptic__filters_in_training_alone(tmp_path: Path) -> None:
    crowd_only = [segment(300, 3, iscrowd=1)]
    arguments = write_panoptic(tmp_path, ids=[IDS, IDS], segments=[SEGMENTS, crowd_only])
    assert len(CocoPanoptic(**arguments)) == 2
    assert len(CocoPanoptic(**arguments, drop_empty=True)) == 1
    assert len(CocoPanoptic(**arguments, drop_empty=True, min_size=9, test_mode=True)) == 2
    stuff_only = write_panoptic(tmp_path, ids=[IDS, IDS], segments=[SEGMENTS, [segment(70000, 90)]])
    lengths = [len(CocoPanoptic(**stuff_only, drop_empty=True, things_only=flag)) for flag in (False, True)]
    assert lengths == [2, 1]
    with pytest.raises(ValueError, match=r"expected images to train on, got 2, .*min_size=7 leave none"):
        CocoPanoptic(**arguments, min_size=7)
    with pytest.raises(ValueError, match="got filter_cfg="):
        CocoPanoptic(**arguments, filter_cfg=dict(filter_empty_gt=True))


def test_coco_panoptic__says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr("mmseg_m2f.datasets.coco_files.print_log", lambda text, **_: lines.append(text))
    arguments = write_panoptic(tmp_path, ids=[IDS, IDS], segments=[SEGMENTS, [segment(300, 3, iscrowd=1)]])
    change_json(tmp_path, lambda c: c["images"].append(dict(id=99, file_name="bare.jpg", height=6, width=8)))
    assert len(CocoPanoptic(**arguments, drop_empty=True, metainfo=dict(classes=("dog",)))) == 1
    text = "\n".join(lines)
    assert "1 images left out: no entry in annotations (bare.jpg)" in text
    assert "1 images left out: nothing annotated (1.jpg)" in text
    assert "4 segments are void: their categories are not in metainfo.classes (70000, 300, 5, 300)" in text


def test_coco_panoptic__says_what_stuff_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr("mmseg_m2f.datasets.coco_files.print_log", lambda text, **_: lines.append(text))
    several = [segment(70000, 90), segment(1, 90, iscrowd=1), segment(300, 3), segment(5, 3)]
    CocoPanoptic(**write_panoptic(tmp_path, segments=[several]))
    assert any(
        "1 stuff classes listed as several segments of an image, merged into one (grass of 0.jpg)" in t for t in lines
    )
    assert any("1 segments of stuff with iscrowd=1" in text and "(1)" in text for text in lines)


def rename_category(content: dict) -> None:
    content["annotations"][0]["segments_info"][0]["category_id"] = 4


def repeat_id(content: dict) -> None:
    content["annotations"][0]["segments_info"][0]["id"] = 5


def drop_height(content: dict) -> None:
    del content["images"][0]["height"]


def point_nowhere(content: dict) -> None:
    content["annotations"][0]["image_id"] = 11


def repeat_entry(content: dict) -> None:
    content["annotations"] *= 2


def repeat_image(content: dict) -> None:
    content["images"] *= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_category, r"category_id \(\[3, 7, 90, 91\] …\), got 4"),
        (repeat_id, r"image 0\.jpg: expected each segment id once.*got \[5\]"),
        (drop_height, r"images: expected entries with .*file_name='0\.jpg'.* without height"),
        (point_nowhere, r"expected the id of an image as image_id, got 11"),
        (repeat_image, r"images: expected each id once, got \[10\]"),
        (repeat_entry, r"annotations: expected one entry for each image, got several for the images \[10\]"),
        (
            lambda content: content["annotations"].clear(),
            r"expected images with an entry in `annotations`, got none among",
        ),
        (lambda content: content.pop("categories"), r"got \['annotations', 'images'\]. Add categories"),
    ],
)
def test_coco_panoptic__names_the_entry_at_fault(tmp_path: Path, change: object, message: str) -> None:
    arguments = write_panoptic(tmp_path)
    change_json(tmp_path, change)
    with pytest.raises(ValueError, match=rf"data\.json.*{message}"):
        CocoPanoptic(**arguments)


def test_coco_panoptic__names_a_missing_or_broken_file(tmp_path: Path) -> None:
    arguments = write_panoptic(tmp_path)
    (tmp_path / "data.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"data\.json: expected a complete COCO file, got no JSON"):
        CocoPanoptic(**arguments)
    with pytest.raises(FileNotFoundError, match=r"other\.json does not exist"):
        CocoPanoptic(**arguments | dict(ann_file="other.json"))


def test_coco_panoptic__refuses_more_classes_than_label_maps_hold(tmp_path: Path) -> None:
    many = [dict(id=i, name=str(i), isthing=0) for i in range(256)]
    with pytest.raises(ValueError, match="at most 255 classes"):
        CocoPanoptic(**write_panoptic(tmp_path, segments=[[]], categories=many))


COCO_PIPELINE = [
    dict(type="mmengine.LoadImageFromFile"),
    dict(type="mmseg_m2f.LoadPanoptic"),
    dict(type="mmseg_m2f.SegmentsToObjects"),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_path",)),
]


def test_coco_panoptic__equals_mmdet_s_dataset(tmp_path: Path) -> None:
    """The same objects, crowds and labels as mmdet reads, on COCO's own categories."""
    from mmdet.datasets import CocoPanopticDataset

    names = CocoPanopticDataset.METAINFO["classes"]
    colours = CocoPanopticDataset.METAINFO["palette"]
    categories = [dict(id=2 * i + 1, name=n, isthing=int(i < 80), color=colours[i]) for i, n in enumerate(names)]
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 11, 700, 70001, 99999], size=(6, 8))
    infos = [
        segment(i, 2 * c + 1, iscrowd=crowd, bbox=[0, 0, 8, 6], area=1)
        for i, c, crowd in ((11, 4, 0), (700, 4, 1), (70001, 79, 0), (99999, 90, 0))
    ]
    arguments = write_panoptic(tmp_path, ids=[ids], segments=[infos], categories=categories)
    ours = CocoPanoptic(**arguments, pipeline=COCO_PIPELINE)
    assert list(ours.metainfo["classes"]) == list(names)
    assert ours.metainfo["palette"] == [tuple(colour) for colour in colours]
    found = ours[0]["data_samples"]
    assert found.gt_instances.labels.tolist() == [4, 79]
    assert found.ignored_instances.labels.tolist() == [4]
    assert [mask.numpy().tolist() for mask in found.gt_instances.masks] == [
        (ids == 11).tolist(),
        (ids == 70001).tolist(),
    ]
    theirs = CocoPanopticDataset(
        data_root=str(tmp_path),
        ann_file="data.json",
        data_prefix=dict(img="images", seg="segments"),
    ).get_data_info(0)
    assert {info["id"]: info["category"] for info in theirs["segments_info"]} == {
        info[0]: info[1] for info in ours.get_data_info(0)["segments_info"]
    }


def test_coco_panoptic__more_than_255_segments_survive_the_transforms(tmp_path: Path) -> None:
    """Flipped, enlarged, cropped and padded, each of 300 segments keeps its class, and padding is void."""
    ids = np.arange(1, 301).reshape(15, 20)
    infos = [segment(i, 3) for i in range(1, 301)]
    arguments = write_panoptic(tmp_path, ids=[ids], segments=[infos], size=(15, 20))
    pipeline = [
        *COCO_PIPELINE[:2],
        dict(type="mmengine.RandomFlip", prob=1.0),
        dict(type="mmengine.Resize", scale=(40, 30)),
        dict(type="mmseg.RandomCrop", crop_size=(30, 40)),
        dict(type="mmengine.Pad", size=(42, 31)),
        *COCO_PIPELINE[2:],
    ]
    sample = CocoPanoptic(**arguments, pipeline=pipeline)[0]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [0] * 300
    assert sample.gt_instances.masks.sum((1, 2)).tolist() == [4] * 300
    assert sample.gt_instances.masks[:, :2, 38:40].flatten(1).all(1).nonzero().tolist() == [[0]]  # flipped
    assert (sample.gt_sem_seg.sem_seg[0, 30:] == IGNORE_INDEX).all()
    assert (sample.gt_sem_seg.sem_seg[0, :, 40:] == IGNORE_INDEX).all()
    assert (sample.gt_sem_seg.sem_seg[0, :30, :40] == 0).all()


def test_coco_panoptic__label_of_another_size_is_refused(tmp_path: Path) -> None:
    arguments = write_panoptic(tmp_path)
    write_ids(tmp_path / "segments/0.png", IDS[:5])
    loading = dict(type="mmseg_m2f.CheckedLoading", transforms=COCO_PIPELINE[:2])
    with pytest.raises(ValueError, match=r"0\.png is 5 x 8 \(height x width\), but image .*0\.jpg is 6 x 8"):
        CocoPanoptic(**arguments, pipeline=[loading])[0]


@pytest.mark.parametrize("flag", [2, "1", 0.5, None])
def test_coco_panoptic__flags_are_zero_or_one(tmp_path: Path, flag: object) -> None:
    arguments = write_panoptic(tmp_path, segments=([segment(5, 3, iscrowd=flag)],))
    with pytest.raises(ValueError, match=r"0\.jpg: expected 0, 1, true or false as iscrowd, got"):
        CocoPanoptic(**arguments)
    arguments = write_panoptic(tmp_path, categories=[dict(CATEGORIES[0], isthing=flag), *CATEGORIES[1:]])
    with pytest.raises(ValueError, match=r"categories: expected 0, 1, true or false as isthing, got"):
        CocoPanoptic(**arguments)


@pytest.mark.parametrize(
    ("infos", "message"), [({}, "segments_info as a list"), ([segment("5", 3)], "an integer as id")]
)
def test_coco_panoptic__types_of_segments(tmp_path: Path, infos: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.json.*expected {message}"):
        CocoPanoptic(**write_panoptic(tmp_path, segments=(infos,)))


@pytest.mark.parametrize("name", [True, 3, ["0.png"]])
def test_coco_panoptic__name_of_a_png_that_is_none(tmp_path: Path, name: object) -> None:
    arguments = write_panoptic(tmp_path)
    change_json(tmp_path, lambda content: content["annotations"][0].update(file_name=name))
    with pytest.raises(ValueError, match=r"0\.jpg: expected the name of a PNG as file_name of its annotation, got"):
        CocoPanoptic(**arguments)


def test_get_cat_ids__classes_of_segments(tmp_path: Path) -> None:
    """In the file: grass, dog, a crowd of cats, a cat."""
    arguments = write_panoptic(tmp_path, ids=[IDS, IDS], segments=[SEGMENTS, SEGMENTS[1:2]])
    dataset = CocoPanoptic(**arguments)
    assert [sorted(dataset.get_cat_ids(index)) for index in range(2)] == [[0, 1, 2], [1]]
    assert sorted(CocoPanoptic(**arguments, things_only=True).get_cat_ids(0)) == [0, 1]
    # Cat and grass are in half of the images: the first one repeats √(2 / 1) ≈ 1.4, rounded up.
    assert len(ClassBalancedDataset(dataset, oversample_thr=1.0)) == 3
