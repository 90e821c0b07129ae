"""Own data: folders by convention, classes once or from the file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from PIL import Image

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.load import load_config
from tests.datasets.coco_data import polygon, write_ids, write_image

CONFIGS = Path(__file__).parents[2] / "configs/mask2former"
LEAVES = dict(
    labels="mask2former_r50_ade20k-512_160k",
    void="mask2former_r50_camvid-360x480_20k",
    objects="mask2former_r50_coco-instance-1024_50e",
    panoptic="mask2former_r50_coco-panoptic-1024_50e",
)
CATEGORIES = [
    dict(id=3, name="sky", isthing=0, color=[1, 2, 3]),
    dict(id=7, name="car", isthing=1, color=[4, 5, 6]),
    dict(id=9, name="road", isthing=0, color=[7, 8, 9]),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of one image each, with label maps, objects and segments beside each other."""
    for split in ("train", "val"):
        write_image(tmp_path / f"images/{split}/a.jpg", (48, 64))
        (tmp_path / f"labels/{split}").mkdir(parents=True)
        Image.fromarray(np.full((48, 64), 1, np.uint8)).save(tmp_path / f"labels/{split}/a.png")
        images = [dict(id=1, file_name="a.jpg", height=48, width=64)]
        car = dict(id=1, image_id=1, category_id=7, segmentation=polygon(0, 0, 32, 48))
        content = dict(categories=CATEGORIES[:2], images=images, annotations=[car])
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
        segments = [dict(id=1, category_id=7), dict(id=2, category_id=9)]
        annotation = dict(image_id=1, file_name="a.png", segments_info=segments)
        content = dict(categories=CATEGORIES, images=images, annotations=[annotation])
        (tmp_path / f"panoptic_{split}.json").write_text(json.dumps(content))
        write_ids(tmp_path / f"panoptic_{split}/a.png", np.tile(np.where(np.arange(64) < 32, 1, 2), (48, 1)))
    return tmp_path


def load(base: str, folder: Path, **data: object) -> Config:
    leaf = folder / "leaf.py"
    leaf.write_text(f'_base_ = "{CONFIGS / LEAVES[base]}.py"\ndata = {dict(root=str(folder), **data)!r}\n')
    cfg = load_config(leaf)
    check_config(cfg)
    return cfg


def built(cfg: Config, loader: str) -> object:
    return DATASETS.build(dict(cfg[f"{loader}_dataloader"].dataset, pipeline=[]))


def test_own_data__label_maps(root: Path) -> None:
    cfg = load("labels", root, classes=("road", "car"), palette=[[1, 2, 3], [4, 5, 6]])
    assert cfg.num_classes == cfg.model.decode_head.num_classes == 2
    assert cfg.train_dataloader.dataset.pipeline == Config.fromfile(cfg_of("labels")).train_dataloader.dataset.pipeline
    for loader, split in (("train", "train"), ("val", "val"), ("test", "val")):
        dataset = built(cfg, loader)
        assert dataset.metainfo["classes"] == ("road", "car")
        assert dataset.metainfo["palette"] == [[1, 2, 3], [4, 5, 6]]
        assert [Path(dataset[0][key]).relative_to(root).as_posix() for key in ("img_path", "seg_map_path")] == [
            f"images/{split}/a.jpg",
            f"labels/{split}/a.png",
        ]
    assert cfg.val_dataloader.dataset.test_mode


def cfg_of(base: str) -> Path:
    return CONFIGS / f"{LEAVES[base]}.py"


def ignored(cfg: Config) -> list[object]:
    text = str(cfg.train_dataloader) + str(cfg.val_dataloader) + str(cfg.test_dataloader) + str(cfg.tta_pipeline)
    return re.findall(r"'mmseg_m2f.IgnoreLabels', 'labels': (\[[^]]*\])", text)


def test_own_data__void_labels_replace_those_of_the_former_data(root: Path) -> None:
    assert ignored(Config.fromfile(cfg_of("void"))) == ["[11]"] * 4
    assert ignored(load("void", root, classes=("a", "b"))) == []
    cfg = load("void", root, classes=("a", "b"), void_labels=[7], reduce_zero_label=True)
    assert ignored(cfg) == ["[7]"] * 4
    assert built(cfg, "train").reduce_zero_label


def test_own_data__objects_have_the_classes_of_the_file(root: Path) -> None:
    cfg = load("objects", root)
    assert cfg.num_classes == cfg.model.decode_head.num_classes == 2
    assert cfg.model.thing_classes == [0, 1]
    assert built(cfg, "val").metainfo["classes"] == ("sky", "car")
    assert built(cfg, "train").metainfo["palette"] == [(1, 2, 3), (4, 5, 6)]
    assert built(cfg, "train")[0]["instances"][0]["bbox_label"] == 1
    cfg = load("objects", root, classes=("car",))
    assert cfg.model.decode_head.num_classes == 1
    assert built(cfg, "test")[0]["instances"][0]["bbox_label"] == 0


def test_own_data__panoptic_segments_number_things_first(root: Path) -> None:
    cfg = load("panoptic", root)
    assert cfg.num_classes == cfg.model.decode_head.num_classes == 3
    assert cfg.model.thing_classes == cfg.thing_classes == cfg.val_evaluator[0].thing_classes == [0]
    assert built(cfg, "val").metainfo["classes"] == ("car", "sky", "road")
    assert [info[:2] for info in built(cfg, "train")[0]["segments_info"]] == [(1, 0), (2, 2)]


def test_own_data__things_of_a_file_that_does_not_say_them(root: Path) -> None:
    for split in ("train", "val"):
        file = root / f"panoptic_{split}.json"
        content = json.loads(file.read_text())
        for category in content["categories"]:
            del category["isthing"]
        file.write_text(json.dumps(content))
    cfg = load("panoptic", root, things=["car", "road"])
    assert built(cfg, "val").metainfo["classes"] == ("car", "road", "sky")
    assert cfg.model.thing_classes == [0, 1]


def test_own_data__by_a_folder_on_the_command_line(root: Path) -> None:
    cfg = load_config(cfg_of("objects"), dict(data=str(root)))
    assert cfg.data_root == str(root)
    assert cfg.model.decode_head.num_classes == 2
    cfg.model.backbone.init_cfg = None
    assert MODELS.build(cfg.model).decode_head.num_classes == 2


def test_own_data__below_annotations_and_under_other_names(root: Path) -> None:
    (root / "annotations").mkdir()
    for name in ("panoptic_train.json", "panoptic_val.json", "panoptic_train", "panoptic_val"):
        (root / name).rename(root / "annotations" / name)
    assert load("panoptic", root).train_dataloader.dataset.ann_file == "annotations/panoptic_train.json"
    (root / "images/train").rename(root / "train2017")
    (root / "images/val").rename(root / "val2017")
    for split in ("train", "val"):
        (root / f"instances_{split}.json").rename(root / f"{split}2017.json")
    names = dict(splits=("train2017", "val2017"), images="{split}", annotations="{split}.json")
    assert len(built(load("objects", root, **names), "val")) == 1


@pytest.mark.parametrize(
    ("base", "gone", "expected"),
    [
        ("labels", "images/val", r"images of split 'val' expected images/val\. "),
        ("labels", "labels/train", r"labels of split 'train' expected labels/train or annotations/train\."),
        ("objects", "instances_val.json", r"expected instances_val.json or annotations/instances_val.json\."),
        ("panoptic", "panoptic_train.json", r"expected panoptic_train.json or annotations/panoptic_train.json\."),
        ("panoptic", "panoptic_train", r"segments of split 'train' expected panoptic_train or annotations/pan"),
    ],
)
def test_own_data__missing_places_are_named_with_the_convention(
    base: str, gone: str, expected: str, root: Path
) -> None:
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=expected):
        load(base, root, **(dict(classes=("a", "b")) if base == "labels" else {}))


def test_own_data__a_folder_has_a_slash_and_a_name_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco_instance_640").mkdir()
    cfg = load_config(cfg_of("objects"), dict(data="coco_instance_640"))
    assert (cfg.crop_size, cfg.num_classes) == ((640, 640), 80)
    with pytest.raises(
        FileNotFoundError, match=r"data.root data/mine .* does not exist; for the images of split 'train'"
    ):
        load_config(cfg_of("objects"), dict(data="data/mine"))


def test_own_data__what_is_wrong_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.classes: expected the names of the classes"):
        load("labels", root)
    with pytest.raises(ValueError, match=r"a colour for each of the 2 classes, got 1"):
        load("labels", root, classes=("a", "b"), palette=[[1, 2, 3]])
    with pytest.raises(TypeError, match=r"for objects expected root and optionally .*Remove labels"):
        load("objects", root, labels="labels/{split}")
    with pytest.raises(ValueError, match=r"splits: expected the names for training and validation"):
        load("objects", root, splits=("train",))
    (root / "images/train/b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"files with one suffix, the images, below .*train, got 1 \.jpg, 1 \.png"):
        load("labels", root, classes=("a", "b"))
    leaf = root / "generated.py"
    leaf.write_text(f'_base_ = "{CONFIGS}/mask2former_r18_shapes_debug.py"\ndata = "{root}"\n')
    with pytest.raises(ValueError, match=r"expected a config that reads label maps.*GeneratedShapes"):
        load_config(leaf)
