"""Lengths, intervals and rates: what scales with them, and which schedules are refused."""

import pytest
from mmengine.config import Config

from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.schedules import check_schedule, last_end, set_lr, set_max_iters, set_val_interval
from tests.command_line import ROOT


def make_config(*schedules: dict, **loop: object) -> Config:
    checkpoint = dict(type="CheckpointHook", interval=loop.get("val_interval", 10), by_epoch="max_epochs" in loop)
    return Config(
        dict(train_cfg=dict(loop), param_scheduler=list(schedules), default_hooks=dict(checkpoint=checkpoint))
    )


def test_set_max_iters__scales_warm_up_milestones_and_intervals() -> None:
    warm_up = dict(type="LinearLR", begin=0, end=100, by_epoch=False)
    steps = dict(type="MultiStepLR", begin=100, end=1000, milestones=[600, 900], by_epoch=False)
    cfg = make_config(warm_up, steps, type="IterBasedTrainLoop", max_iters=1000, val_interval=100)
    cfg.train_cfg.update(val_begin=200, dynamic_intervals=[(900, 50)])
    set_max_iters(cfg, 100)
    assert cfg.param_scheduler == [dict(warm_up, end=10), dict(steps, begin=10, end=100, milestones=[60, 90])]
    assert cfg.train_cfg == dict(
        type="IterBasedTrainLoop", max_iters=100, val_interval=10, val_begin=20, dynamic_intervals=[(90, 5)]
    )
    assert cfg.default_hooks.checkpoint.interval == 10


def test_set_max_iters__of_a_run_that_counts_epochs() -> None:
    steps = dict(type="MultiStepLR", begin=0, end=12, milestones=[8, 11], by_epoch=True)
    cfg = make_config(steps, max_epochs=12, val_interval=3)
    set_max_iters(cfg, 1200)
    assert cfg.train_cfg == dict(type="mmengine.IterBasedTrainLoop", max_iters=1200, val_interval=300)
    assert cfg.param_scheduler == [dict(steps, by_epoch=False, end=1200, milestones=[800, 1100])]
    assert (cfg.default_hooks.checkpoint.interval, cfg.default_hooks.checkpoint.by_epoch) == (300, False)
    assert cfg.log_processor.by_epoch is False


def test_set_max_iters__schedules_of_several_optimizers() -> None:
    fall = dict(type="PolyLR", begin=0, end=100, by_epoch=False)
    cfg = make_config(type="IterBasedTrainLoop", max_iters=100, val_interval=10)
    cfg.param_scheduler = dict(first=[fall], second=[dict(fall, end=50)])
    set_max_iters(cfg, 10)
    assert cfg.param_scheduler == dict(first=[dict(fall, end=10)], second=[dict(fall, end=5)])


def test_set_max_iters__two_stage_warm_up_and_annealing() -> None:
    cfg = load_config(ROOT / "configs/eomt/eomt_dinov2_vit_l_coco-panoptic-640_12e.py", {"max_iters": 8869})
    stages = {hook["type"]: hook for hook in cfg.custom_hooks}
    warm_up = stages["mmseg_m2f.TwoStageWarmup"]
    assert (warm_up["head_iters"], warm_up["backbone_iters"]) == (50, 100)
    assert dict(stages["mmseg_m2f.MaskAnnealing"]) == dict(type="mmseg_m2f.MaskAnnealing")  # fractions of the run


def test_set_max_iters__needs_a_loop() -> None:
    with pytest.raises(ValueError, match="max_iters=10: expected max_iters or max_epochs in train_cfg"):
        set_max_iters(Config(dict(model=dict())), 10)


def test_set_val_interval__checkpoints_follow_where_they_were_equal() -> None:
    cfg = make_config(type="IterBasedTrainLoop", max_iters=100, val_interval=10)
    set_val_interval(cfg, 20)
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 20
    cfg.default_hooks.checkpoint.interval = 50
    set_val_interval(cfg, 25)
    assert (cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval) == (25, 50)


def test_set_lr__lowest_rate_follows() -> None:
    cfg = make_config(dict(type="PolyLR", eta_min=1e-4), type="IterBasedTrainLoop", max_iters=100)
    cfg.optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
    set_lr(cfg, 0.02)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler[0].eta_min) == (0.02, pytest.approx(2e-4))
    with pytest.raises(ValueError, match="expected one optimizer at optim_wrapper.optimizer"):
        set_lr(Config(dict(optim_wrapper=dict(first=dict(), second=dict()))), 0.1)


WARM_UP = dict(type="LinearLR", begin=0, end=10, by_epoch=False)


@pytest.mark.parametrize(
    "schedules",
    [
        [],
        [WARM_UP],
        [WARM_UP, dict(type="PolyLR", begin=10, end=100, by_epoch=False)],
        [WARM_UP, dict(type="MultiStepLR", milestones=[50], by_epoch=False)],
        [
            dict(type="CosineAnnealingLR", end=80, by_epoch=False),
            dict(type="ConstantLR", begin=80, end=100, by_epoch=False),
        ],
        [dict(type="PolyLR", end=12, by_epoch=True)],  # in another unit
    ],
)
def test_check_schedule__passes(schedules: list[dict]) -> None:
    check_schedule(make_config(*schedules, type="IterBasedTrainLoop", max_iters=100))


@pytest.mark.parametrize(("end", "side"), [(50, "before"), (160, "after")])
def test_check_schedule__refuses_another_end(end: int, side: str) -> None:
    cfg = make_config(dict(type="PolyLR", begin=0, end=end, by_epoch=False), type="IterBasedTrainLoop", max_iters=100)
    assert last_end(cfg) == end
    with pytest.raises(ValueError, match=rf"ends after {end} iterations, {side} training, .* 100 .*Set max_iters=N"):
        check_schedule(cfg)
