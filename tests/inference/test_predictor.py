"""Segmentors and detectors as one call, on arrays, files and folders."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from torch import Tensor, nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.inference.folder import predict_folder
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.registry import MODELS
from tests.command_line import ROOT
from tests.tiny_segmentation import CLASSES, PALETTE, tiny_config, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a checkpoint of a model with known answers: see `brightness_model`."""
    folder = tmp_path_factory.mktemp("predictor")
    write_dataset(folder / "data")
    torch.manual_seed(0)
    model = Predictor(tiny_config(folder / "data")).model
    torch.save(dict(state_dict=model.state_dict()), folder / "good.pth")
    return folder


@pytest.fixture
def cfg(folder: Path) -> Config:
    return tiny_config(folder / "data")


@pytest.fixture
def predictor(folder: Path, cfg: Config) -> Predictor:
    return Predictor(cfg, folder / "good.pth")


def test_predictor__same_answer_for_file_array_and_direct_call(predictor: Predictor, folder: Path) -> None:
    path = folder / "data/images/001.png"
    image = cv2.imread(str(path))
    labels = predictor(path).semantic
    with torch.no_grad():
        pixels = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float()
        logits = predictor.model.encode_decode((pixels - 120) / 60, [dict(img_shape=image.shape[:2])])
        expected = nn.functional.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(0)
    assert np.array_equal(labels, expected.numpy())
    assert np.array_equal(labels, predictor(image).semantic)


def test_predictor__folded_norms_answer_the_same(predictor: Predictor, folder: Path, cfg: Config) -> None:
    folded = Predictor(cfg, folder / "good.pth", fold_norms=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.model.backbone.modules())
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        scores = [p.model.encode_decode(images, [dict(img_shape=(32, 48))]) for p in (folded, predictor)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-5)
    path = folder / "data/images/001.png"
    assert np.array_equal(folded(path).semantic, predictor(path).semantic)


@pytest.mark.parametrize("size", [(33, 47), (17, 90)])
def test_predictor__answers_at_the_size_of_the_image(predictor: Predictor, size: tuple[int, int]) -> None:
    prediction = predictor(np.zeros((*size, 3), dtype=np.uint8))
    assert prediction.size == prediction.semantic.shape == size


def test_predictor__knows_classes_and_palette(predictor: Predictor) -> None:
    assert predictor.classes == list(CLASSES)
    assert predictor.palette == PALETTE


def test_predictor__works_for_generated_data(cfg: Config) -> None:
    pipeline = [dict(type="mmseg.PackSegInputs")]
    cfg.test_dataloader.dataset = dict(type="mmseg_m2f.GeneratedShapes", length=1, pipeline=pipeline)
    cfg.model.decode_head.num_classes = 8
    predictor = Predictor(cfg)
    assert len(predictor.classes) == len(predictor.palette) == 8
    assert predictor(np.zeros((40, 50, 3), dtype=np.uint8)).semantic.shape == (40, 50)


def test_predictor__works_for_stock_configs_with_a_default_scope(cfg: Config) -> None:
    cfg.default_scope = "mmseg"
    cfg.model.decode_head.type = "FCNHead"
    cfg.test_dataloader.dataset.pipeline = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    assert Predictor(cfg)(np.zeros((32, 32, 3), dtype=np.uint8)).semantic.shape == (32, 32)


def test_predictor__refuses_another_class_count(cfg: Config) -> None:
    cfg.model.decode_head.num_classes = 3
    with pytest.raises(ValueError, match=r"num_classes is 3, but test_dataloader.dataset .* has 2 classes. Set"):
        Predictor(cfg)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "alpha", "empty"],
)
def test_predictor__refuses_other_arrays(predictor: Predictor, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a BGR image H W 3 of uint8, got shape"):
        predictor(image)


def test_predict_folder__writes_overlay_and_labels_and_keeps_subfolders(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/a.png", "sub/a.bmp"):
        Image.open(folder / "data/images/000.png").save(images / name)
    out = images / "out"
    for _ in range(2):  # the second time, what the first one wrote is no input
        assert predict_folder(predictor, images, out) == []
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    names = ["a.png", "sub/a.bmp.png", "sub/a.png.png"]
    assert written == sorted([*names, *(f"labels/{name}" for name in names)])
    with Image.open(out / "labels/a.png") as label:
        assert np.array_equal(np.asarray(label), predictor(images / "a.png").semantic)
    with Image.open(out / "a.png") as page:
        assert page.width >= 240  # the legend has room
        assert page.height > 32


def test_predict_folder__names_the_broken_and_writes_the_others(
    predictor: Predictor, folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    data = (folder / "data/images/000.png").read_bytes()
    (images / "good.png").write_bytes(data)
    (images / "bad.png").write_bytes(data[:300])
    faults = predict_folder(predictor, images, tmp_path / "out")
    assert len(faults) == 1
    assert f"Image {images / 'bad.png'} (300 bytes) cannot be decoded" in faults[0]
    assert sorted(os.listdir(tmp_path / "out/labels")) == ["good.png"]


def test_predict_folder__says_what_is_missing(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected an image or a folder of images, got neither"):
        predict_folder(predictor, tmp_path / "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got a folder without any"):
        predict_folder(predictor, tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"opacity is 1.5; expected 0"):
        predict_folder(predictor, tmp_path, tmp_path / "out", opacity=1.5)
    with pytest.raises(ValueError, match=r"score_threshold is -1.0; expected 0"):
        predict_folder(predictor, tmp_path / "nowhere", tmp_path, score_threshold=-1.0)


@MODELS.register_module(name="BrightObjects")
class BrightObjects(BaseModel):
    """Finds one object, of the second class, where the image is bright, and the first class elsewhere."""

    def __init__(self, answers: tuple[str, ...] = ("panoptic", "instances"), *, with_masks: bool = True) -> None:
        super().__init__(data_preprocessor=dict(type="mmdet.DetDataPreprocessor"))
        self.answers, self.with_masks = answers, with_masks

    def forward(self, inputs: Tensor, data_samples: list[BaseDataElement], mode: str) -> list[BaseDataElement]:
        for image, sample in zip(inputs, data_samples, strict=True):
            bright = nn.functional.interpolate(image.mean(0)[None, None], sample.ori_shape)[0] > 100
            if "panoptic" in self.answers:
                sample.pred_panoptic_seg = PixelData(sem_seg=bright * 1001)
            if "instances" in self.answers:
                sample.pred_instances = InstanceData(
                    labels=torch.ones(1, dtype=torch.long),
                    scores=torch.full((1,), 0.4),
                    bboxes=torch.tensor([[1.0, 2.0, 11.0, 22.0]]),
                )
                if self.with_masks:
                    sample.pred_instances.masks = bright
        return data_samples


def detector_config(**model: object) -> Config:
    """The usual test pipeline of a detector, which doubles the image's sides."""
    pipeline = [
        dict(type="mmengine.LoadImageFromFile"),
        dict(type="mmdet.Resize", scale_factor=2.0),
        dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="mmdet.PackDetInputs"),
    ]
    dataset = dict(type="mmdet.CocoDataset", metainfo=dict(classes=CLASSES, palette=PALETTE), pipeline=pipeline)
    return Config(dict(model=dict(type="mmseg_m2f.BrightObjects", **model), test_dataloader=dict(dataset=dataset)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Dark, with a bright rectangle 10 wide and 20 high."""
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    image[2:22, 1:11] = 200
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/one.png"), image)
    return tmp_path / "photos/one.png"


def test_predictor__detector_answers_in_the_size_of_the_image(photo: Path) -> None:
    prediction = Predictor(detector_config())(photo)
    bright = cv2.imread(str(photo))[..., 0] == 200
    assert prediction.kinds() == ["panoptic", "instances"]
    assert np.array_equal(prediction.panoptic, bright * 1001)
    assert np.array_equal(prediction.instances.masks, bright[None])
    assert prediction.instances.boxes_px.tolist() == [[1, 2, 11, 22]]


@pytest.fixture
def coco_config(tmp_path: Path) -> Config:
    """Names of classes stand in a file alone."""
    cfg = detector_config()
    names = [dict(id=7, name="from"), dict(id=3, name="file")]
    images = [dict(id=1, file_name="one.png", height=30, width=40)]
    (tmp_path / "train.json").write_text(json.dumps(dict(images=images, annotations=[], categories=names)))
    cfg.test_dataloader.dataset = dict(
        type="mmseg_m2f.CocoInstance",
        ann_file=str(tmp_path / "train.json"),
        data_prefix=dict(img_path="images"),
        pipeline=cfg.test_dataloader.dataset.pipeline,
        test_mode=True,
    )
    return cfg


def test_predictor__names_from_the_annotation_file(coco_config: Config) -> None:
    assert Predictor(coco_config).classes == ["from", "file"]


def test_predictor__names_from_the_checkpoint_need_no_data(coco_config: Config, tmp_path: Path) -> None:
    (tmp_path / "train.json").unlink()
    meta = dict(dataset_meta=dict(classes=("from", "training"), palette=PALETTE))
    torch.save(dict(state_dict={}, meta=meta), tmp_path / "trained.pth")
    predictor = Predictor(coco_config, tmp_path / "trained.pth")
    assert (predictor.classes, predictor.palette) == (["from", "training"], PALETTE)


def test_predictor__missing_names_say_where_to_put_them(coco_config: Config, tmp_path: Path) -> None:
    (tmp_path / "train.json").unlink()
    with pytest.raises(ValueError, match=r"expected class names in test_dataloader.dataset.metainfo, .*Set test_data"):
        Predictor(coco_config)


def test_predictor__our_detector_with_a_pipeline_that_needs_segments() -> None:
    options = {"model.test_cfg.semantic": True}
    cfg = load_config(ROOT / "configs/mask2former/mask2former_r18_shapes-panoptic_demo.py", options)
    predictor = Predictor(cfg, device="cpu")
    prediction = predictor(np.zeros((40, 50, 3), dtype=np.uint8))
    assert prediction.kinds() == ["panoptic", "instances", "semantic"]
    assert prediction.panoptic.shape == prediction.semantic.shape == prediction.instances.masks.shape[1:] == (40, 50)
    assert (np.diff(prediction.instances.scores) <= 0).all()


def test_predictor__model_without_answers_is_named(photo: Path) -> None:
    predictor = Predictor(detector_config(answers=()))
    with pytest.raises(ValueError, match=r"expected 'pred_panoptic_seg', .* of BrightObjects, got"):
        predictor(photo)


def test_predict_folder__detector_writes_coco_formats(photo: Path, tmp_path: Path) -> None:
    assert predict_folder(Predictor(detector_config()), photo, tmp_path / "out", score_threshold=0.5) == []
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["instances.json", "one.png", "panoptic.json", "panoptic/one.png"]
    (found,) = json.loads((tmp_path / "out/instances.json").read_text())  # below the threshold of drawing
    assert (found["image_id"], found["category_id"], found["bbox"]) == ("one.png", 1, [1, 2, 10, 20])
    (annotation,) = json.loads((tmp_path / "out/panoptic.json").read_text())["annotations"]
    assert [info["area"] for info in annotation["segments_info"]] == [1000, 200]


def test_predict_folder__score_threshold_is_that_of_drawing(photo: Path, tmp_path: Path) -> None:
    predictor = Predictor(detector_config(answers=("instances",), with_masks=False))
    pages = []
    for threshold in (0.3, 0.5):
        predict_folder(predictor, photo, tmp_path / f"{threshold}", score_threshold=threshold)
        pages.append(cv2.imread(str(tmp_path / f"{threshold}/one.png")))
    box_side = (slice(30, 120), slice(5, 9))
    assert (pages[0][box_side] == PALETTE[1][::-1]).all(-1).any()
    assert not (pages[1][box_side] == PALETTE[1][::-1]).all(-1).any()


def test_predict_folder__interrupted_json_holds_the_images_so_far(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(detector_config())
    (photo.parent / "two.png").write_bytes(photo.read_bytes())
    read = predictor.read

    def interrupt(path: Path) -> np.ndarray:
        if path.name == "two.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(predictor, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(predictor, photo.parent, tmp_path / "out")
    assert [entry["image_id"] for entry in json.loads((tmp_path / "out/instances.json").read_text())] == ["one.png"]
    assert len(json.loads((tmp_path / "out/panoptic.json").read_text())["images"]) == 1
