"""Tiny data sets in COCO's formats, written to a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Ids have gaps, and stuff comes first in the file.
CATEGORIES = [
    dict(id=90, name="grass", isthing=0, color=[0, 200, 0]),
    dict(id=3, name="cat", isthing=1, color=[200, 0, 0]),
    dict(id=7, name="dog", isthing=1, color=[0, 0, 200]),
    dict(id=91, name="sky", isthing=0, color=[0, 200, 200]),
]


def write_image(path: Path, size: tuple[int, int] = (6, 8)) -> None:
    """A grey image of height and width `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(path)


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Segment ids as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(ids)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)


def segment(segment_id: int, category_id: int, **more: object) -> dict:
    return dict(id=segment_id, category_id=category_id) | more


#: Left to right: void, a dog, grass, a crowd of cats, a cat; ids that need all three colours.
IDS = np.tile(np.asarray([0, 1, 1, 70000, 70000, 300, 300, 5]), (6, 1))
SEGMENTS = [segment(70000, 90), segment(1, 7), segment(300, 3, iscrowd=1), segment(5, 3)]


def write_panoptic(
    root: Path,
    *,
    ids: Sequence[np.ndarray] = (IDS,),
    segments: Sequence[list[dict]] = (SEGMENTS,),
    categories: list[dict] = CATEGORIES,
    size: tuple[int, int] = (6, 8),
) -> dict:
    """A panoptic data set, and the arguments of `CocoPanoptic` that read it."""
    images, annotations = [], []
    for index, (map_, infos) in enumerate(zip(ids, segments, strict=True)):
        write_image(root / f"images/{index}.jpg", size)
        write_ids(root / f"segments/{index}.png", map_)
        images.append(dict(id=10 + index, file_name=f"{index}.jpg", height=size[0], width=size[1]))
        annotations.append(dict(image_id=10 + index, file_name=f"{index}.png", segments_info=infos))
    write_json(root, categories=categories, images=images, annotations=annotations)
    return dict(data_root=str(root), ann_file="data.json", data_prefix=dict(img_path="images", seg_map_path="segments"))


def polygon(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def write_objects(root: Path, *annotations: dict, num_images: int = 1) -> dict:
    """An instance data set of 8 x 6 pixels per image, and the arguments of `CocoInstance` that read it."""
    for index in range(num_images):
        write_image(root / f"images/{index}.jpg")
    write_json(
        root,
        categories=[dict(id=3, name="cat"), dict(id=7, name="dog")],
        images=[dict(id=10 + i, file_name=f"{i}.jpg", height=6, width=8) for i in range(num_images)],
        annotations=[dict(id=n, image_id=10) | annotation for n, annotation in enumerate(annotations)],
    )
    return dict(data_root=str(root), ann_file="data.json", data_prefix=dict(img_path="images"))


def write_json(root: Path, **content: object) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.json").write_text(json.dumps(content))


def change_json(root: Path, change: object) -> None:
    """Apply a function to the content of `data.json`."""
    content = json.loads((root / "data.json").read_text())
    change(content)
    (root / "data.json").write_text(json.dumps(content))
