"""Data sets of foreign formats with something wrong, and what they say according to plain loops; see `fuzzing`.

The oracle knows the pixels of masks from when they were written, and reads texts itself; PIL draws polygons for both.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw

from mmseg_m2f.datasets.formats.conversion import convert_dataset
from mmseg_m2f.datasets.formats.mask_formats import CITYSCAPES_CLASSES, CITYSCAPES_IDS, VOC_CLASSES
from tests.datasets.formats import foreign_data
from tests.datasets.fuzz_outcomes import Invalid, change, need, outcomes, spoil_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SIZE = foreign_data.SIZE
LINES = (
    *(
        "",
        "names: [a, no, c]",
        "names: {0: a, 2: c}",
        "names: {0: a, 1: b, 2: c}",
        "names: [1, 2, 3]",
        "path: x",
        " a ",
    ),
    *("a", "b", "cat:1,2,3::", "cow:30,40,250::", "cow:1,2::", "background:0,0,0", "train: images/val"),
)
#: Pixels of the masks by path; None where a file has to be refused.
Masks = dict[Path, np.ndarray | None]
#: One image: its label map, and class number and mask of each object; None where the format has none.
Found = tuple[np.ndarray | None, list[tuple[int, np.ndarray]] | None]
Plain = tuple[list[str], dict[str, Found]]


def fuzz_foreign(folder: Path, draw: random.Random) -> tuple[object, object]:
    """What the oracle reads of a changed data set, and what our conversion of it holds."""
    name = draw.choice(sorted(FORMATS))
    write, plain, masks_below, options = FORMATS[name]
    source, target = folder / "source", folder / "target"
    write(source)
    masks: Masks = {path: read_mask(path) for below in masks_below for path in sorted((source / below).rglob("*.png"))}
    intact: Masks = {}
    for _ in range(draw.choice([0, 1, 1, 1, 1, 2])):
        spoil_file(source, masks, intact, draw)
    to = draw.choice(["labels", "objects"])
    arguments = {key: source / "labelmap.txt" if key == "labelmap" else value for key, value in options.items()}

    def package() -> object:
        format = "label-folder" if name.startswith("label-") else name
        convert_dataset(source, target, format=format, to=to, **arguments)
        return read_labels(target) if to == "labels" else read_objects(target)

    expected, found = outcomes(folder, lambda: as_written(plain(source, masks), to), package)
    if expected == "refused" != found:  # a byte that no pixel depends on
        expected, _ = outcomes(folder, lambda: as_written(plain(source, masks | intact), to), lambda: None)
    return expected, found


def read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)


def spoil_file(source: Path, masks: Masks, intact: Masks, draw: random.Random) -> None:
    """Change, truncate or delete a file that is no image, or now and then one.

    Args:
        intact: Gets the pixels of masks of which a byte was changed.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    path = draw.choice([f for f in files if f in masks or f.suffix != ".png"] or files)
    if draw.random() < 0.1:
        path = draw.choice(files)
    if draw.random() < 0.05:
        path.unlink()
        masks.pop(path, None)
    elif path in masks:
        if masks[path] is not None:
            before, kept = masks[path], path.read_bytes()
            masks[path] = spoil_mask(path, before, draw)
            if masks[path] is None and len(path.read_bytes()) == len(kept):
                intact[path] = before
    elif path.suffix == ".json":
        spoil_json(path, draw)
    elif path.suffix in (".txt", ".yaml"):
        spoil_lines(path, draw)
    else:
        Image.new("RGB", (draw.choice([32, 31]), 24)).save(path)


def spoil_mask(path: Path, pixels: np.ndarray, draw: random.Random) -> np.ndarray | None:
    """Write other pixels, another storage of the same, or a broken file; gives what it then holds."""
    pixels, kind = pixels.copy(), draw.randrange(8)
    if kind < 3:
        most = 256 if pixels.ndim == 3 or pixels.max() < 256 else 65536
        place = (draw.randrange(len(pixels)), draw.randrange(pixels.shape[1]))
        pixels[place] = draw.choice([0, 1, 2, 7, 26, 26001, 24001, 255, draw.randrange(most)]) % most
        if draw.random() < 0.3:
            pixels[place] = pixels[0, -1]
        save_mask(path, pixels)
    elif kind == 3:
        pixels = pixels[: -draw.randrange(1, 3)]
        save_mask(path, pixels)
    elif kind == 4:
        return None if store_otherwise(path, pixels, draw) else pixels
    elif kind == 5:
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        return None  # a checksum does not fit
    elif kind == 6:
        data = path.read_bytes()
        path.write_bytes(data[: draw.randrange(len(data) - 12)])
        return None
    else:
        save_mask(path, pixels)
    return pixels


def save_mask(path: Path, pixels: np.ndarray) -> None:
    kind = np.uint8 if pixels.ndim == 3 or pixels.max() < 256 else np.uint16
    Image.fromarray(pixels.astype(kind)).save(path)


def store_otherwise(path: Path, pixels: np.ndarray, draw: random.Random) -> bool:
    """Whether it has to be refused: lossy formats, and fractions."""
    small = pixels.astype(np.uint8) if pixels.max() < 256 else pixels.astype(np.uint16)
    kind = draw.randrange(3)
    if kind == 0:
        Image.fromarray(small.astype(np.uint8)).save(path, format="JPEG")
    elif kind == 1:
        picture = Image.fromarray(pixels.astype(np.float32)) if pixels.ndim == 2 else Image.fromarray(small)
        picture.save(path, format="TIFF" if pixels.ndim == 2 else "JPEG")
    elif pixels.ndim == 2 and pixels.max() < 256:
        foreign_data.save(path, small, palette=True)
        return False
    else:
        Image.fromarray(small).save(path)
        return False
    return True


def spoil_json(path: Path, draw: random.Random) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and content and draw.random() < 0.8:
        for _ in range(draw.choice([1, 1, 2])):
            if content:
                change(content, draw)
        path.write_bytes(json.dumps(content).encode())
    elif text:
        path.write_bytes(spoil_text(text, draw))


def spoil_lines(path: Path, draw: random.Random) -> None:
    """A word, a line or a byte is changed, goes or comes twice."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines, kind = text.splitlines(), draw.randrange(5)
    if not lines or kind == 0:
        if text:
            path.write_bytes(spoil_text(text, draw))
        return
    place = draw.randrange(len(lines))
    words = lines[place].split(" ")
    if kind == 1:
        word = draw.randrange(len(words))
        words[word] = draw.choice(["nan", "1e9", "-1", "0.5", "1", "0_1", "x", "", "no", "[1, 2]", "inf", words[0]])
        lines[place] = " ".join(words)
    elif kind == 2:
        del lines[place]
    elif kind == 3:
        lines.append(lines[place])
    else:
        lines[place] = draw.choice(LINES)
    path.write_text("\n".join(lines) + "\n")


def as_written(plain: Plain, to: str) -> object:
    """The oracle's reading as label maps, or as names and masks of objects."""
    classes, images = plain
    need(images and all(name.strip() for name in classes) and len(set(classes)) == len(classes))
    written: dict[str, object] = {}
    for name, (labels, objects) in images.items():
        if to == "labels":
            if labels is None:
                labels = np.full(SIZE, classes.index("background") if "background" in classes else 255)
                for label, mask in objects or ():
                    labels[mask] = label
            written[name] = labels.tolist()
        else:
            need(objects is not None)
            written[name] = sorted((classes[label], mask.tolist()) for label, mask in objects or () if mask.any())
    return written


def read_labels(target: Path) -> dict:
    below = target / "images"
    names = [path.relative_to(below).with_suffix("").as_posix() for path in below.rglob("*") if path.is_file()]
    return {name: read_mask(target / "labels" / f"{name}.png").tolist() for name in names}


def read_objects(target: Path) -> dict:
    from pycocotools import mask as api

    found: dict = {}
    for file in target.glob("instances_*.json"):
        content = json.loads(file.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        images = {
            image["id"]: f"{file.stem.removeprefix('instances_')}/{Path(image['file_name']).with_suffix('').as_posix()}"
            for image in content["images"]
        }
        found |= {name: [] for name in images.values()}
        for each in content["annotations"]:
            mask = api.decode(each["segmentation"]).astype(bool)
            found[images[each["image_id"]]].append((names[each["category_id"]], mask.tolist()))
    return {name: sorted(objects) for name, objects in found.items()}


def plain_text(path: Path) -> str:
    need(path.is_file())
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid from error


def plain_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.height, picture.width


def plain_image(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    need(found)
    return found[0]


def plain_mask(path: Path, masks: Masks, size: tuple[int, int]) -> np.ndarray:
    pixels = masks.get(path)
    need(pixels is not None and pixels.shape[:2] == size)
    assert pixels is not None
    return pixels


def in_colours(pixels: np.ndarray) -> np.ndarray:
    """R · 65536 + G · 256 + B of colours and of grey values."""
    if pixels.ndim == 2:
        need(pixels.max() < 256)
        pixels = np.stack([pixels] * 3, -1)
    return pixels[..., 0] * 65536 + pixels[..., 1] * 256 + pixels[..., 2]


def plain_labelmap(path: Path) -> tuple[list[str], list[int]]:
    names, colours = [], []
    for line in plain_text(path).splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            values = rest.split(":")[0].split(",")
            need(len(values) == 3 and all(v.strip().isdigit() and int(v) < 256 for v in values))
            red, green, blue = map(int, values)
            names.append(name.strip())
            colours.append(red * 65536 + green * 256 + blue)
    need(len(set(colours)) == len(colours))
    return names, colours


def plain_classes(pixels: np.ndarray, colours: list[int] | None, num_classes: int) -> np.ndarray:
    if colours is None:
        need(pixels.ndim == 2 and all(v < num_classes or v == 255 for v in np.unique(pixels).tolist()))
        return pixels
    numbers = in_colours(pixels)
    need({*np.unique(numbers).tolist()} <= {*colours})
    return np.asarray([[colours.index(v) for v in row] for row in numbers.tolist()])


def plain_voc(root: Path, masks: Masks) -> Plain:
    classes, colours = list(VOC_CLASSES), None
    if (root / "labelmap.txt").is_file():
        classes, colours = plain_labelmap(root / "labelmap.txt")
    found: dict[str, Found] = {}
    for file in sorted((root / "ImageSets/Segmentation").glob("*.txt")):
        names = [line.strip() for line in plain_text(file).splitlines() if line.strip()]
        need(len(set(names)) == len(names))
        for name in names:
            size = plain_size(plain_image(root / "JPEGImages", name))
            pixels = plain_mask(root / f"SegmentationClass/{name}.png", masks, size)
            labels = plain_classes(pixels, colours, len(classes))
            numbers_file, objects = root / f"SegmentationObject/{name}.png", None
            if numbers_file.is_file():
                numbers = plain_mask(numbers_file, masks, size)
                numbers = numbers if numbers.ndim == 2 else in_colours(numbers)
                objects = []
                for number in np.unique(numbers).tolist():
                    known = [v for v in labels[numbers == number].tolist() if v != 255]
                    if number and known:
                        label = min(known, key=lambda v: (-known.count(v), v))
                        if classes[label] != "background":
                            objects.append((label, numbers == number))
            found[f"{file.stem}/{name}"] = (labels, objects)
    return classes, found


def plain_cityscapes(root: Path, masks: Masks) -> Plain:
    found: dict[str, Found] = {}
    for image in sorted((root / "leftImg8bit").rglob("*_leftImg8bit.png")):
        name = image.relative_to(root / "leftImg8bit").as_posix().removesuffix("_leftImg8bit.png")
        size, stem = plain_size(image), f"{root}/gtFine/{name}_gtFine"
        stored = plain_mask(Path(f"{stem}_labelIds.png"), masks, size)
        need(stored.ndim == 2 and stored.max() < 256)
        number_of = {label_id: number for number, label_id in enumerate(CITYSCAPES_IDS)}
        labels = np.asarray([[number_of.get(v, 255) for v in row] for row in stored.tolist()])
        objects = None
        if Path(f"{stem}_instanceIds.png").is_file():
            ids = plain_mask(Path(f"{stem}_instanceIds.png"), masks, size)
            ids = ids if ids.ndim == 2 else in_colours(ids)
            objects = []
            for number in np.unique(ids).tolist():
                if number >= 1000:
                    label = number_of.get(number // 1000, 255)
                    need((labels[ids == number] == label).all())
                    objects += [(label, ids == number)] if label != 255 else []
        found[name] = (labels, objects)
    return list(CITYSCAPES_CLASSES), found


def plain_label_folder(root: Path, masks: Masks) -> Plain:
    classes, colours = list(foreign_data.CLASSES), None
    if (root / "is_coloured").is_dir():
        classes, colours = plain_labelmap(root / "labelmap.txt")
    found: dict[str, Found] = {}
    for image in sorted((root / "images").rglob("*.png")):
        name = image.relative_to(root / "images").with_suffix("").as_posix()
        pixels = plain_mask(root / f"masks/{name}.png", masks, plain_size(image))
        found[name] = (plain_classes(pixels, colours, len(classes)), None)
    return classes, found


def plain_polygon(points: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    picture = Image.new("1", size[::-1])
    ImageDraw.Draw(picture).polygon([(round(x, 2), round(y, 2)) for x, y in points], fill=1, outline=1)
    return np.asarray(picture)


def plain_labelme(root: Path, masks: Masks) -> Plain:
    del masks
    classes, found = list(foreign_data.CLASSES), {}
    need([*root.rglob("*.json")])
    for file in sorted(root.rglob("*.json")):
        try:
            content = json.loads(plain_text(file))
        except (ValueError, RecursionError) as error:
            raise Invalid from error
        size = plain_size(plain_image(file.parent, file.stem))
        need(isinstance(content, dict) and isinstance(content.get("shapes"), list))
        for key, side in zip(("imageHeight", "imageWidth"), size, strict=True):
            need(content.get(key) is None or (type(content[key]) is int and content[key] == side))
        joined: dict = {}
        for number, shape in enumerate(content["shapes"]):
            need(isinstance(shape, dict) and shape.get("label") in classes)
            need(isinstance(shape["label"], str) and type(shape.get("group_id")) in (int, str, type(None)))
            group = shape.get("group_id")
            key = (shape["label"], ("one", number) if group is None else group)
            mask = plain_shape(shape, size)
            joined[key] = joined[key] | mask if key in joined else mask
        objects = [(classes.index(label), mask) for (label, _), mask in joined.items()]
        found[file.relative_to(root).with_suffix("").as_posix()] = (None, objects)
    return classes, found


def plain_shape(shape: dict, size: tuple[int, int]) -> np.ndarray:
    points, kind = shape.get("points"), shape.get("shape_type")
    need(isinstance(points, list) and points and all(isinstance(p, list) and len(p) == 2 for p in points))
    values = [value for point in points for value in point]
    need(all(type(value) in (int, float) and abs(value) < 1e9 for value in values))
    for axis, side in enumerate(size[::-1]):
        need(all(-side / 2 <= point[axis] <= 1.5 * side for point in points))
    need(min(values) < 0 or max(values) > 1)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    else:
        need(kind in (None, "polygon") and len(points) >= 3)
    return plain_polygon(points, size)


def plain_yolo(root: Path, masks: Masks) -> Plain:
    del masks
    need((root / "data.yaml").is_file())
    try:
        content = yaml.safe_load(plain_text(root / "data.yaml"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Invalid from error
    need(isinstance(content, dict))
    classes = content.get("names")
    if isinstance(classes, dict):
        need(all(type(key) is int for key in classes) and sorted(classes) == list(range(len(classes))))
        classes = [classes[key] for key in range(len(classes))]
    need(isinstance(classes, list) and classes and all(isinstance(n, str) or type(n) is int for n in classes))
    classes = list(map(str, classes))
    base, found = root / str(content.get("path") or ""), {}
    need(base.is_dir())
    for split in ("train", "val", "test"):
        if not content.get(split):
            continue
        folder = base / str(content[split])
        need(folder.is_dir() and root in [folder, *folder.parents])
        for image in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            labels = base / image.relative_to(base).as_posix().replace("images", "labels", 1)
            lines = plain_text(labels.with_suffix(".txt")).splitlines() if labels.with_suffix(".txt").is_file() else []
            objects = [plain_line(line, plain_size(image), len(classes)) for line in lines if line.strip()]
            found[f"{split}/{image.relative_to(folder).with_suffix('').as_posix()}"] = (None, objects)
    return classes, found


def plain_line(line: str, size: tuple[int, int], num_classes: int) -> tuple[int, np.ndarray]:
    words = line.split()
    need(all({*word} <= {*"0123456789+-.eE"} for word in words))
    try:
        label, *values = map(float, words)
    except ValueError as error:
        raise Invalid from error
    need(label in range(num_classes) and len(values) >= 6 and len(values) % 2 == 0)
    need(all(-0.5 <= value <= 1.5 for value in values))
    points = [[x * size[1], y * size[0]] for x, y in zip(values[::2], values[1::2], strict=True)]
    return int(label), plain_polygon(points, size)


def write_coloured_folder(root: Path) -> None:
    foreign_data.write_label_folder(root, colours=True)
    (root / "is_coloured").mkdir()


#: Writer, oracle, folders of masks, and what the conversion is told besides.
FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Path, Masks], Plain], tuple[str, ...], dict]] = {
    "cityscapes": (foreign_data.write_cityscapes, plain_cityscapes, ("gtFine",), {}),
    "cvat": (
        lambda root: foreign_data.write_pascal_voc(root, of_cvat=True),
        plain_voc,
        ("SegmentationClass", "SegmentationObject"),
        {},
    ),
    "label-colours": (write_coloured_folder, plain_label_folder, ("masks",), dict(labelmap=True)),
    "label-indices": (
        lambda root: foreign_data.write_label_folder(root, colours=False),
        plain_label_folder,
        ("masks",),
        dict(classes=foreign_data.CLASSES),
    ),
    "labelme": (foreign_data.write_labelme, plain_labelme, (), dict(classes=foreign_data.CLASSES)),
    "pascal-voc": (
        lambda root: foreign_data.write_pascal_voc(root, of_cvat=False),
        plain_voc,
        ("SegmentationClass", "SegmentationObject"),
        {},
    ),
    "yolo": (foreign_data.write_yolo, plain_yolo, (), {}),
}
