"""Every documented option, on one config of every folder: the Runner that is built has it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import OPTIONS
from mmseg_m2f.engine.launch import build_runner
from tests.command_line import ROOT

NAMES = ("disc", "ring", "cross")  # of the classes
#: Folder of configs/ -> its leaf, the ingredient that replaces the backbone, and a class of that ingredient.
LEAVES = {
    "cac": ("cac-upernet_r18_shapes_debug", "coc_tiny_from_scratch", "ContextCluster"),
    "context_cluster": ("mask2former_coc_tiny_shapes_demo", "r18_from_scratch", "ResNet"),
    "detr": ("detr-tiny_r18_shapes_debug", "mscan_tiny_from_scratch", "MSCAN"),
    "ecenet": ("ecenet_r18_shapes_debug", "mscan_tiny_from_scratch", "MSCAN"),
    "eomt": ("eomt_tiny_shapes-panoptic_demo", "timm_vit_tiny_from_scratch", "TimmTokenStream"),
    "mask2former": ("mask2former_r18_shapes-instance_demo", "mscan_tiny_from_scratch", "MSCAN"),
    "mask_dino": ("mask-dino_r18_shapes-instance_demo", "mscan_tiny_from_scratch", "MSCAN"),
    "maskformer": ("maskformer_r18_shapes_debug", "coc_tiny_from_scratch", "ContextCluster"),
    "per_pixel": ("deeplabv3plus_r18_shapes_demo", "coc_tiny_from_scratch", "ContextCluster"),
    "pmt": ("pmt_tiny_shapes_demo", "tokens_vit_tiny_from_scratch", "TimmPlainViT"),
    "segnext": ("segnext_mscan_tiny_shapes_debug", "r18_from_scratch", "ResNet"),
    "segvit": ("segvit_tiny_shapes_debug", "vit_tiny_shrunk_from_scratch", "ShrunkVisionTransformer"),
}
WITH_QUERIES = ("context_cluster", "detr", "eomt", "mask2former", "mask_dino", "maskformer", "pmt")
WITH_OBJECTS = ("detr", "eomt", "mask2former", "mask_dino")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def write_label_maps(root: Path) -> None:
    for folder in ("images/train", "images/val", "annotations/train", "annotations/val"):
        (root / folder).mkdir(parents=True)
        picture = np.zeros((96, 128), dtype=np.uint8) if "annotations" in folder else np.zeros((96, 128, 3), np.uint8)
        Image.fromarray(picture).save(root / folder / ("a.png" if "annotations" in folder else "a.jpg"))


def write_objects(root: Path) -> None:
    square = dict(id=1, image_id=1, category_id=1, segmentation=[[2, 2, 30, 2, 30, 30, 2, 30]], bbox=[2, 2, 28, 28])
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(root / "images" / split / "a.png")
        content = dict(
            images=[dict(id=1, file_name="a.png", height=96, width=128)],
            categories=[dict(id=number + 1, name=name) for number, name in enumerate(NAMES)],
            annotations=[dict(square, area=784, iscrowd=0)],
        )
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


def every_option(folder: str, root: Path) -> dict[str, object]:
    with_objects = folder in WITH_OBJECTS
    (write_objects if with_objects else write_label_maps)(root)
    options: dict[str, object] = dict(
        data="dsb2018_256" if with_objects else "camvid_96x128",
        data_root=str(root),
        backbone=LEAVES[folder][1],
        pretrained=False,
        classes=NAMES,
        num_classes=3,
        crop_size=(64, 64),
        window_size=(64, 48),
        window_overlap=(32, 16),
        batch_size=3,
        max_iters=60,
        val_interval=7,
        lr=5e-4,
        tracker=own_tracker(root),
    )
    if with_objects:
        options["thing_classes"] = [0, 1, 2]
    if folder in WITH_QUERIES:
        options["window_scale"] = 0.5
        options["num_queries"] = 13
    return options


def own_tracker(root: Path) -> str:
    """An ingredient whose tracker every installation has."""
    file = root / "tracker.py"
    file.write_text("vis_backend = dict(type='mmengine.LocalVisBackend', img_save_dir='tracked')\n")
    return str(file)


def check_runner(runner: Runner, folder: str, root: Path) -> None:
    loop, model = runner.train_loop, runner.model
    dataset, head = loop.dataloader.dataset, model.decode_head
    assert dataset.data_root == str(root)
    assert str(root) in dataset[0]["data_samples"].img_path
    val_dataset = runner.val_dataloader.dataset
    assert tuple(dataset.metainfo["classes"]) == tuple(val_dataset.metainfo["classes"]) == NAMES
    assert val_dataset.data_root == str(root)
    assert (loop.dataloader.batch_size, loop.max_iters, loop.val_interval) == (3, 60, 7)
    (crop,) = (step for step in dataset.pipeline.transforms if type(step).__name__ == "RandomCrop")
    assert tuple(crop.crop_size) == (64, 64)
    assert dataset[0]["inputs"].shape[1:] == (64, 64)
    size = getattr(model.data_preprocessor, "size", None)
    assert size is None if folder in WITH_OBJECTS else tuple(size) == (64, 64)
    assert head.num_classes == 3
    windows = model.test_cfg
    assert (windows.mode, windows.crop_size, windows.stride) == ("slide", (64, 48), (32, 32))
    assert folder not in WITH_QUERIES or windows.scale == 0.5
    if hasattr(model, "is_thing"):
        assert model.is_thing.tolist() == [True] * 3
    assert type(model.backbone).__name__ == LEAVES[folder][2]
    assert "checkpoint" not in str(getattr(model.backbone, "init_cfg", None))
    embeddings = {part.num_embeddings for part in head.modules() if isinstance(part, torch.nn.Embedding)}
    chosen = getattr(getattr(head, "query_decoder", None), "num_queries", None)  # of cells: nothing is learnt for each
    assert folder not in WITH_QUERIES or 13 in {*embeddings, chosen}
    for module in model.modules():  # whatever is built for one size is built for the crops
        if type(module).__name__ in ("PatchEmbed", "VisionTransformer") and getattr(module, "img_size", None):
            assert tuple(module.img_size) == (64, 64)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert max(group["lr"] for group in runner.optim_wrapper.param_groups) == pytest.approx(5e-4)
    schedules = runner.build_param_scheduler(runner.param_schedulers)
    assert max(schedule.end for schedule in schedules) == 60
    assert [backend._img_save_dir.endswith("tracked") for backend in runner.visualizer._vis_backends.values()] == [True]
    assert {"Preflight", "Report"} <= {type(hook).__name__ for hook in runner.hooks}


def test_every_option__of_the_table_is_set_and_every_folder_is_there() -> None:
    folders = {path.parent.name for path in ROOT.glob("configs/*/*.py")} - {"_base_"}
    assert folders == set(LEAVES)
    section = (ROOT / "docs/configs.md").read_text().partition("\n## Options\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE))
    assert set(OPTIONS) == documented


@pytest.mark.parametrize("place", ["command line", "leaf"])
@pytest.mark.parametrize("folder", LEAVES)
def test_every_option__reaches_the_runner(folder: str, place: str, tmp_path: Path) -> None:
    leaf = ROOT / "configs" / folder / f"{LEAVES[folder][0]}.py"
    options = every_option(folder, tmp_path / "data")
    if place == "command line":
        cfg = load_config(leaf, options)
    else:
        mine = tmp_path / "mine.py"
        lines = [f"_base_ = {str(leaf)!r}", *(f"{name} = {value!r}" for name, value in options.items())]
        mine.write_text("\n".join(lines) + "\n")
        cfg = load_config(mine)
    without_workers(cfg)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "run"), f"{folder}_{place.replace(' ', '_')}"
    check_runner(build_runner(cfg), folder, tmp_path / "data")


def without_workers(cfg: Config) -> None:
    for loop in ("train", "val", "test"):
        cfg[f"{loop}_dataloader"].update(num_workers=0, persistent_workers=False)


@pytest.mark.parametrize("folder", [folder for folder in LEAVES if folder not in WITH_QUERIES])
def test_every_option__num_queries_where_there_are_none(folder: str) -> None:
    with pytest.raises(ValueError, match=r"num_queries=5: expected a model with num_queries"):
        load_config(ROOT / "configs" / folder / f"{LEAVES[folder][0]}.py", {"num_queries": 5})
