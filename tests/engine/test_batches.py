"""Batches that a model cannot take."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.registry import DATASETS
from mmseg.models import SegDataPreProcessor
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from mmseg_m2f.engine.batches import check_equal_sizes, guard_batch_norms, smallest_batch
from tests.fake_runner import FakeModel, fake_runner
from tests.tiny_segmentation import tiny_config, write_dataset


def loader(length: int, batch_size: int, *, sampler: type = DefaultSampler, drop_last: bool = False) -> DataLoader:
    data = range(length)
    return DataLoader(data, batch_size=batch_size, sampler=sampler(data), drop_last=drop_last)


@pytest.mark.parametrize(
    ("length", "batch_size", "more", "smallest"),
    [
        (5, 2, {}, 1),
        (6, 2, {}, 2),
        (6, 4, {}, 2),
        (3, 4, {}, 3),
        (5, 2, dict(drop_last=True), 2),
        (5, 2, dict(sampler=InfiniteSampler), 2),
        (5, 1, dict(sampler=InfiniteSampler), 1),
    ],
)
def test_smallest_batch__of_an_epoch(length: int, batch_size: int, more: dict, smallest: int) -> None:
    assert smallest_batch(loader(length, batch_size, **more)) == smallest


def network(norm: nn.Module) -> nn.Module:
    """Batch norm on the map, and `norm` on its mean."""
    return nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), norm)


def test_guard_batch_norms__names_norm_and_key() -> None:
    model, image = network(nn.BatchNorm2d(3)), torch.zeros(1, 3, 4, 4)
    assert len(guard_batch_norms(model, loader(5, 1))) == 2
    with pytest.raises(ValueError, match=r"train_dataloader.batch_size is 1, and batch norm '2' sees one value.*GN"):
        model(image)
    model.eval()(image)


def test_guard_batch_norms__the_last_batch_of_an_epoch_at_the_first() -> None:
    model = network(nn.BatchNorm2d(3))
    watches = guard_batch_norms(model, loader(5, 2))
    with pytest.raises(
        ValueError, match=r"is 2, but 5 samples leave a last batch of one.*train_dataloader.drop_last=True"
    ):
        model(torch.zeros(2, 3, 4, 4))
    for watch in watches:
        watch.remove()
    model(torch.zeros(2, 3, 4, 4))


def test_guard_batch_norms__nothing_to_say() -> None:
    assert guard_batch_norms(network(nn.BatchNorm2d(3)), loader(6, 2)) == []
    model = network(nn.GroupNorm(1, 3))
    guard_batch_norms(model, loader(5, 1))
    model(torch.zeros(1, 3, 4, 4))
    frozen = network(nn.BatchNorm2d(3).eval())
    guard_batch_norms(frozen, loader(5, 1))
    frozen(torch.zeros(1, 3, 4, 4))


def sized(root: Path, *sizes: tuple[int, int], **resize: object) -> object:
    write_dataset(root, count=len(sizes))
    for index, size in enumerate(sizes):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / f"images/{index:03}.png")
        Image.fromarray(np.zeros(size, np.uint8)).save(root / f"labels/{index:03}.png")
    config = tiny_config(root).val_dataloader.dataset
    if resize:
        config.pipeline.insert(1, dict(type="mmengine.Resize", **resize))
    return DATASETS.build(config)


def check(dataset: object, batch_size: int, preprocessor: nn.Module, *, loop: str = "val") -> None:
    batches = DataLoader(dataset, batch_size=batch_size, collate_fn=pseudo_collate)
    runner = fake_runner(**{f"{loop}_dataloader": batches})
    check_equal_sizes(runner, FakeModel(data_preprocessor=preprocessor), loop=loop)


@pytest.mark.parametrize("loop", ["val", "test"])
def test_check_equal_sizes__refuses_what_would_fail_later(tmp_path: Path, loop: str) -> None:
    dataset = sized(tmp_path, (32, 48), (32, 48), (40, 20))
    message = (
        rf"{loop}_dataloader.batch_size is 2.*000.png: 32 x 48, .*002.png: 40 x 20.*{loop}_dataloader.batch_size=1"
    )
    with pytest.raises(ValueError, match=message):
        check(dataset, 2, SegDataPreProcessor(), loop=loop)
    check(dataset, 1, SegDataPreProcessor(), loop=loop)
    check(dataset, 2, nn.Identity(), loop=loop)  # mmdet's preprocessor pads


def test_check_equal_sizes__what_the_pipeline_makes_equal(tmp_path: Path) -> None:
    check(sized(tmp_path, (32, 48), (40, 20), scale=(48, 32), keep_ratio=False), 2, SegDataPreProcessor())
    with pytest.raises(ValueError, match=r"32 x 48, .*48 x 24"):
        check(sized(tmp_path, (32, 48), (40, 20), scale=(48, 32), keep_ratio=True), 2, SegDataPreProcessor())
    check(sized(tmp_path, (32, 48), (32, 48)), 2, SegDataPreProcessor())
    check(DATASETS.build(dict(type="mmseg_m2f.GeneratedShapes", length=2)), 2, SegDataPreProcessor())


def test_check_equal_sizes__views_of_test_time_augmentation(tmp_path: Path) -> None:
    sized(tmp_path, (32, 48), (40, 20))
    config = tiny_config(tmp_path)
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    with pytest.raises(ValueError, match=r"32 x 48, 32 x 48, .*40 x 20, 40 x 20"):
        check(DATASETS.build(config.test_dataloader.dataset), 2, SegDataPreProcessor(), loop="test")
