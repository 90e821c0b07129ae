import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from mmseg_m2f.datasets import GeneratedShapes

PACK = dict(type="mmseg.PackSegInputs")


def test_generated_shapes__is_found_by_its_scoped_name() -> None:
    dataset = DATASETS.build(dict(type="mmseg_m2f.GeneratedShapes", length=2, seed=1, image_size=[48, 64]))
    assert dataset[1]["img"].shape == (48, 64, 3)


def test_generated_shapes__names_samples_and_sets_what_a_loader_would() -> None:
    item = GeneratedShapes(20, 3)[17]
    assert item["img_path"] == item["seg_map_path"] == "shapes(seed=3, index=17).png"
    assert item["sample_idx"] == 17
    assert item["ori_shape"] == item["img_shape"] == (96, 96)
    assert item["seg_fields"] == ["gt_seg_map"]
    assert item["reduce_zero_label"] is False


def test_generated_shapes__metainfo_splits_the_classes() -> None:
    metainfo = GeneratedShapes(1).metainfo
    assert len(metainfo["classes"]) == len(metainfo["palette"]) == 8
    assert metainfo["stuff_ids"] + metainfo["thing_ids"] == tuple(range(8))


def test_generated_shapes__labels_of_all_tasks_agree() -> None:
    item = GeneratedShapes(5)[4]
    categories = np.array([*(s.category for s in item["segments"]), 255])
    np.testing.assert_array_equal(categories[item["segment_map"]], item["gt_seg_map"])


def test_generated_shapes__seeds_share_no_scene() -> None:
    train, val = (GeneratedShapes(30, seed) for seed in (0, 1))
    assert not {i["img"].tobytes() for i in train} & {i["img"].tobytes() for i in val}


def test_generated_shapes__flip_and_packing_move_image_and_labels_alike() -> None:
    plain = GeneratedShapes(3, pipeline=[PACK])[2]
    flipped = GeneratedShapes(3, pipeline=[dict(type="mmengine.RandomFlip", prob=1.0), PACK])[2]
    assert torch.equal(flipped["inputs"], plain["inputs"].flip(-1))
    truth = plain["data_samples"].gt_sem_seg.data
    assert truth.shape == (1, 96, 96)
    assert torch.equal(flipped["data_samples"].gt_sem_seg.data, truth.flip(-1))
    assert flipped["data_samples"].img_path == "shapes(seed=0, index=2).png"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_generated_shapes__workers_draw_the_same_scenes(num_workers: int) -> None:
    dataset = GeneratedShapes(6, 5, pipeline=[PACK])
    loader = DataLoader(dataset, batch_size=3, num_workers=num_workers, collate_fn=pseudo_collate)
    images = [image for batch in loader for image in batch["inputs"]]
    assert len(images) == 6
    assert all(torch.equal(image, dataset[i]["inputs"]) for i, image in enumerate(images))


def test_generated_shapes__subset_keeps_its_scenes() -> None:
    dataset = GeneratedShapes(10)
    assert dataset.get_subset([7])[0]["img_path"] == "shapes(seed=0, index=7).png"


def test_generated_shapes__survives_pickling() -> None:
    dataset = GeneratedShapes(4, 2, pipeline=[PACK])
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["inputs"], dataset[3]["inputs"])


@pytest.mark.parametrize("wrong", [dict(length=0), dict(seed=-1), dict(image_size=(16, 96))])
def test_generated_shapes__refuses_wrong_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"GeneratedShapes: expected .* got length=.*Change the dataset config"):
        GeneratedShapes(**{"length": 4} | wrong)


def test_get_cat_ids__classes_of_the_scene() -> None:
    dataset = GeneratedShapes(length=1)
    labels = dataset.get_data_info(0)["gt_seg_map"]
    assert dataset.get_cat_ids(0) == [label for label in np.unique(labels).tolist() if label != 255]
