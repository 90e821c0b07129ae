"""A dataset of generated scenes with exact labels for every task; nothing has to be downloaded."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmseg_m2f.datasets.scene import CLASSES, SMALLEST_SIDE, STUFF_CLASSES, draw_scene
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import DATASETS
from mmseg_m2f.structures import IGNORE_INDEX


@DATASETS.register_module()
class GeneratedShapes(BaseDataset):
    """`length` generated scenes: textured regions with things in front of them.

    Scene `i` depends on `(seed, i)` and the size alone: two datasets with the same seed agree on their common
    scenes, two with different seeds share none. Give training and validation different seeds.

    An item enters the pipeline ready: `img` (H W 3, uint8, BGR), `gt_seg_map` (H W, uint8, void 255), the
    shapes and names a loader would set, and for instance and panoptic labels `segment_map` (H W, int16, index
    into `segments`, void -1) and `segments`. Transforms that move pixels know `gt_seg_map` only, so use the
    latter two before any of these.

    Args:
        length: Number of scenes.
        seed: Which collection they come from.
        image_size: Height and width in pixels, at least 32 each.
        segments: Put the segment map (void 255) where transforms look for labels, in `gt_seg_map`, so that they move
            it; `SegmentsToObjects` then makes objects and stuff of it.
        metainfo: Replaces class names and the like, for instance by those of the things alone.
        pipeline: Transforms, as configs or callables.
        test_mode: Fail instead of drawing another sample when the pipeline rejects one.
        lazy_init: List the samples when they are asked for, not now.

    Raises:
        ValueError: `length` below 1, a negative seed, or an image too small for the shapes.
    """

    METAINFO: ClassVar[dict[str, object]] = dict(
        classes=CLASSES,
        palette=[
            (96, 125, 160),
            (140, 170, 120),
            (200, 175, 140),
            (220, 50, 47),
            (250, 200, 40),
            (40, 170, 80),
            (50, 90, 220),
            (180, 60, 200),
        ],
        thing_ids=tuple(range(len(STUFF_CLASSES), len(CLASSES))),
        stuff_ids=tuple(range(len(STUFF_CLASSES))),
    )

    def __init__(
        self,
        length: int,
        seed: int = 0,
        *,
        image_size: Sequence[int] = (96, 96),
        segments: bool = False,
        metainfo: Mapping | None = None,
        pipeline: Sequence[Mapping[str, object] | Callable[[dict], dict | None]] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        if length < 1 or seed < 0 or len(image_size) != 2 or min(image_size) < SMALLEST_SIDE:
            raise InvalidValueError(
                f"GeneratedShapes: expected length >= 1, seed >= 0 and image_size=(height, width) with both "
                f">= {SMALLEST_SIDE}, got length={length}, seed={seed}, image_size={tuple(image_size)}. "
                "Change the dataset config."
            )
        self.length = length
        self.seed = seed
        self.segments = segments
        self.image_size = (int(image_size[0]), int(image_size[1]))
        super().__init__(
            data_prefix={}, metainfo=metainfo, pipeline=list(pipeline), test_mode=test_mode, lazy_init=lazy_init
        )

    def load_data_list(self) -> list[dict]:
        """The scene number of each sample; a subset of the dataset keeps its scenes."""
        return [dict(scene=index) for index in range(self.length)]

    def get_data_info(self, idx: int) -> dict:
        """The sample as the pipeline receives it, with the scene drawn (about 2 ms)."""
        info = super().get_data_info(idx)
        scene = draw_scene(self.seed, info["scene"], size=self.image_size)
        name = f"shapes(seed={self.seed}, index={info['scene']}).png"  # with a suffix, as upstream expects of images
        return info | dict(
            img=scene.image,
            img_shape=self.image_size,
            ori_shape=self.image_size,
            img_path=name,
            seg_map_path=name,
            gt_seg_map=np.where(scene.segment_map < 0, IGNORE_INDEX, scene.segment_map)
            if self.segments
            else scene.semantic,
            seg_fields=["gt_seg_map"],
            reduce_zero_label=False,
            label_map=None,
            segment_map=scene.segment_map,
            segments=scene.segments,
        )

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes of a scene, as `mmengine.ClassBalancedDataset` asks for them."""
        return sorted({segment.category for segment in self.get_data_info(idx)["segments"]})
