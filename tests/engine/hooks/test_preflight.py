"""Checks when the first batch is near."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.model import BaseTTAModel
from mmengine.registry import DATASETS
from torch import nn

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.hooks.preflight import (
    check_classes,
    find_missing_labels,
    unwrap_model,
)
from mmseg_m2f.engine.launch import evaluate, train
from tests.tiny_segmentation import tiny_config, write_config, write_dataset


class Segmentor(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.decode_head = nn.Conv2d(1, num_classes, 1)
        self.decode_head.num_classes = num_classes

    def test_step(self, data: object) -> object: ...


class TTA(BaseTTAModel):
    def merge_preds(self, data_samples_list: object) -> object: ...


@pytest.fixture
def dataset(tmp_path: Path) -> object:
    write_dataset(tmp_path / "data", count=5)
    return DATASETS.build(tiny_config(tmp_path / "data").train_dataloader.dataset)


def test_check_classes__names_both_counts_and_keys(dataset: object) -> None:
    check_classes(Segmentor(2), dataset, loop="train")
    with pytest.raises(ValueError, match=r"num_classes") as raised:
        check_classes(Segmentor(3), dataset, loop="train")
    message = str(raised.value)
    assert message.startswith("model.decode_head.num_classes is 3, but train_dataloader.dataset (BaseSegDataset) has 2")
    assert "Set model.decode_head.num_classes=2" in message


def test_check_classes__things_of_model_and_dataset(dataset: object) -> None:
    model = Segmentor(2)
    model.register_buffer("is_thing", torch.tensor([False, True]))
    check_classes(model, dataset, loop="train")  # a dataset that does not say which are things
    dataset._metainfo["thing_ids"] = (1,)
    check_classes(model, dataset, loop="train")
    dataset._metainfo["thing_ids"] = (0, 1)
    with pytest.raises(ValueError, match=r"model.thing_classes are \[1\], but the things of train_dataloader.dataset"):
        check_classes(model, dataset, loop="train")


def test_check_classes__refuses_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    empty = DATASETS.build(dict(tiny_config(tmp_path).train_dataloader.dataset, serialize_data=False))
    with pytest.raises(ValueError, match=r"train_dataloader.dataset \(BaseSegDataset\) has no samples.*data_prefix"):
        check_classes(Segmentor(2), empty, loop="train")


def test_find_missing_labels__shows_three_and_counts_through_wrappers(dataset: object, tmp_path: Path) -> None:
    wrapped = SimpleNamespace(dataset=ConcatDataset([dataset]))  # as a wrapper keeps it
    assert find_missing_labels(wrapped, loop="val") is None
    for index in (0, 1, 2, 4):
        (tmp_path / f"data/labels/{index:03}.png").unlink()
    message = find_missing_labels(wrapped, loop="val")
    assert message is not None
    assert message.startswith("val_dataloader.dataset: 4 images have no label file.")
    assert [f"{index:03}.png (for image" in message for index in range(5)] == [True, True, True, False, False]
    assert "seg_map_suffix" in message


def test_find_missing_labels__leaves_generated_data_alone() -> None:
    shapes = DATASETS.build(dict(type="mmseg_m2f.GeneratedShapes", length=2))
    assert find_missing_labels(shapes, loop="train") is None


def test_unwrap_model__goes_below_test_time_augmentation() -> None:
    model = Segmentor(2)
    assert unwrap_model(TTA(model)) is model


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data", max_iters=2)
    cfg.model.decode_head.num_classes = 3
    for loop in ("train", "val", "test"):
        cfg[f"{loop}_dataloader"].dataset.metainfo = dict(classes=("a", "b", "c"), palette=[[0, 0, 0]] * 3)
    train(write_config(cfg, tmp_path / "three.py"), work_dir=str(tmp_path / "run"))
    return tmp_path / "run/iter_2.pth"


def test_preflight__refuses_a_checkpoint_of_other_classes_but_trains_on_from_it(trained: Path) -> None:
    two = write_config(tiny_config(trained.parents[1] / "data", max_iters=1), trained.parents[1] / "two.py")
    options = dict(work_dir=str(trained.parents[1] / "two"))
    with pytest.raises(ValueError, match=r"made by another model.*num_classes"):
        evaluate(two, str(trained), **options)
    with pytest.raises(ValueError, match=r"made by another model.*num_classes"):
        train(two, resume=str(trained), **options)
    runner = train(two, {"load_from": str(trained)}, **options)
    assert runner.iter == 1


def test_preflight__names_the_full_examination_before_the_first_iteration(trained: Path) -> None:
    (log,) = trained.parent.glob("*/*.log")
    before, _, after = log.read_text().partition("python tools/doctor.py CONFIG")
    assert "Iter(train)" in after
    assert "Iter(train)" not in before


def test_preflight__refuses_to_test_weights_of_another_model(trained: Path) -> None:
    weights, renamed = check_checkpoint(trained)["state_dict"], trained.with_name("renamed.pth")
    torch.save(dict(state_dict={f"other.{name}": value for name, value in weights.items()}), renamed)
    with pytest.raises(ValueError, match=r"renamed.pth lacks \d+ of the model's \d+ weights"):
        evaluate(trained.parents[1] / "three.py", str(renamed), work_dir=str(trained.parents[1] / "test"))


def test_preflight__stops_before_the_first_iteration(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    wrong = write_config(tiny_config(tmp_path / "data", num_classes=5), tmp_path / "wrong.py")
    with pytest.raises(ValueError, match=r"model.decode_head.num_classes is 5"):
        train(wrong, work_dir=str(tmp_path / "run"))
    (tmp_path / "data/labels/002.png").unlink()
    config = write_config(tiny_config(tmp_path / "data"), tmp_path / "missing.py")
    with pytest.raises(FileNotFoundError, match=r"1 images have no label file.*\n.*labels/002.png"):
        train(config, work_dir=str(tmp_path / "run"))
    assert list((tmp_path / "run").glob("*.pth")) == []


def test_preflight__compares_class_names_before_the_first_iteration(trained: Path) -> None:
    """Label maps carry numbers without names, so that another order can only be refused."""
    folder = trained.parents[1]
    cfg = Config.fromfile(folder / "three.py")
    swapped = dict(classes=("a", "c", "b"), palette=[[0, 0, 0]] * 3)
    cfg.val_dataloader.dataset.metainfo = swapped
    with pytest.raises(ValueError, match=r"val_dataloader.dataset has the same classes in another order than train_"):
        train(write_config(cfg, folder / "val.py"), work_dir=str(folder / "val"))
    cfg.test_dataloader.dataset.metainfo = swapped
    with pytest.raises(
        ValueError, match=r"test_dataloader.dataset has the same classes .* checkpoint .*iter_2.pth: exp"
    ):
        evaluate(write_config(cfg, folder / "test.py"), str(trained), work_dir=str(folder / "test"))
    cfg.train_dataloader.dataset.metainfo = swapped
    config = write_config(cfg, folder / "other.py")
    for start in (dict(resume=str(trained)), dict(options={"load_from": str(trained)})):
        with pytest.raises(
            ValueError, match=r"train_dataloader.dataset has the same classes .* checkpoint .*iter_2.pth"
        ):
            train(config, work_dir=str(folder / "other"), **start)
    assert list(folder.glob("val/*.pth")) + list(folder.glob("other/*.pth")) == []


def test_preflight__watches_the_first_batch_and_the_best_figure(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    cfg = tiny_config(tmp_path / "data", max_iters=1)
    cfg.train_dataloader.batch_size = 1
    head = dict(cfg.model.decode_head, type="mmseg.PSPHead", pool_scales=(1,))
    cfg.model.decode_head = {key: value for key, value in head.items() if key not in ("num_convs", "concat_input")}
    config = write_config(cfg, tmp_path / "one.py")
    with pytest.raises(ValueError, match=r"batch_size is 1, and batch norm 'decode_head.psp_modules.0.1.bn' sees one"):
        train(config, work_dir=str(tmp_path / "run"))
    best = {"default_hooks.checkpoint.save_best": "AP", "default_hooks.checkpoint.rule": "greater"}
    with pytest.raises(ValueError, match=r"save_best is 'AP', but val_evaluator \(SemanticIoU\)"):
        train(config, best, work_dir=str(tmp_path / "run"))
