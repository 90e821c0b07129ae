"""Seeded faults are named with file and key."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.doctor.examination import Examination, examine
from mmseg_m2f.engine.doctor.findings import Finding
from tests.datasets.coco_data import segment, write_panoptic
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


def image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def seed_faults(train: Path, val: Path) -> None:
    """Faults of a data set of label maps; images 000 and 001 are left as they are."""
    images, labels = train / "images", train / "labels"
    content = (images / "002.png").read_bytes()
    (images / "002.png").write_bytes(content[: len(content) // 2])  # broken image
    (labels / "003.png").write_bytes(b"no picture")  # broken label
    (labels / "004.png").unlink()  # missing label
    shutil.copy(images / "000.png", images / "005.png")  # duplicate
    (images / "photo.JPG").write_bytes((images / "000.png").read_bytes())  # another suffix
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(images / "006.png").save(images / "006.png", exif=exif)
    Image.fromarray(image(images / "007.png")[..., 0].astype(np.uint16) * 256).save(images / "007.png")  # 16 bits
    Image.open(images / "008.png").convert("RGBA").save(images / "008.png")  # channels
    Image.fromarray(np.full((32, 48), 255, np.uint8)).save(labels / "009.png")  # void everywhere
    wrong = image(labels / "010.png").copy()
    wrong[:4] = 7
    Image.fromarray(wrong).save(labels / "010.png")  # no class
    Image.fromarray(image(labels / "011.png")[:-2]).save(labels / "011.png")  # another size
    shutil.copy(images / "001.png", val / "images/000.png")  # leakage


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    folder = tmp_path_factory.mktemp("maps")
    write_dataset(folder / "train", count=12)
    write_dataset(folder / "val", count=2)
    seed_faults(folder / "train", folder / "val")
    cfg = tiny_config(folder / "train")
    cfg.val_dataloader.dataset.data_root = str(folder / "val")
    cfg.train_dataloader.dataset.metainfo = dict(classes=("dark", "bright", "never"), palette=[[0, 0, 0]] * 3)
    cfg.auto_scale_lr = dict(base_batch_size=16)
    cfg.param_scheduler[0].end = 8
    return examine(write_config(cfg, folder / "maps.py"), workers=2)


DATA = "train_dataloader.dataset"
SEEDED = [
    ("error", DATA, "samples cannot be read", "002.png: the image cannot be decoded"),
    ("error", DATA, "samples cannot be read", "003.png: the label file cannot be decoded"),
    ("error", DATA, "samples cannot be read", "004.png: the label file does not exist"),
    ("warning", DATA, "same content as another", "005.png = "),
    ("warning", f"{DATA}.img_suffix", "1 images are left out", "photo.JPG"),
    ("warning", DATA, "turned by an EXIF tag", "006.png"),
    ("warning", DATA, "more than 8 bits", "007.png"),
    ("note", DATA, "other channels", "008.png"),
    ("warning", DATA, "1 labels are void everywhere", "009.png"),
    ("error", DATA, "labels hold [7]; expected 0...2, or 255", "010.png"),
    ("error", DATA, "another size than their image", "011.png"),
    ("error", "val_dataloader.dataset", "in the training set too", "000.png = "),
    ("warning", f"{DATA}.metainfo.classes", "1 classes have no pixel: 2 (never)", ""),
    ("error", "model.decode_head.num_classes", "is 2, but train_dataloader.dataset has 3 classes", ""),
    ("warning", "optim_wrapper.optimizer.lr", "is 0.01 for 16 images a step", ""),
    ("error", "config", "param_scheduler ends after 8 iterations", ""),
]


@pytest.mark.parametrize(("severity", "key", "text", "file"), SEEDED)
def test_examine__names_seeded_faults_of_label_maps(
    maps: Examination, severity: str, key: str, text: str, file: str
) -> None:
    found = [f for f in maps.findings if (f.severity, f.key) == (severity, key) and text in f.text]
    assert len(found) == 1, maps.text()
    assert any(file in each for each in found[0].files) or not file


def test_examine__worst_first(maps: Examination) -> None:
    order = [("error", "warning", "note").index(finding.severity) for finding in maps.findings]
    assert order == sorted(order)
    assert maps.text().startswith("Looked at 12 samples of train, 2 samples of val.")


def test_save_page__shows_findings_and_pictures(maps: Examination, tmp_path: Path) -> None:
    maps.save_page(tmp_path / "doctor.html", title="Doctor: a < b")
    page = (tmp_path / "doctor.html").read_text()
    assert "Doctor: a &lt; b" in page
    assert page.count('class="finding error"') == sum(f.severity == "error" for f in maps.findings)
    assert page.count("data:image/png;base64,") >= 8
    assert "bright" in page


def test_save_fix__writes_a_leaf(maps: Examination, tmp_path: Path) -> None:
    base = write_config(maps.cfg, tmp_path / "base.py")
    changes = maps.save_fix(tmp_path / "fixed.py", config=base)
    fixed = Config.fromfile(tmp_path / "fixed.py")
    assert changes["model.decode_head.num_classes"] == fixed.model.decode_head.num_classes == 3
    assert fixed.optim_wrapper.optimizer.lr == pytest.approx(0.01 * 2 / 16)
    assert fixed.model.backbone.depth == 18


def test_save_fix__on_top_of_a_published_config(tmp_path: Path) -> None:
    finding = Finding("warning", "train", "text", "advice", change={"lr": 1e-5})
    Examination(Config(), [finding], {}, {}).save_fix(tmp_path / "fixed.py", config="mask2former_r18_shapes_demo")
    assert load_config(tmp_path / "fixed.py").optim_wrapper.optimizer.lr == pytest.approx(1e-5)


def annotation(number: int, place: int, x: int, *, box: list | None = None, crowd: int = 0) -> dict:
    square = [x, 5, x + 10, 5, x + 10, 15, x, 15]
    runs = dict(size=[40, 60], counts=[0, 100, 2300])
    outline = runs if crowd else [square]
    given = dict(id=number, image_id=place, category_id=1, iscrowd=crowd, area=100)
    return dict(given, bbox=box or [x, 5, 10, 10], segmentation=outline)


def write_coco(folder: Path) -> None:
    """Three images: one with three objects (a box elsewhere), one with a crowd alone, one empty."""
    (folder / "images").mkdir(parents=True)
    for index in range(3):
        picture = np.random.default_rng(index).integers(0, 255, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"images/{index}.jpg")
    annotations = [annotation(1, 0, 5), annotation(2, 0, 20, box=[40, 20, 5, 5]), annotation(3, 0, 40)]
    annotations.append(annotation(4, 1, 5, crowd=1))
    images = [dict(id=i, file_name=f"{i}.jpg", height=40, width=60) for i in range(3)]
    categories = [dict(id=1, name="ball"), dict(id=2, name="ghost")]
    content = dict(images=images, categories=categories, annotations=annotations)
    (folder / "objects.json").write_text(json.dumps(content))


OBJECT_FAULTS = [
    "model.decode_head.query_decoder.num_queries: is 2, but an image has 3 objects",
    "1 images have no object",
    "1 images have crowds alone",
    "boxes of 1 objects lie elsewhere than their masks",
    "1 classes have no object: ghost",
]


def test_examine__names_seeded_faults_of_objects(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    load = [dict(type="mmengine.LoadImageFromFile"), dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True)]
    cfg = tiny_config(tmp_path)
    cfg.train_dataloader.dataset = dict(
        type="mmseg_m2f.CocoInstance",
        data_root=str(tmp_path / "coco"),
        ann_file="objects.json",
        data_prefix=dict(img_path="images"),
        metainfo=dict(classes=("ball", "ghost")),
        pipeline=[*load, dict(type="mmdet.PackDetInputs")],
    )
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.model.decode_head.query_decoder = dict(num_queries=2)
    said = examine(write_config(cfg, tmp_path / "objects.py"), workers=2).text()
    assert [text for text in OBJECT_FAULTS if text not in said] == [], said


PANOPTIC_FAULTS = [
    "1 of 5 samples cannot be read",
    "got 6 as well. Add these segments",
    "num_queries: is 2, but an image has 3 segments",
    "1 images have crowds alone",
    "1 segments are listed in the JSON file and have no pixel",
    "1 labels are void everywhere",
    "1 classes have no pixel: 3 (sky)",
]


def test_examine__names_seeded_faults_of_segments(tmp_path: Path) -> None:
    ids = [np.zeros((40, 60), int) for _ in range(5)]
    ids[0][:, 20:], ids[0][5:15, 5:15], ids[0][25:35, 5:15] = 70000, 1, 2  # grass, a cat and a dog
    ids[1][:], ids[2][:], ids[3][:] = 5, 70000, 6
    segments = [
        [segment(70000, 90), segment(1, 3), segment(2, 7)],
        [segment(5, 3, iscrowd=1)],
        [segment(70000, 90), segment(9, 7)],  # 9 has no pixel
        [],  # 6 is not listed
        [],  # void alone
    ]
    data = write_panoptic(tmp_path / "panoptic", ids=ids, segments=segments, size=(40, 60))
    load = [dict(type="mmengine.LoadImageFromFile"), dict(type="mmseg_m2f.LoadPanoptic")]
    pack = [dict(type="mmseg_m2f.SegmentsToObjects")]
    pack += [dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "ori_shape", "img_shape", "stuff_classes"))]
    pack += [dict(type="mmseg_m2f.CompactSegments")]
    cfg = tiny_config(tmp_path, num_classes=4)
    cfg.train_dataloader.dataset = dict(type="mmseg_m2f.CocoPanoptic", **data, pipeline=[*load, *pack])
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.model.decode_head.query_decoder = dict(num_queries=2)
    found = examine(write_config(cfg, tmp_path / "segments.py"), workers=2)
    said = found.text()
    assert [text for text in PANOPTIC_FAULTS if text not in said] == [], said
    assert "labels hold" not in said  # numbers of segments are no classes
    found.save_page(tmp_path / "doctor.html", title="Doctor")
    assert "panoptic labels" in (tmp_path / "doctor.html").read_text()


def test_examine__forecasts_the_memory_of_a_step(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", count=2)
    cfg = tiny_config(tmp_path / "data")
    assert "the tensors of a step of 2 images take about" in examine(write_config(cfg, tmp_path / "memory.py")).text()
    cfg.model.decode_head.num_classes = 1  # labels hold 1: the loss cannot be computed
    said = examine(write_config(cfg, tmp_path / "fewer.py")).text()
    assert "activations come on top: a step with the first sample fails (" in said
