"""Annotation files with something wrong, and what they say according to plain loops.

usage: python -m tests.datasets.fuzzing --count 2000 [--first SEED]

Each case is a valid file of objects, of segments, of labels, or a data set of a foreign format, changed in one to three
places. Reading it has to give what an oracle reads out of the same files, or an error of ours that names the file. The
oracle is written without the package: plain loops, pycocotools and PIL for polygons alone. The last line counts the
outcomes; exit status 1 where a case hangs, crashes, raises another error, or gives something else than the oracle.
"""

import argparse
import contextlib
import copy
import faulthandler
import gc
import io
import json
import logging
import random
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_m2f.datasets import CheckedLoading, CocoInstance, CocoPanoptic, LoadLabelMap
from mmseg_m2f.registry import TRANSFORMS
from tests.datasets.coco_data import polygon, segment, write_ids, write_image
from tests.datasets.formats.fuzzing_formats import fuzz_foreign
from tests.datasets.fuzz_outcomes import Invalid, change, need, outcomes, places, spoil_text
from tests.datasets.stored_files import write_grey_png

SECONDS = 20  # of one case
HEIGHT, WIDTH = 6, 8
IMAGE = dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmengine.LoadImageFromFile")])
READ_OBJECTS = [IMAGE, dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)]
READ_SEGMENTS = [
    IMAGE,
    dict(type="mmseg_m2f.CheckedLoading", transforms=[dict(type="mmseg_m2f.LoadPanoptic")]),
    dict(type="mmseg_m2f.SegmentsToObjects"),
]
OBJECTS = (
    dict(id=1, category_id=3, segmentation=polygon(1, 1, 6, 5), bbox=[1, 1, 5, 4], area=20, iscrowd=0),
    dict(id=2, category_id=7, segmentation=[*polygon(0, 0, 3, 2), *polygon(4, 3, 8, 6)], bbox=[0, 0, 8, 6], area=18),
    dict(id=3, category_id=7, segmentation=dict(size=[6, 8], counts=[24, 24]), bbox=[4, 0, 4, 6], area=24, iscrowd=0),
    dict(id=4, category_id=7, segmentation=dict(size=[6, 8], counts="h0h0"), iscrowd=1),
    dict(id=5, category_id=3, segmentation=dict(size=[6, 8], counts=[0, 3, 40, 5]), bbox=[0, 0, 8, 6]),
)
CATEGORIES = (
    dict(id=90, name="grass", isthing=0, color=[0, 200, 0]),
    dict(id=3, name="cat", isthing=1, color=[200, 0, 0]),
    dict(id=7, name="dog", isthing=1),
    dict(id=91, name="sky", isthing=0),
)
IDS = np.tile(np.asarray([0, 1, 1, 70000, 70000, 300, 300, 5]), (HEIGHT, 1))
SEGMENTS = (segment(70000, 90), segment(1, 7), segment(300, 3, iscrowd=1), segment(5, 3, iscrowd=0), segment(9, 7))


class Slow(BaseException):
    """A case ran too long."""


def rearrange(content: dict, draw: random.Random) -> None:
    """Other ids and another order of the same."""
    for key, name in (("categories", "category_id"), ("images", "image_id")):
        new = {entry["id"]: draw.choice([str, int])(draw.randrange(10**6)) for entry in content[key]}
        for entry in content[key]:
            entry["id"] = new[entry["id"]]
        for entry in content["annotations"]:
            for node in (entry, *entry.get("segments_info", ())):
                if name in node:
                    node[name] = new[node[name]]
    for node in (content["categories"], content["images"], content["annotations"]):
        draw.shuffle(node)


def is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def is_id(value: object) -> bool:
    return type(value) is int or is_text(value)


def is_text(value: object) -> bool:
    return isinstance(value, str) and not any(code == "\0" or "\ud800" <= code <= "\udfff" for code in value)


def plain_file(data: bytes) -> dict:
    """Lists and entries of a COCO file, each with the keys and types that COCO says."""
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Invalid from error
    need(isinstance(content, dict))
    for key in ("categories", "images", "annotations"):
        need(isinstance(content.get(key), list) and all(isinstance(entry, dict) for entry in content[key]))
    for key, wanted in (("categories", ("id", "name")), ("images", ("id", "file_name", "height", "width"))):
        need(all(name in entry for entry in content[key] for name in wanted))
        ids = [entry["id"] for entry in content[key]]
        need(all(map(is_id, ids)) and len(set(ids)) == len(ids))
    need(all(is_text(entry["name"]) for entry in content["categories"]))
    names = [entry["name"] for entry in content["categories"]]
    need(len(set(names)) == len(names))
    for image in content["images"]:
        need(is_text(image["file_name"]) and image["file_name"] not in ("", "."))
        need(all(type(image[side]) is int and 0 < image[side] < 2**31 for side in ("height", "width")))
    for category in content["categories"]:
        if "color" in category:
            colour = category["color"]
            need(isinstance(colour, list) and len(colour) == 3)
            need(all(type(v) is int and 0 <= v < 256 for v in colour))
    known = [image["id"] for image in content["images"]]
    need(all(is_id(entry.get("image_id")) and entry["image_id"] in known for entry in content["annotations"]))
    return content


def plain_image(image: dict) -> None:
    need(image["file_name"] in ("0.png", "1.png", "./0.png", "./1.png"))
    need((image["height"], image["width"]) == (HEIGHT, WIDTH))


def plain_flag(entry: dict, key: str) -> bool:
    value = entry.get(key, 0)
    need(type(value) in (int, bool) and value in (0, 1))
    return bool(value)


def plain_runs(counts: object) -> list[int]:
    """COCO's run lengths, from a list or its string, one character after the other."""
    if isinstance(counts, list):
        need(all(type(count) is int for count in counts))
        return counts
    need(isinstance(counts, str) and counts)
    runs, place = [], 0
    while place < len(counts):
        value, shift = 0, 0
        while True:
            need(place < len(counts) and shift <= 25)
            code = ord(counts[place]) - 48
            need(0 <= code < 64)
            value |= (code & 31) << shift
            shift, place = shift + 5, place + 1
            if not code & 32:
                value -= (1 << shift) if code & 16 else 0
                break
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def plain_mask(mask: object) -> np.ndarray | None:
    if isinstance(mask, dict):
        need(mask.get("size") == [HEIGHT, WIDTH] and all(type(side) is int for side in mask["size"]))
        runs = plain_runs(mask.get("counts"))
        need(all(run >= 0 for run in runs) and sum(runs) == HEIGHT * WIDTH)
        pixels = [index % 2 for index, run in enumerate(runs) for _ in range(run)]
        return np.asarray(pixels, bool).reshape(WIDTH, HEIGHT).T
    need(isinstance(mask, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in mask))
    parts = [part for part in mask if len(part) >= 6]
    if not parts:
        return None
    numbers = [value for part in parts for value in part]
    need(all(map(is_number, numbers)))
    xs, ys = [v for part in parts for v in part[::2]], [v for part in parts for v in part[1::2]]
    need(min(xs) >= -WIDTH / 2 and max(xs) <= 1.5 * WIDTH and min(ys) >= -HEIGHT / 2 and max(ys) <= 1.5 * HEIGHT)
    need(not (min(numbers) >= 0 and max(numbers) <= 1))
    from pycocotools import mask as api

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return api.decode(api.merge(api.frPyObjects(parts, HEIGHT, WIDTH))).astype(bool)


def plain_objects(data: bytes) -> dict:
    """By image: class name, crowd, and mask of each object."""
    content = plain_file(data)
    names = {category["id"]: category["name"] for category in content["categories"]}
    found: dict = {image["id"]: [] for image in content["images"]}
    need(found)
    for image in content["images"]:
        plain_image(image)
    for entry in content["annotations"]:
        need(is_id(entry.get("category_id")) and entry["category_id"] in names and "segmentation" in entry)
        box = entry.get("bbox")
        need(box is None or (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))))
        mask, crowd = plain_mask(entry["segmentation"]), plain_flag(entry, "iscrowd")
        if mask is not None:
            found[entry["image_id"]].append((names[entry["category_id"]], crowd, mask.tolist()))
    return {image_id: sorted(objects) for image_id, objects in found.items()}


def plain_segments(data: bytes, png: bytes) -> dict:
    """By image: things as objects, and the class name of each pixel."""
    content = plain_file(data)
    things = {}
    for category in content["categories"]:
        need("isthing" in category)
        things[category["id"]] = plain_flag(category, "isthing")
    names = {category["id"]: category["name"] for category in content["categories"]}
    annotated = [entry["image_id"] for entry in content["annotations"]]
    need(annotated and len(set(annotated)) == len(annotated))
    for image in content["images"]:
        if image["id"] in annotated:
            plain_image(image)
    file_of = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict = {}
    for entry in content["annotations"]:
        need(isinstance(entry.get("segments_info"), list) and all(isinstance(s, dict) for s in entry["segments_info"]))
        infos = {}
        for info in entry["segments_info"]:
            need(type(info.get("id")) is int and 0 < info["id"] < 256**3 and info["id"] not in infos)
            need(is_id(info.get("category_id")) and info["category_id"] in names)
            infos[info["id"]] = (info["category_id"], plain_flag(info, "iscrowd"))
        need((entry.get("file_name") or file_of[entry["image_id"]]) == "0.png")
        with Image.open(io.BytesIO(png)) as picture:
            red, green, blue = np.moveaxis(np.asarray(picture, dtype=int), 2, 0)
        ids = red + 256 * green + 65536 * blue
        need({*np.unique(ids).tolist()} <= {0, *infos})
        pixels = [[None if i == 0 else names[infos[i][0]] for i in row] for row in ids.tolist()]
        objects = [
            (names[category], crowd, (ids == i).tolist())
            for i, (category, crowd) in infos.items()
            if things[category] and (ids == i).any()
        ]
        absent = [names[category] for i, (category, crowd) in infos.items() if not (ids == i).any()
                  and not (crowd and things[category])]  # fmt: skip
        found[entry["image_id"]] = (sorted(objects), pixels, sorted(absent))
    return found


def read(dataset: object, *, with_map: bool) -> dict:
    """By image: what the package reads."""
    names = [*dataset.metainfo["classes"]]
    found = {}
    for index in range(len(dataset)):
        info, sample = dataset.get_data_info(index), dataset[index]
        masks = np.asarray(getattr(sample["gt_masks"], "masks", sample["gt_masks"])).astype(bool)
        labels, crowds = sample["gt_bboxes_labels"].tolist(), sample["gt_ignore_flags"].tolist()
        objects = sorted((names[c], crowd, mask.tolist()) for c, crowd, mask in zip(labels, crowds, masks, strict=True))
        found[info["img_id"]] = objects
        if with_map:
            pixels = [[None if c == 255 else names[c] for c in row] for row in sample["gt_seg_map"].tolist()]
            found[info["img_id"]] = (objects, pixels, sorted(names[c] for c in sample["absent_segments"]))
        else:
            _check_boxes(sample, masks)
    return found


def _check_boxes(sample: dict, masks: np.ndarray) -> None:
    """Masks lie in their boxes, up to the pixel that a polygon cuts through."""
    boxes = sample["gt_bboxes"]
    boxes = np.asarray(getattr(boxes, "tensor", boxes))
    for (left, top, right, bottom), mask in zip(boxes.tolist(), masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            assert left - 1 <= columns[0], "left"
            assert top - 1 <= rows[0], "top"
            assert columns[-1] + 1 <= right + 1, "right"
            assert rows[-1] + 1 <= bottom + 1, "bottom"


def fuzz_objects(folder: Path, draw: random.Random) -> tuple[object, object]:
    """What the oracle and the package read of a changed file of objects."""
    for index in range(2):
        write_image(folder / f"images/{index}.png", (HEIGHT, WIDTH))
    chosen = draw.sample(OBJECTS, draw.randrange(1, 4))
    content = dict(
        categories=[dict(id=3, name="cat"), dict(id=7, name="dog", color=[1, 2, 3])],
        images=[dict(id=10 + i, file_name=f"{i}.png", height=HEIGHT, width=WIDTH) for i in range(2)],
        annotations=[copy.deepcopy(o) | dict(image_id=10 + i % 2) for i, o in enumerate(chosen)],
    )
    data = spoil(content, draw)
    (folder / "data.json").write_bytes(data)
    arguments = dict(data_root=str(folder), ann_file="data.json", data_prefix=dict(img_path="images"))
    return outcomes(
        folder,
        lambda: plain_objects(data),
        lambda: read(CocoInstance(**arguments, test_mode=True, pipeline=READ_OBJECTS), with_map=False),
    )


def fuzz_segments(folder: Path, draw: random.Random) -> tuple[object, object]:
    """What the oracle and the package read of a changed panoptic file."""
    for index in range(2):
        write_image(folder / f"images/{index}.png", (HEIGHT, WIDTH))
    ids = IDS.copy()
    if draw.random() < 0.2:
        ids[draw.randrange(HEIGHT), draw.randrange(WIDTH)] = draw.choice([0, 1, 2, 5, 300, 16777215])
    write_ids(folder / "segments/0.png", ids)
    content = dict(
        categories=[*copy.deepcopy(CATEGORIES)],
        images=[dict(id=10 + i, file_name=f"{i}.png", height=HEIGHT, width=WIDTH) for i in range(2)],
        annotations=[dict(image_id=10, file_name="0.png", segments_info=[*copy.deepcopy(SEGMENTS)])],
    )
    data = spoil(content, draw)
    (folder / "data.json").write_bytes(data)
    prefix = dict(img_path="images", seg_map_path="segments")
    arguments = dict(data_root=str(folder), ann_file="data.json", data_prefix=prefix)
    return outcomes(
        folder,
        lambda: plain_segments(data, (folder / "segments/0.png").read_bytes()),
        lambda: read(CocoPanoptic(**arguments, test_mode=True, pipeline=READ_SEGMENTS), with_map=True),
    )


def spoil(content: dict, draw: random.Random) -> bytes:
    """The file's bytes, with other ids in another order, or one to three changes, or both."""
    if draw.random() < 0.4:
        rearrange(content, draw)
        if draw.random() < 0.5:
            return json.dumps(content).encode()
    if draw.random() < 0.15:
        return spoil_text(json.dumps(content), draw)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if content and [*places(content)]:
            change(content, draw)
    return json.dumps(content).encode()


#: How label maps are stored: name, suffix, most values, and whether they can be read as stored.
LABEL_FILES = (
    *[(f"grey{bits}", "png", 2**bits, True) for bits in (1, 2, 4, 8)],
    *[(f"palette{bits}", "png", 2**bits, True) for bits in (1, 2, 4, 8)],
    *[("grey16", "png", 2**16, True), ("grey16", "tif", 2**16, True), ("grey32", "tif", 2**31, True)],
    *[
        ("grey8", "tif", 256, True),
        ("grey8", "bmp", 256, True),
        ("grey8", "gif", 256, False),
        ("lzw16", "tif", 2**16, True),
    ],
    *[
        ("grey8", "jpg", 256, False),
        ("jpeg", "png", 256, False),
        ("colours", "png", 256, False),
        ("float", "tif", 256, False),
    ],
    *[
        ("alpha", "png", 256, False),
        ("grey_alpha", "png", 256, False),
        ("inverted", "tif", 2, False),
        ("pages", "tif", 256, False),
    ],
)


def write_labels(path: Path, name: str, labels: np.ndarray) -> None:
    """A label map in one of the ways of `LABEL_FILES`."""
    bits = int("".join(filter(str.isdigit, name)) or 8)
    small = labels.astype({16: np.uint16, 32: np.int32}.get(bits, np.uint8))
    if name.startswith("palette"):
        picture = Image.fromarray(small).convert("P")
        picture.putpalette(bytes(range(256)) * 3)
        picture.save(path, bits=bits)
    elif path.suffix == ".png" and name.startswith("grey") and bits < 8:
        write_grey_png(path, labels, bits)
    elif name == "jpeg":
        Image.fromarray(small).save(path, format="JPEG")
    elif name in ("colours", "alpha", "grey_alpha"):
        Image.fromarray(small).convert(dict(colours="RGB", alpha="RGBA", grey_alpha="LA")[name]).save(path)
    elif name == "float":
        Image.fromarray(labels.astype(np.float32)).save(path)
    elif name == "inverted":
        Image.fromarray(labels.astype(bool)).save(path, tiffinfo={262: 0})
    elif name == "pages":
        Image.fromarray(small).save(path, save_all=True, append_images=[Image.fromarray(small.T.copy())])
    else:
        Image.fromarray(small).save(path, compression="tiff_lzw" if name.startswith("lzw") else None)


def fuzz_labels(folder: Path, draw: random.Random) -> tuple[object, object]:
    """What was stored in a label map, of which a byte may have changed or the end may lack, and what is read."""
    name, suffix, most, is_readable = draw.choice(LABEL_FILES)
    path = folder / f"a.{suffix}"
    labels = np.asarray([[draw.randrange(most) for _ in range(7)] for _ in range(9)])
    write_labels(path, name, labels)
    data, kind = bytearray(path.read_bytes()), draw.randrange(4)
    certain = True
    if kind == 1:  # the checksums of a PNG tell
        certain = suffix == "png"
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == 2:  # what is left may hold all labels
        del data[draw.randrange(len(data) - 1) :]
    path.write_bytes(data)
    sample = dict(img=np.zeros((9, 7, 3), np.uint8), ori_shape=(9, 7), seg_map_path=str(path), seg_fields=[])
    sample |= dict(reduce_zero_label=False, label_map=None)

    def oracle() -> object:
        need(is_readable)
        return labels.tolist()

    expected, found = outcomes(folder, oracle, lambda: CheckedLoading([LoadLabelMap()])(sample)["gt_seg_map"].tolist())
    return expected if certain else found, found


KINDS = dict(objects=fuzz_objects, segments=fuzz_segments, labels=fuzz_labels, foreign=fuzz_foreign)


def run_case(kind: str, seed: int) -> str:
    """`read`, `refused` (both as the oracle says), `strict` (refused, though the oracle reads it), or what is wrong."""

    def stop(*_: object) -> None:
        raise Slow

    draw = random.Random(f"{kind} {seed}")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pycocotools, and of Pillow about broken files
            expected, found = KINDS[kind](Path(folder), draw)
    except Slow:
        return "hang"
    except Exception:  # noqa: BLE001 - whatever it is, the case is counted
        return f"other error: {traceback.format_exc()}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if isinstance(found, str) and found != "refused":
        return found
    if isinstance(found, str):
        return "refused" if expected == "refused" else "strict"
    return "read" if found == expected else f"misread: {found}\nexpected: {expected}"


def run(kind: str, seeds: range) -> tuple[Counter, list[str]]:
    """How often each outcome occurred, and what is wrong with the cases where something is."""
    counts, faults = Counter(), []
    for seed in seeds:
        outcome = run_case(kind, seed)
        name = outcome.partition(":")[0].partition("\n")[0]
        counts[name] += 1
        if name not in ("read", "refused", "strict"):
            faults.append(f"{kind} {seed}: {outcome}")
    return counts, faults


def main() -> None:
    """Run many cases of each kind and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="cases in all, as many of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.WARNING)
    TRANSFORMS.build(READ_OBJECTS[1])  # imports mmdet, which counts as no case
    gc.collect = lambda *_: 0  # mmengine collects garbage for each data set, which takes longer than all the rest
    wrong = []
    for index, kind in enumerate(KINDS):
        number = len(range(index, args.count, len(KINDS)))
        with contextlib.redirect_stdout(io.StringIO()):
            counts, faults = run(kind, range(args.first, args.first + number))
        print(f"{kind}: {number} files, {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))}", flush=True)
        wrong += faults
    print(*wrong, sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
