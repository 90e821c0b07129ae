"""What ingredients of `configs/_base_` are made of: pipelines, loaders and schedules that differ in a few numbers.

Every function gives new dicts, as a config would write them. Sizes of crops are (height, width), scales of mmengine's
`Resize` are (longest side, shortest side) or (width, height).
"""

from collections.abc import Iterable, Mapping, Sequence

Transform = Mapping[str, object]
Size = tuple[int, int]

_TTA_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def poly_schedule(
    max_iters: int, *, power: float = 0.9, warmup: int = 0, warmup_factor: float = 1e-6, val_interval: int = 5000
) -> tuple[int, list[dict], dict]:
    """Linear warm-up over `warmup` iterations, then polynomial decay to 0: `lr = base (1 - i / max_iters)^power`.

    Returns:
        `max_iters`, `param_scheduler` and `train_cfg`.
    """
    rise = dict(type="mmengine.LinearLR", start_factor=warmup_factor, begin=0, end=warmup, by_epoch=False)
    fall = dict(type="mmengine.PolyLR", eta_min=0.0, power=power, begin=warmup, end=max_iters, by_epoch=False)
    return max_iters, [rise, fall] if warmup else [fall], dict(max_iters=max_iters, val_interval=val_interval)


def step_schedule(max_iters: int, *, milestones: Sequence[int], warmup: int = 0) -> tuple[int, list[dict], dict]:
    """Linear warm-up over `warmup` iterations; the learning rate is divided by 10 at each milestone.

    Returns:
        `max_iters`, `param_scheduler` and `train_cfg`.
    """
    rise = dict(type="mmengine.LinearLR", start_factor=1e-6, begin=0, end=warmup, by_epoch=False)
    steps = dict(
        type="mmengine.MultiStepLR", milestones=[*milestones], gamma=0.1, begin=0, end=max_iters, by_epoch=False
    )
    return max_iters, [rise, steps] if warmup else [steps], dict(max_iters=max_iters)


def loaders(
    train_pipeline: Sequence[Transform],
    test_pipeline: Sequence[Transform],
    *,
    both: Mapping[str, object] | None = None,
    train: Mapping[str, object] | None = None,
    val: Mapping[str, object] | None = None,
) -> tuple[dict, dict, dict]:
    """What a data set adds to the data loaders of `loaders.py`.

    Args:
        both: Arguments of the datasets for training and for tests; without it, only the pipelines change.
        train: Further ones of the dataset for training; `val` those for validation and tests.

    Returns:
        `train_dataloader`, `val_dataloader` and `test_dataloader`.
    """
    testing = {} if both is None else dict(test_mode=True)
    trained = dict(both or {}, **(train or {}), pipeline=list(train_pipeline))
    tested = dict(both or {}, **(val or {}), pipeline=list(test_pipeline), **testing)
    return dict(dataset=trained), dict(dataset=tested), dict(dataset=tested)


def resize(scale: Size, *, by: str = "mmengine.Resize") -> Transform:
    """Resize so that the image fits into a scale, at its own aspect ratio."""
    return dict(type=by, scale=scale, keep_ratio=True)


def draw_short_side(side: int, steps: Iterable[int] = range(5, 21)) -> Transform:
    """Resize the shorter side to one of `side` × 0.1 × steps; the longer one is at most 4 `side`."""
    return choose_short_side([int(side * 0.1 * step) for step in steps], max_size=4 * side)


def choose_short_side(scales: Iterable[int], *, max_size: int) -> Transform:
    """Resize the shorter side to one of the scales; the longer one is at most `max_size`."""
    return dict(
        type="mmengine.RandomChoiceResize",
        resize_type="mmseg.ResizeShortestEdge",
        scales=list(scales),
        max_size=max_size,
    )


def draw_ratio(scale: Size, *, lowest: float = 0.5, by: str | None = None) -> Transform:
    """Resize to a scale times a ratio drawn from `lowest`…2."""
    named = {} if by is None else dict(resize_type=by)
    return dict(type="mmengine.RandomResize", scale=scale, ratio_range=(lowest, 2.0), keep_ratio=True, **named)


def random_flip() -> Transform:
    """Mirror every other image."""
    return dict(type="mmengine.RandomFlip", prob=0.5)


def vary_colours() -> Transform:
    """Change brightness, contrast, saturation and hue (SSD)."""
    return dict(type="mmseg.PhotoMetricDistortion")


def label_map_pipelines(
    crop_size: Size,
    *,
    draw: Transform,
    test_resize: Sequence[Transform],
    views_resize: Transform | None = None,
    void_labels: Sequence[int] = (),
) -> tuple[list[Transform], list[Transform], list[Transform]]:
    """Pipelines for label maps: crops, flips and colours in training; tests at one size, or averaged over views.

    Args:
        draw: The random resize before the crop.
        test_resize: What changes the size in tests. Labels keep theirs: they are loaded afterwards.
        views_resize: The size at ratio 1 of test-time augmentation; the first of `test_resize` if not given.
        void_labels: Label values that become void.

    Returns:
        `train_pipeline`, `test_pipeline` and `tta_pipeline`.
    """
    ignore = [dict(type="mmseg_m2f.IgnoreLabels", labels=list(void_labels))] if void_labels else []
    load_labels = _checked(dict(type="mmseg_m2f.LoadLabelMap"), *ignore)
    pack = dict(type="mmseg.PackSegInputs")
    train = [
        _load_image(),
        load_labels,
        draw,
        dict(type="mmseg.RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
        random_flip(),
        vary_colours(),
        pack,
        dict(type="mmseg_m2f.ListClasses"),
    ]
    at_ratio_1 = views_resize or test_resize[0]
    transforms = [
        [_scaled(at_ratio_1, ratio) for ratio in _TTA_RATIOS],
        *([step] for step in test_resize[1:]),
        [dict(type="mmengine.RandomFlip", prob=prob) for prob in (0.0, 1.0)],
        [load_labels],
        [pack],
    ]
    views: list[Transform] = [_load_image(), dict(type="mmengine.TestTimeAug", transforms=transforms)]
    return train, [_load_image(), *test_resize, load_labels, pack], views


def segment_pipelines(
    vary: Sequence[Transform],
    *,
    test_resize: Sequence[Transform],
    load: str = "mmseg_m2f.LoadPanoptic",
    only_things: Sequence[int] | None = None,
) -> tuple[list[Transform], list[Transform]]:
    """Pipelines for maps of segments (panoptic files, Cityscapes): objects and stuff as one map.

    Args:
        vary: What changes images and segments in training.
        test_resize: What changes the size in tests. Segments keep theirs: they are loaded afterwards.
        load: The transform that reads the segments.
        only_things: Classes that stay, renumbered from 0 in this order; the others are background.

    Returns:
        `train_pipeline` and `test_pipeline`.
    """
    load_segments = _checked(dict(type=load))
    to_objects: Transform = dict(type="mmseg_m2f.SegmentsToObjects")
    to_objects_for_test = to_objects
    if only_things is not None:
        to_objects = dict(type=to_objects["type"], thing_classes=list(only_things))
        to_objects_for_test = dict(to_objects, ignore_void=False)
    meta_keys = ("img_path", "ori_shape", "img_shape", "stuff_classes")
    pack = dict(type="mmdet.PackDetInputs", meta_keys=meta_keys)
    pack_for_test = dict(pack, meta_keys=(*meta_keys, "absent_segments"))
    train = [_load_image(), load_segments, *vary, to_objects, pack, dict(type="mmseg_m2f.CompactSegments")]
    return train, [_load_image(), *test_resize, load_segments, to_objects_for_test, pack_for_test]


def crops_of_segments(crop_size: Size, *, short_side: int, pad: bool = False) -> list[Transform]:
    """A random size, a crop, colours and flips; with `pad`, an image below the size of the crop is padded to it."""
    crop = dict(type="mmseg.RandomCrop", crop_size=crop_size)
    steps = [draw_short_side(short_side), crop, vary_colours(), random_flip()]
    return [*steps, pad_segments(crop_size)] if pad else steps


def jitter_segments(crop_size: Size) -> list[Transform]:
    """Large-scale jitter: 0.1…2 times the size of the crop, then cropped or padded to it."""
    crop = dict(type="mmseg.RandomCrop", crop_size=crop_size)
    return [random_flip(), draw_ratio(crop_size, lowest=0.1, by="mmengine.Resize"), crop, pad_segments(crop_size)]


def choose_or_crop_segments(*, longest: int) -> list[Transform]:
    """DETR's: a short side of 480…800 at most `longest` long; half of the time a crop of 384…600 comes first."""
    short_side = choose_short_side(range(480, 801, 32), max_size=longest)
    crop = dict(type="mmdet.RandomCrop", crop_size=(384, 600), crop_type="absolute_range")
    crop_first = [choose_short_side((400, 500, 600), max_size=4200), crop]
    choice = dict(type="mmengine.RandomChoice", transforms=[[short_side], [*crop_first, short_side]])
    return [random_flip(), choice]


def pad_segments(size: Size) -> Transform:
    """Pad to (width, height); here and not in the preprocessor, so that padding is void for all targets."""
    return dict(type="mmengine.Pad", pad_val=dict(img=128, seg=255), size=size)  # grey as published


def panoptic_metrics(thing_classes: Sequence[int]) -> list[dict]:
    """Panoptic quality, mask AP and mIoU."""
    return [
        dict(type="mmseg_m2f.PanopticQuality", thing_classes=list(thing_classes)),
        dict(type="mmseg_m2f.MaskAP"),
        dict(type="mmseg_m2f.SemanticIoU"),
    ]


def object_pipelines(
    vary: Sequence[Transform], *, test_resize: Sequence[Transform], boxes_only: bool = False
) -> tuple[list[Transform], list[Transform]]:
    """Pipelines for objects, with masks unless `boxes_only`; tests give boxes at the size of the original image.

    Objects that `vary` emptied are dropped; images without any object stay and teach what is none.

    Returns:
        `train_pipeline` and `test_pipeline`.
    """
    masks = {} if boxes_only else dict(with_mask=True)
    load: Transform = dict(type="mmdet.LoadAnnotations", with_bbox=True, **masks)
    keep = dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), keep_empty=False)
    finish: list[Transform] = [keep if boxes_only else dict(keep, by_mask=True), dict(type="mmdet.PackDetInputs")]
    if not boxes_only:
        finish.append(dict(type="mmseg_m2f.CompactSegments"))
    meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    pack_for_test = dict(type="mmdet.PackDetInputs", meta_keys=meta_keys)
    return [_load_image(), load, *vary, *finish], [_load_image(), *test_resize, load, pack_for_test]


def jitter_objects(crop_size: Size) -> list[Transform]:
    """Large-scale jitter: 0.1…2 times the size of the crop, then cropped; the preprocessor pads."""
    return [flip_objects(), draw_ratio(crop_size, lowest=0.1, by="mmdet.Resize"), crop_objects(crop_size)]


def crop_objects(crop_size: Size, **changes: object) -> Transform:
    """A random crop; one without objects is kept."""
    return dict(type="mmdet.RandomCrop", recompute_bbox=True, allow_negative_crop=True, crop_size=crop_size, **changes)


def magnify_objects(crop_size: Size, *, factors: Sequence[float]) -> Transform:
    """A random crop, magnified by one of the factors to at most `crop_size`; the preprocessor pads."""
    return dict(type="mmseg_m2f.MagnifiedCrop", crop_size=crop_size, factors=list(factors))


def vary_objects() -> Transform:
    """Change brightness, contrast, saturation and hue (SSD) of images with objects."""
    return dict(type="mmdet.PhotoMetricDistortion")


def flip_objects(**changes: object) -> Transform:
    """Mirror every other image, with its objects."""
    return dict(type="mmdet.RandomFlip", prob=0.5) | changes


def pad_batch(size: Size) -> dict:
    """Settings of mmdet's preprocessor that pad every batch to one size."""
    pad = dict(type="mmdet.BatchFixedSizePad", size=size, img_pad_value=0, pad_mask=False, pad_seg=False)
    return dict(batch_augments=[pad])


def _checked(*transforms: Transform) -> Transform:
    """Reading that names the file at fault: missing, truncated, or with unknown labels."""
    return dict(type="mmseg_m2f.CheckedLoading", transforms=list(transforms))


def _load_image() -> Transform:
    return _checked(dict(type="mmengine.LoadImageFromFile", imdecode_backend="pillow"))


def _scaled(transform: Mapping[str, object], ratio: float) -> Transform:
    """A resize with its sizes times a ratio."""
    sizes = {key: transform[key] for key in ("scale", "max_size") if key in transform}
    return dict(transform) | {
        key: int(value * ratio) if isinstance(value, int) else tuple(int(side * ratio) for side in value)  # type: ignore[attr-defined]
        for key, value in sizes.items()
    }
