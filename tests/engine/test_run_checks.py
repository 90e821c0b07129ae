"""Loops and loaders, checked before anything is built."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.engine.run_checks import check_run


def config(**values: object) -> Config:
    return Config(dict(model=dict(), train_dataloader=dict(dataset=dict()), **values))


@pytest.mark.parametrize("loop", ["train", "val", "test"])
@pytest.mark.parametrize("key", ["classes", "thing_classes"])
def test_check_run__class_names_in_a_string(loop: str, key: str) -> None:
    dataset = dict(dataset=dict(metainfo=dict(classes=("tumor"))))  # fmt: skip
    if key == "thing_classes":
        dataset = dict(datasets=[dict(thing_classes="tumor")])
    with pytest.raises(TypeError, match=rf"{loop}_dataloader.dataset.*{key}: expected a list.*'tumor'.*\('tumor',\)"):
        check_run(Config({f"{loop}_dataloader": dict(dataset=dataset)}), loops=[loop])


def test_check_run__class_names_in_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("road\ncar\n")
    for classes in (["tumor"], ("tumor",), str(tmp_path / "names.txt")):
        check_run(Config(dict(train_dataloader=dict(dataset=dict(metainfo=dict(classes=classes))))), loops=["train"])


def test_check_run__without_workers_nothing_persists() -> None:
    cfg = config(val_dataloader=dict(num_workers=2, persistent_workers=True, prefetch_factor=4))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=True, prefetch_factor=4)
    check_run(cfg, loops=["train", "val"])
    assert dict(cfg.train_dataloader) == dict(dataset={}, num_workers=0)
    assert dict(cfg.val_dataloader) == dict(num_workers=2, persistent_workers=True, prefetch_factor=4)


@pytest.mark.parametrize("loop", [dict(type="mmengine.EpochBasedTrainLoop"), dict(by_epoch=True)])
@pytest.mark.parametrize(
    "sampler",
    [
        dict(sampler=dict(type="mmengine.InfiniteSampler")),
        dict(sampler=dict(type="DefaultSampler"), batch_sampler=dict(type="mmdet.InfiniteGroupBatchSampler")),
    ],
)
def test_check_run__an_epoch_that_never_ends(loop: dict, sampler: dict) -> None:
    cfg = config(train_cfg=loop)
    cfg.train_dataloader.update(sampler)
    with pytest.raises(ValueError, match=r"(batch_)?sampler is Infinite\w*Sampler, which never ends.*DefaultSampler"):
        check_run(cfg, loops=["train"])
    check_run(cfg, loops=["test"])


def test_check_run__loops_that_end() -> None:
    for loop, sampler in (("EpochBasedTrainLoop", "DefaultSampler"), ("IterBasedTrainLoop", "InfiniteSampler")):
        cfg = config(train_cfg=dict(type=f"mmengine.{loop}"))
        cfg.train_dataloader.sampler = dict(type=f"mmengine.{sampler}")
        check_run(cfg, loops=["train"])


@pytest.mark.parametrize(("crop", "stride"), [((512, 512), (512, 600)), (512, 513), ((512, 512), (0, 512))])
def test_check_run__windows_with_gaps(crop: object, stride: object) -> None:
    cfg = config()
    cfg.model = dict(module=dict(test_cfg=dict(mode="slide", crop_size=crop, stride=stride)))
    with pytest.raises(ValueError, match=r"model.module.test_cfg.stride is \(\d+, \d+\).*crop_size is \(512, 512\)"):
        check_run(cfg, loops=["test"])
    cfg.model.module.test_cfg.stride = 512
    check_run(cfg, loops=["test"])


def test_check_run__label_maps_do_not_list_their_classes() -> None:
    cfg = config()
    cfg.train_dataloader.dataset = dict(
        type="mmengine.RepeatDataset",
        times=2,
        dataset=dict(
            type="mmengine.ClassBalancedDataset", oversample_thr=0.1, dataset=dict(type="mmseg.ADE20KDataset")
        ),
    )
    with pytest.raises(
        ValueError, match=r"train_dataloader.dataset.*: ClassBalancedDataset expected.*got ADE20KDataset"
    ):
        check_run(cfg, loops=["train"])
    cfg.train_dataloader.dataset.dataset.dataset = dict(type="mmseg_m2f.CocoInstance", ann_file="a.json")
    check_run(cfg, loops=["train"])


def test_check_run__completes_the_rule_of_save_best() -> None:
    cfg = config(default_hooks=dict(checkpoint=dict(save_best="PQ")))
    check_run(cfg, loops=["train", "val"])
    assert cfg.default_hooks.checkpoint.rule == "greater"
