"""Batches that a model cannot take: one image below batch norm, images of different sizes side by side."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from mmseg_m2f.engine.class_agreement import leaf_datasets
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import is_remote

_SIZES_TRIED = 8


def smallest_batch(loader: DataLoader) -> int:
    """How many images the smallest batch of a loader has: the last of an epoch may have fewer than the others."""
    sampler = loader.batch_sampler
    size = loader.batch_size or cast(int, getattr(sampler, "batch_size", 1))
    endless = any(type(s).__name__.startswith("Infinite") for s in (loader.sampler, sampler))
    if endless or getattr(sampler, "drop_last", True):
        return size
    return min(len(loader.sampler) % size or size, size)  # type: ignore[arg-type]


def guard_batch_norms(model: nn.Module, loader: DataLoader) -> list[RemovableHandle]:
    """Let the first pass raise ValueError where batch norm will see one value per channel; torch says so without a key.

    Nothing is watched where every batch has two images or more, or batch norm is synchronised over ranks.

    Returns:
        What ends the watch.
    """
    smallest = smallest_batch(loader)
    if smallest > 1:
        return []
    synchronised = get_world_size() > 1

    def watch(name: str, norm: _BatchNorm) -> RemovableHandle:
        def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training and inputs[0].numel() == inputs[0].shape[0] * inputs[0].shape[1]:
                raise InvalidValueError(_batch_norm_message(name, loader))

        return norm.register_forward_pre_hook(check)

    return [
        watch(name, module)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not (synchronised and isinstance(module, nn.SyncBatchNorm))
    ]


def check_equal_sizes(runner: Runner, model: nn.Module, *, loop: str) -> None:
    """Raise ValueError where a batch of the loop would hold images of different sizes and the model cannot pad them.

    Sizes are read from the files' headers; where they differ, the pipeline shows what it makes of each of a few sizes.
    """
    loader: DataLoader = getattr(runner, f"{loop}_dataloader")
    size = loader.batch_size or 1
    if size == 1 or type(getattr(model, "data_preprocessor", None)).__name__ != "SegDataPreProcessor":
        return  # mmdet's preprocessor pads, and its models know how far
    for leaf in leaf_datasets(loader.dataset):
        shapes: dict[object, str] = {}
        for index, path in list(_one_of_each_size(leaf))[:_SIZES_TRIED]:
            shapes.setdefault(_shape_of(leaf[index]), path)  # type: ignore[index]
        if len(shapes) > 1:
            (first, file), (second, other) = list(shapes.items())[:2]
            raise InvalidValueError(
                f"{loop}_dataloader.batch_size is {size}, but its images come out of the pipeline in different sizes "
                f"({file}: {first}, {other}: {second}; height x width), and the model does not pad them; expected one "
                f"size. Set {loop}_dataloader.batch_size=1, or resize to one size (keep_ratio=False) in the pipeline."
            )


def _one_of_each_size(dataset: object) -> Iterator[tuple[int, str]]:
    """Index and path of the first image file of each size."""
    if not hasattr(dataset, "get_data_info"):
        return
    known = set()
    for index in range(len(dataset)):  # type: ignore[arg-type]
        path = dataset.get_data_info(index).get("img_path")
        if not isinstance(path, str) or is_remote(path) or not Path(path).is_file():
            return
        try:
            with Image.open(path) as image:
                size = image.size
        except (OSError, Image.DecompressionBombError):
            continue  # loading names the file
        if size not in known:
            known.add(size)
            yield index, path


def _shape_of(sample: Mapping) -> str:
    """Height and width of the image, or of each view of test-time augmentation."""
    inputs = sample["inputs"]
    views = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return ", ".join(f"{view.shape[-2]} x {view.shape[-1]}" for view in views if isinstance(view, torch.Tensor))


def _batch_norm_message(name: str, loader: DataLoader) -> str:
    size = loader.batch_size or 1
    if size == 1:
        found = "train_dataloader.batch_size is 1"
        remedy = "Set train_dataloader.batch_size=2 or more"
    else:
        found = (
            f"train_dataloader.batch_size is {size}, but {len(loader.sampler)} samples leave a last batch of "  # type: ignore[arg-type]
            "one image in each epoch"
        )
        remedy = "Set train_dataloader.drop_last=True"
    return (
        f"{found}, and batch norm '{name}' sees one value per channel there (its map is 1 x 1); expected two values or "
        f"more. {remedy}, or a norm that does not average over the batch: norm_cfg=dict(type='GN', num_groups=32)."
    )
