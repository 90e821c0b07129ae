"""What labels say before a run."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.dataset import RepeatDataset
from mmengine.registry import DATASETS
from mmseg.evaluation import IoUMetric
from PIL import Image
from torch import nn

from mmseg_m2f.engine.label_survey import check_ignore_index, ignore_index_of, survey_labels
from mmseg_m2f.evaluation import MaskAP, SemanticIoU
from tests.datasets.coco_data import change_json, polygon, write_objects, write_panoptic
from tests.fake_runner import FakeModel, fake_runner
from tests.tiny_segmentation import tiny_config, write_dataset


def model(num_classes: int = 2, *, ignore_index: int = 255, seg_pad_val: int = 255, **more: object) -> FakeModel:
    head = SimpleNamespace(num_classes=num_classes, ignore_index=ignore_index, **more)
    return FakeModel(decode_head=head, data_preprocessor=SimpleNamespace(seg_pad_val=seg_pad_val))


def survey(
    dataset: object, network: FakeModel | None = None, *, loop: str = "train", metrics: tuple = (SemanticIoU(),)
) -> None:
    runner = fake_runner(
        **{f"{loop}_dataloader": SimpleNamespace(dataset=dataset)},
        **{f"{loop}_evaluator": SimpleNamespace(metrics=metrics)},
    )
    survey_labels(runner, network or model(), loop=loop)


def label_maps(root: Path, *labels: np.ndarray, classes: tuple[str, ...] = ("a", "b")) -> object:
    write_dataset(root, count=len(labels))
    for index, label in enumerate(labels):
        Image.fromarray(label.astype(np.uint8)).save(root / f"labels/{index:03}.png")
    config = tiny_config(root).train_dataloader.dataset
    config.metainfo = dict(classes=classes)
    return DATASETS.build(config)


def half(low: int, high: int) -> np.ndarray:
    """32 x 48 pixels, 512 of them `high`."""
    label = np.full((32, 48), low)
    label[:, :16] = high
    return label


def test_survey_labels__good_labels_say_nothing(tmp_path: Path) -> None:
    survey(label_maps(tmp_path, half(0, 1), half(0, 255)))


def test_survey_labels__void_everywhere(tmp_path: Path) -> None:
    dataset = label_maps(tmp_path, half(255, 255), half(255, 255))
    message = r"all 2 labels looked at are void everywhere \(3,072 pixels of 255: .*000.png, .*001.png\)"
    with pytest.warns(UserWarning, match=message):
        survey(RepeatDataset(dataset, 2))
    survey(dataset, loop="val")  # the metric says so


def test_survey_labels__masks_of_0_and_255(tmp_path: Path) -> None:
    dataset = label_maps(tmp_path, half(0, 255), half(0, 0))
    with pytest.warns(
        UserWarning, match=r"0 \(2,560 pixels\) and 255 \(512 pixels\) alone .*000.png.*'b', save it as 1"
    ):
        survey(dataset)


@pytest.mark.parametrize("loop", ["train", "val"])
def test_survey_labels__values_that_are_no_class(tmp_path: Path, loop: str) -> None:
    dataset = label_maps(tmp_path, half(0, 1), half(1, 2))
    with pytest.raises(ValueError, match=r"001.png has the values 2 \(512 pixels\); expected classes 0...1, or 255"):
        survey(dataset, loop=loop)


@pytest.mark.parametrize("metric", [SemanticIoU(), IoUMetric()])
def test_survey_labels__one_semantic_class(tmp_path: Path, metric: object) -> None:
    dataset = label_maps(tmp_path, half(255, 0), classes=("crack",))
    with pytest.warns(UserWarning, match=r"train_dataloader.dataset has one class, 'crack'.*background"):
        survey(dataset, model(1))
    detector = FakeModel(is_thing=True)
    survey(dataset, detector, loop="val", metrics=(MaskAP(),))
    with pytest.warns(UserWarning, match=r"val_dataloader.dataset has one class"):
        survey(dataset, detector, loop="val", metrics=(metric,))
    survey(dataset, model(1, out_channels=1, threshold=0.3))  # mmseg's binary heads compare with a threshold


def test_survey_labels__objects_and_segments_of_no_class(tmp_path: Path) -> None:
    objects = dict(type="mmseg_m2f.CocoInstance", **write_objects(tmp_path / "o", num_images=2))
    with pytest.warns(UserWarning, match=r"none of 2 samples looked at \(2 in all\) has an object or segment.*0.jpg"):
        survey(DATASETS.build(objects))
    panoptic = dict(type="mmseg_m2f.CocoPanoptic", **write_panoptic(tmp_path / "p"))
    survey(DATASETS.build(panoptic))
    change_json(tmp_path / "p", lambda c: c["annotations"][0].update(segments_info=[]))
    with pytest.warns(UserWarning, match=r"none of 1 samples looked at"):
        survey(DATASETS.build(panoptic))
    one = write_objects(tmp_path / "one", dict(category_id=3, segmentation=polygon(0, 0, 4, 6)), num_images=2)
    survey(DATASETS.build(dict(type="mmseg_m2f.CocoInstance", **one)))


def test_survey_labels__generated_data_is_left_alone() -> None:
    survey(DATASETS.build(dict(type="mmseg_m2f.GeneratedShapes", length=2)), model(8))


def test_check_ignore_index__padding_and_metric_know_it() -> None:
    runner = fake_runner(val_loop=object(), val_evaluator=SimpleNamespace(metrics=[SemanticIoU(ignore_index=0)]))
    check_ignore_index(runner, model(ignore_index=0, seg_pad_val=0))
    with pytest.raises(ValueError, match=r"decode_head.ignore_index is 0, but .*seg_pad_val is 255.*seg_pad_val=0, or"):
        check_ignore_index(runner, model(ignore_index=0))
    runner.val_evaluator.metrics = [SemanticIoU()]
    with pytest.raises(ValueError, match=r"is 0, but SemanticIoU of val_evaluator ignores 255.*ignore_index=0"):
        check_ignore_index(runner, model(ignore_index=0, seg_pad_val=0))
    check_ignore_index(runner, model())
    runner.val_loop = None
    check_ignore_index(runner, model(ignore_index=0, seg_pad_val=0))


def test_ignore_index_of__segmentor_head_or_255() -> None:
    assert ignore_index_of(nn.Identity()) == 255
    assert ignore_index_of(FakeModel(ignore_index=7, decode_head=None)) == 7
    assert ignore_index_of(model(ignore_index=0)) == 0
