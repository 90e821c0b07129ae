"""The same pixels from the validation loader, a path and an array."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from mmseg_m2f.inference.predictor import Predictor
from tests.command_line import ROOT
from tests.datasets.coco_data import polygon, write_ids
from tests.tiny_segmentation import CLASSES, tiny_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),  # of pycocotools
    pytest.mark.filterwarnings("ignore:For binary segmentation"),  # of mmseg, about the small model
]

SIZE = (45, 67)
MODES = {"colours.jpg": "RGB", "grey.png": "L", "alpha.png": "RGBA", "palette.png": "P", "print.jpg": "CMYK"}


class Seen(Exception):
    """Ends a prediction where the model begins."""


def write_data(root: Path) -> None:
    """Images of many kinds, each with a label map, a panoptic PNG and an object."""
    generator, images, segments, objects = np.random.default_rng(0), [], [], []
    (root / "labels").mkdir()
    for index, (name, mode) in enumerate(MODES.items()):
        pixels = generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(root / name)
        Image.fromarray(np.ones(SIZE, np.uint8)).save(root / "labels" / f"{name}.png")
        write_ids(root / "segments" / f"{index}.png", np.full(SIZE, 7))
        images.append(dict(id=index, file_name=name, height=SIZE[0], width=SIZE[1]))
        infos = [dict(id=7, category_id=1)]
        segments.append(dict(image_id=index, file_name=f"{index}.png", segments_info=infos))
        objects.append(dict(id=index, image_id=index, category_id=1, segmentation=polygon(2, 2, 40, 40)))
    categories = [dict(id=i, name=name, isthing=i) for i, name in enumerate(CLASSES)]
    for kind, annotations in (("panoptic", segments), ("instance", objects)):
        content = dict(categories=categories, images=images, annotations=annotations)
        (root / f"{kind}.json").write_text(json.dumps(content))


def dataset_of(data: str, root: Path) -> dict:
    """The validation data of an ingredient, on these files."""
    pipeline = Config.fromfile(ROOT / f"configs/_base_/datasets/{data}.py").val_dataloader.dataset.pipeline
    common = dict(data_root=str(root), test_mode=True, pipeline=pipeline)
    if "panoptic" in data:
        prefix = dict(img_path="", seg_map_path="segments")
        metainfo = dict(classes=CLASSES)
        return dict(
            common, type="mmseg_m2f.CocoPanoptic", ann_file="panoptic.json", data_prefix=prefix, metainfo=metainfo
        )
    if "instance" in data:
        return dict(common, type="mmseg_m2f.CocoInstance", ann_file="instance.json", data_prefix=dict(img_path=""))
    names = dict(img_suffix="", seg_map_suffix=".png", ann_file="names.txt", metainfo=dict(classes=CLASSES))
    (root / "names.txt").write_text("\n".join(MODES))
    prefix = dict(img_path="", seg_map_path="labels")
    return dict(common, type="mmseg.BaseSegDataset", data_prefix=prefix, reduce_zero_label=False, **names)


@pytest.mark.parametrize("data", ["ade20k_512", "cityscapes_512x1024", "coco_instance_1024", "coco_panoptic_1024"])
def test_predictor__reads_as_the_validation_does(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    cfg = tiny_config(tmp_path)
    cfg.test_dataloader = cfg.val_dataloader = dict(dataset=dataset_of(data, tmp_path))
    predictor, seen = Predictor(cfg), []

    def look(batch: dict) -> None:
        seen.append(batch["inputs"][0])
        raise Seen

    monkeypatch.setattr(predictor.model, "test_step", look)
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(validation) == len(MODES)
    for index in range(len(validation)):
        expected, path = validation[index]["inputs"], validation.get_data_info(index)["img_path"]
        for image in (path, predictor.read(path)):
            with pytest.raises(Seen):
                predictor(image)
            assert seen[-1].dtype == expected.dtype == torch.uint8
            assert torch.equal(seen[-1], expected), path
