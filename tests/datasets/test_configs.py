"""The dataset ingredients under configs/_base_/datasets."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS, METRICS, MODELS, TRANSFORMS, VISBACKENDS, VISUALIZERS
from mmengine.runner import Runner
from mmengine.structures import PixelData
from PIL import Image

from tests.datasets.coco_data import polygon, write_ids, write_image

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "_base_" / "datasets").glob("*.py"))
OBJECT_WORDS = ("instance", "panoptic", "objects", "detection", "dsb2018")
SEMANTIC = [path for path in CONFIGS if not any(word in path.stem for word in OBJECT_WORDS)]
COMPLETE = [path for path in SEMANTIC if path.stem not in ("common", "loaders", "recipe_512")]
OBJECTS = [path for path in CONFIGS if path not in SEMANTIC and not path.stem.startswith("common")]
KEYS = (
    *("num_classes", "crop_size", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("val_evaluator", "test_evaluator", "data_preprocessor", "tta_pipeline"),
)


def load(path: Path) -> Config:
    return Config.fromfile(path)


def types(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "type" in node:
            yield node["type"]
        if "resize_type" in node:
            yield node["resize_type"]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    for child in children:
        yield from types(child)


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_dataset_config__has_the_agreed_keys(path: Path) -> None:
    cfg = load(path)
    assert [key for key in KEYS if key not in cfg] == []
    assert tuple(cfg.data_preprocessor.size) == tuple(cfg.crop_size)
    assert cfg.test_dataloader == cfg.val_dataloader


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_dataset_config__names_registered_parts_with_their_scope(path: Path) -> None:
    registries = (DATASETS, TRANSFORMS, METRICS, MODELS, DATA_SAMPLERS, VISUALIZERS, VISBACKENDS)
    for name in set(types(load(path).to_dict())):
        assert name.partition(".")[0] in ("mmengine", "mmseg", "mmseg_m2f"), name
        assert any(registry.get(name) for registry in registries), name


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_dataset_config__class_count_is_the_dataset_s(path: Path, tmp_path: Path) -> None:
    cfg = load(path)
    for dataset in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        changes: dict[str, object] = {}
        if "data_prefix" in dataset:  # one of mmseg's readers looks for the folder even when lazy
            (tmp_path / dataset.data_prefix.img_path).mkdir(parents=True, exist_ok=True)
            changes = dict(data_root=str(tmp_path), lazy_init=True)
        metainfo = DATASETS.build(dict(dataset, **changes)).metainfo
        assert len(metainfo["classes"]) == len(metainfo["palette"]) == cfg.num_classes


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_dataset_config__augmentation_pipeline_builds(path: Path) -> None:
    for transform in load(path).tta_pipeline:
        TRANSFORMS.build(transform)


@pytest.mark.parametrize(("name", "short", "longest"), [("ade20k_512", 512, 2048), ("ade20k_640", 640, 2560)])
def test_dataset_config__ade20k_geometry_is_the_published_one(name: str, short: int, longest: int) -> None:
    cfg = load(ROOT / f"configs/_base_/datasets/{name}.py")
    pipeline = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    resize = pipeline["mmengine.RandomChoiceResize"]
    assert (min(resize.scales), max(resize.scales), resize.max_size) == (short // 2, short * 2, longest)
    assert pipeline["mmseg.RandomCrop"].crop_size == (short, short)


def test_dataset_config__recipe_for_other_data_is_ade20k_s() -> None:
    recipe, ade20k = (load(ROOT / f"configs/_base_/datasets/{name}.py") for name in ("recipe_512", "ade20k_512"))
    for key in ("train_pipeline", "test_pipeline", "tta_pipeline", "crop_size", "data_preprocessor", "val_evaluator"):
        assert recipe[key] == ade20k[key]
    assert [recipe.load_image, recipe.load_labels] == recipe.train_pipeline[:2]


def test_dataset_config__generated_scenes_of_training_and_validation_differ() -> None:
    cfg = load(ROOT / "configs/_base_/datasets/shapes.py")
    assert cfg.train_dataloader.dataset.seed != cfg.val_dataloader.dataset.seed


def test_dataset_config__generated_views_keep_the_truth_in_the_first() -> None:
    cfg = load(ROOT / "configs/_base_/datasets/shapes.py")
    plain = DATASETS.build(cfg.val_dataloader.dataset)[3]["data_samples"].gt_sem_seg.data
    views = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=cfg.tta_pipeline))[3]["data_samples"]
    assert len(views) == 4
    assert torch.equal(views[0].gt_sem_seg.data, plain)


def write_camvid(root: Path) -> None:
    """Two images of every split in CamVid's layout and size, all 11 classes and void (11) in each."""
    labels = np.tile(np.arange(12, dtype=np.uint8).repeat(40), (360, 1))
    for split in ("train", "val"):
        for kind, suffix, pixels in (
            ("images", "jpg", np.stack([labels * 20] * 3, -1)),
            ("annotations", "png", labels),
        ):
            folder = root / kind / split
            folder.mkdir(parents=True)
            for name in ("a", "b"):
                Image.fromarray(pixels).save(folder / f"{name}.{suffix}")


def test_dataset_config__camvid_batches_load(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    cfg = load(ROOT / "configs/_base_/datasets/camvid_360x480.py")
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(tmp_path)
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        built = Runner.build_dataloader(loader, seed=0)
        assert len(built.dataset) == 2
        batch = next(iter(built))
        labels = [sample.gt_sem_seg.data for sample in batch["data_samples"]]
        assert all(set(label.unique().tolist()) <= {*range(11), 255} for label in labels)
    # The validation set is not resized: void is what was 11, and nothing else moved.
    assert [tuple(image.shape) for image in batch["inputs"]] == [(3, 360, 480)] * 2
    expected = torch.arange(12).repeat_interleave(40)
    assert torch.equal(labels[0][0, 0], expected.where(expected != 11, 255))


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_object_config__pipelines_and_evaluators_build(path: Path) -> None:
    cfg = load(path)
    for loop in ("train", "val", "test"):
        for transform in cfg[f"{loop}_dataloader"].dataset.pipeline:
            TRANSFORMS.build(transform)
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for evaluator in evaluators:
        if evaluator.type != "mmdet.CocoMetric":  # reads the annotation file
            METRICS.build(evaluator)
    names = [evaluator.type for evaluator in evaluators]
    assert cfg.test_evaluator == cfg.val_evaluator
    assert cfg.test_dataloader == cfg.val_dataloader
    if "instance" in path.stem:
        assert names == ["mmseg_m2f.MaskAP"]
    if "panoptic" in path.stem:
        assert names == ["mmseg_m2f.PanopticQuality", "mmseg_m2f.MaskAP", "mmseg_m2f.SemanticIoU"]
        assert evaluators[0].thing_classes == cfg.thing_classes
        assert 0 < len(cfg.thing_classes) < cfg.num_classes


def write_for(dataset: Config, root: Path, num_classes: int, thing_classes: list[int]) -> None:
    """One image of 48 x 64 pixels where the dataset of a config looks for it: a thing on the left, else stuff."""
    things = [index in thing_classes for index in range(num_classes)]
    categories = [dict(id=i + 1, name=f"class {i}", isthing=int(thing)) for i, thing in enumerate(things)]
    images = [dict(id=7, file_name="a.jpg", height=48, width=64)]
    stuff = things.index(False) if False in things else 0
    segments = [dict(id=300, category_id=thing_classes[0] + 1), dict(id=70001, category_id=stuff + 1)]
    annotation = dict(image_id=7, file_name="a.png", segments_info=segments)
    write_image(root / dataset.data_prefix.img_path / "a.jpg", (48, 64))
    if "seg_map_path" in dataset.data_prefix:
        ids = np.tile(np.where(np.arange(64) < 32, 300, 70001), (48, 1))
        write_ids(root / dataset.data_prefix.seg_map_path / "a.png", ids)
    else:
        annotation = dict(id=1, image_id=7, category_id=thing_classes[0] + 1, segmentation=polygon(0, 0, 32, 48))
    content = dict(categories=categories, images=images, annotations=[annotation])
    (root / dataset.ann_file).parent.mkdir(parents=True, exist_ok=True)
    (root / dataset.ann_file).write_text(json.dumps(content))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize(
    "name",
    [
        *("coco_panoptic_1024", "coco_panoptic_800", "coco_instance_1024", "ade20k_panoptic_640"),
        *("ade20k_instance_640", "mapillary_panoptic_1024"),
    ],
)
def test_object_config__samples_load(name: str, tmp_path: Path) -> None:
    cfg = load(ROOT / f"configs/_base_/datasets/{name}.py")
    things = cfg.get("thing_classes") or list(range(cfg.num_classes))
    for loop in ("train", "val"):
        dataset = cfg[f"{loop}_dataloader"].dataset
        write_for(dataset, tmp_path, cfg.num_classes, things)
        built = DATASETS.build(dataset | dict(data_root=str(tmp_path)))
        assert len(built.metainfo["classes"]) == cfg.num_classes
        assert list(built.metainfo["thing_ids"]) == things
        item = built[0]
        sample = item["data_samples"]
        assert set(sample.gt_instances.labels.tolist()) <= {things[0]}
        if loop == "train" and "800" not in name and "instance" not in name:
            assert item["inputs"].shape[1:] == sample.gt_segments.segment_map.shape[1:] == cfg.crop_size[::-1]
    assert sample.ori_shape == (48, 64)
    assert sample.gt_instances.labels.tolist() == [things[0]]
    masks = sample.gt_instances.masks
    masks = masks if isinstance(masks, torch.Tensor) else masks.to_tensor(torch.bool, "cpu")
    assert masks[0, :, :32].all()
    assert not masks[0, :, 32:].any()


def test_object_config__listed_segment_without_a_pixel_reaches_the_metric(tmp_path: Path) -> None:
    cfg = load(ROOT / "configs/_base_/datasets/coco_panoptic_1024.py")
    dataset = cfg.val_dataloader.dataset
    write_for(dataset, tmp_path, cfg.num_classes, cfg.thing_classes)
    file = tmp_path / dataset.ann_file
    content = json.loads(file.read_text())
    content["annotations"][0]["segments_info"] += [dict(id=5, category_id=3), dict(id=6, category_id=133)]
    file.write_text(json.dumps(content))
    built = DATASETS.build(dataset | dict(data_root=str(tmp_path)))
    sample = built[0]["data_samples"]
    assert sample.absent_segments == (2, 132)
    perfect = torch.full((1, 48, 64), 1000 + cfg.thing_classes[0])
    perfect[..., 32:] = 80
    sample.pred_panoptic_seg = PixelData(sem_seg=perfect)
    metric = METRICS.build(cfg.val_evaluator[0])
    metric.dataset_meta = built.metainfo
    metric.process({}, [sample.to_dict()])
    assert metric.evaluate(size=1)["PQ"] == 0.5  # two of four classes


@pytest.mark.parametrize(("name", "car"), [("panoptic", 13), ("instance", 2)])
def test_object_config__cityscapes_loads_as_published(name: str, car: int, tmp_path: Path) -> None:
    cfg = load(ROOT / f"configs/_base_/datasets/cityscapes_{name}_512x1024.py")
    ids = np.tile(np.asarray([7, 26000, 26001, 26], np.uint16).repeat(512), (1024, 1))  # road, two cars, a crowd
    for split in ("train", "val"):
        write_image(tmp_path / f"leftImg8bit/{split}/town/a_leftImg8bit.png", (1024, 2048))
        (tmp_path / f"gtFine/{split}/town").mkdir(parents=True)
        Image.fromarray(ids).save(tmp_path / f"gtFine/{split}/town/a_gtFine_instanceIds.png")
        built = DATASETS.build(cfg[f"{split}_dataloader"].dataset | dict(data_root=str(tmp_path)))
        assert len(built.metainfo["classes"]) == cfg.num_classes
        assert built.metainfo["classes"][car] == "car"
        item = built[0]
        if split == "train":
            assert item["inputs"].shape == (3, *cfg.crop_size)
    sample = item["data_samples"]
    assert sample.gt_instances.labels.tolist() == [car, car]
    assert sample.gt_instances.masks.sum((1, 2)).tolist() == [1024 * 512] * 2
    assert sample.ignored_instances.labels.tolist() == [car]
    assert ("gt_sem_seg" in sample) == (name == "panoptic")


def test_object_config__mapillary_things_are_the_published_37() -> None:
    names = load(ROOT / "configs/_base_/datasets/mapillary_1024.py").dataset_metainfo.classes
    things = [names[i] for i in load(ROOT / "configs/_base_/datasets/mapillary_panoptic_1024.py").thing_classes]
    assert len(things) == 37
    assert (things[0], things[2], things[3], things[-1]) == ("Bird", "Crosswalk - Plain", "Person", "Wheeled Slow")
    assert not {"Pothole", "On Rails", "Ego Vehicle", "Water"} & set(things)


def test_object_config__generated_objects_are_those_of_the_panoptic_scenes() -> None:
    objects, scenes = (
        load(ROOT / f"configs/_base_/datasets/shapes_{kind}.py").val_dataloader.dataset
        for kind in ("instance", "panoptic")
    )
    objects, scenes = DATASETS.build(objects), DATASETS.build(scenes)
    assert objects.metainfo["classes"] == scenes.metainfo["classes"][3:]
    assert objects.metainfo["palette"] == scenes.metainfo["palette"][3:]
    for index in range(3):
        ours, theirs = objects[index]["data_samples"], scenes[index]["data_samples"]
        assert (ours.gt_instances.labels + 3).tolist() == theirs.gt_instances.labels.tolist()
        assert torch.equal(ours.gt_instances.masks, theirs.gt_instances.masks)
        assert "gt_sem_seg" not in ours
