"""The dataset ingredients under configs/_base_/datasets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "_base_" / "datasets").glob("*.py"))
SEMANTIC = [path for path in CONFIGS if "mmdet." not in path.read_text() and "instance" not in path.stem]
COMPLETE = [path for path in SEMANTIC if path.stem not in ("common", "loaders") and not path.stem.startswith("recipe")]
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
    registries = (DATASETS, TRANSFORMS, METRICS, MODELS, DATA_SAMPLERS)
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
def test_object_config__pipelines_and_evaluator_build(path: Path) -> None:
    cfg = load(path)
    for loop in ("train", "val", "test"):
        for transform in cfg[f"{loop}_dataloader"].dataset.pipeline:
            TRANSFORMS.build(transform)
    assert cfg.val_evaluator.type.partition(".")[0] in ("mmdet", "mmseg_m2f")
    assert cfg.test_evaluator == cfg.val_evaluator
    assert cfg.num_classes > 0
