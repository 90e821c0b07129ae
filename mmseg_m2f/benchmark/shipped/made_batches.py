"""Generated batches for the models of upstream's configs: noise with a rectangle for each object."""

from collections.abc import Iterator, Mapping
from importlib import import_module

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData

_VIDEO = "TrackDataPreprocessor"
_BRANCHES = "MultiBranchDataPreprocessor"  # of semi-supervised detectors
_IMAGES, _FRAMES, _OBJECTS = 2, 2, 3


def make_batch(cfg: Config, *, side: int, training: bool, dtype: torch.dtype = torch.uint8) -> dict[str, object]:
    """What the model's data preprocessor takes: `inputs` and `data_samples` of two images of side × side pixels.

    A test batch holds one image. Semi-supervised detectors train on three branches, here of the same images. Labels lie
    below the smallest class count that the model names, semantic labels include the number of its thing classes, so
    that a panoptic model has something and somewhere.
    """
    generator = torch.Generator().manual_seed(0)
    num_images = _IMAGES if training else 1
    scope = cfg.get("default_scope")
    preprocessor = str((cfg.model.get("data_preprocessor") or {}).get("type", "")).rpartition(".")[2]
    if preprocessor == _VIDEO:
        return _video_batch(cfg, side, training, generator)
    images = [torch.randint(0, 256, (3, side, side), generator=generator).to(dtype) for _ in range(num_images)]
    make = _segmentation_sample if scope == "mmseg" else _detection_sample
    samples = [make(cfg, side, generator) for _ in range(num_images)]
    if preprocessor == _BRANCHES and training:
        branches = ("sup", "unsup_teacher", "unsup_student")
        return dict(
            inputs={branch: list(images) for branch in branches},
            data_samples={branch: [sample.clone() for sample in samples] for branch in branches},
        )
    return dict(inputs=images, data_samples=samples)


def numbers_of(node: object, key: str) -> Iterator[int]:
    """The numbers that any part of a model names `key`."""
    return (value for value in values_of(node, key) if isinstance(value, int) and not isinstance(value, bool))


def values_of(node: object, key: str) -> Iterator[object]:
    """What any part of a config names `key`."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values_of(value, key)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from values_of(item, key)


def _has_part(node: object, key: str) -> bool:
    """Whether any part of a model is named so."""
    if isinstance(node, Mapping):
        return node.get(key) is not None or any(_has_part(value, key) for value in node.values())
    return isinstance(node, (list, tuple)) and any(_has_part(item, key) for item in node)


def _meta(side: int) -> dict[str, object]:
    size = (side, side)
    return dict(
        img_id=0,
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        img_path="generated.png",
        border=(0, side, 0, side),  # CenterNet's
        homography_matrix=np.eye(3, dtype=np.float32),  # from the full image to that of a branch
        text="object . thing .",
        custom_entities=False,
        category_id=0,
    )


def _segmentation_sample(cfg: Config, side: int, generator: torch.Generator) -> BaseDataElement:
    classes = max(min(numbers_of(cfg.model, "num_classes"), default=2), 1)
    sample = import_module("mmseg.structures").SegDataSample(metainfo=_meta(side))
    labels = torch.randint(0, classes, (1, side // 16, side // 16), generator=generator)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    sample.gt_sem_seg = PixelData(data=labels)
    sample.gt_edge_map = PixelData(data=(labels != labels.roll(1, 2)).long())
    sample.gt_depth_map = PixelData(data=torch.rand(1, side, side, generator=generator) + 0.5)
    return sample


def _objects(cfg: Config, side: int, generator: torch.Generator) -> InstanceData:
    """Rectangles of a quarter to a half of the image."""
    masks = import_module("mmdet.structures.mask").BitmapMasks
    counts = [count for count in numbers_of(cfg.model, "num_classes") if count > 1]
    corners = torch.randint(0, side // 2, (_OBJECTS, 2), generator=generator)
    sizes = torch.randint(side // 4, side // 2, (_OBJECTS, 2), generator=generator)
    boxes = torch.cat([corners, corners + sizes], 1)
    maps = torch.zeros(_OBJECTS, side, side, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(maps, boxes.tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    objects = InstanceData(
        bboxes=boxes.float(),
        labels=torch.randint(0, min(counts, default=1), (_OBJECTS,), generator=generator),
        instances_ids=torch.arange(_OBJECTS),
    )
    if _loads_masks(cfg):  # RTMDet takes masks, where there are some, in a form that only its own pipeline gives
        objects.masks = masks(maps.numpy(), side, side)
    return objects


def _loads_masks(cfg: Config) -> bool:
    """Whether the training pipeline reads masks; true of a config without one."""
    loader = cfg.get("train_dataloader")
    types = set(values_of(loader, "type"))
    return "LoadAnnotations" not in types or any(values_of(loader, "with_mask"))


def _detection_sample(cfg: Config, side: int, generator: torch.Generator) -> BaseDataElement:
    structures = import_module("mmdet.structures")
    sample = structures.DetDataSample(metainfo=_meta(side))
    sample.gt_instances = _objects(cfg, side, generator)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    things = max(numbers_of(cfg.model, "num_things_classes"), default=1)
    semantic = torch.zeros(1, side, side, dtype=torch.long)
    semantic[:, side // 2 :] = things  # the first class of stuff
    sample.gt_sem_seg = PixelData(sem_seg=semantic)
    if not _has_part(cfg.model, "rpn_head"):  # Fast R-CNN; other models leave theirs out where a sample has proposals
        sample.proposals = InstanceData(bboxes=sample.gt_instances.bboxes.clone(), scores=torch.ones(_OBJECTS))
    return sample


def _video_batch(cfg: Config, side: int, training: bool, generator: torch.Generator) -> dict[str, object]:
    structures = import_module("mmdet.structures")
    frames = [_detection_sample(cfg, side, generator) for _ in range(_FRAMES)]
    for index, frame in enumerate(frames):
        frame.set_metainfo(dict(frame_id=index, video_id=0, ori_video_length=_FRAMES))
    track = structures.TrackDataSample()
    track.video_data_samples = frames
    indices = dict(key_frames_inds=[0], ref_frames_inds=[1]) if training else dict(video_length=_FRAMES)
    track.set_metainfo(dict(indices, ori_video_length=_FRAMES))
    video = torch.randint(0, 256, (_FRAMES, 3, side, side), generator=generator, dtype=torch.uint8)
    return dict(inputs=[video], data_samples=[track])
