"""Scaling by the accumulated batch, and the config's schedule in a resumed run."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmseg_m2f.engine.launch import train
from mmseg_m2f.engine.learning_rate import ConfiguredSchedule, check_trained_parameters, count_accumulation
from tests.fake_runner import fake_runner
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

WARMUP = dict(type="LinearLR", start_factor=0.1, begin=0, end=3, by_epoch=False)


def poly(end: int, begin: int = 0) -> dict:
    return dict(type="PolyLR", eta_min=0.0, power=0.9, begin=begin, end=end, by_epoch=False)


def steps(*milestones: int, by_epoch: bool = False) -> dict:
    return dict(type="MultiStepLR", milestones=list(milestones), gamma=0.1, by_epoch=by_epoch)


class Run(Runner):  # a Runner, whose own `__init__` is left out
    """What a Runner has of optimizer and schedule: two groups, the second ten times slower."""

    iter, max_iters, train_loop, train_dataloader = 0, 100, None, ()

    def __init__(self, schedule: list[dict], *, lr: float = 1.0, epoch_length: int | None = None) -> None:
        weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD([dict(params=weights[:1]), dict(params=weights[1:], lr=lr / 10)], lr=lr)
        self.optim_wrapper = OptimWrapper(optimizer)
        self.param_schedulers: list[_ParamScheduler] = [
            PARAM_SCHEDULERS.build(dict(cfg, optimizer=self.optim_wrapper)) for cfg in schedule
        ]
        self.epoch_length = epoch_length
        self.train_loop = object() if epoch_length is None else EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
        self.train_dataloader = range(epoch_length or 0)
        self.cfg = dict(load_from="run/iter_4.pth")

    def advance(self, iterations: int) -> "Run":
        for _ in range(iterations):
            self.optim_wrapper.optimizer.step()
            self.iter += 1
            for scheduler in self.param_schedulers:
                if not scheduler.by_epoch or (self.epoch_length and self.iter % self.epoch_length == 0):
                    scheduler.step()
        return self

    def checkpoint(self) -> dict:
        schedulers = [copy.deepcopy(scheduler.state_dict()) for scheduler in self.param_schedulers]
        return dict(optimizer=copy.deepcopy(self.optim_wrapper.state_dict()), param_schedulers=schedulers)

    def resume_from(self, checkpoint: dict, iteration: int) -> "Run":
        """As mmengine resumes, with what `Preflight` does around it."""
        schedule = ConfiguredSchedule(self, checkpoint)
        self.iter = iteration
        self.optim_wrapper.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
        for scheduler, state in zip(self.param_schedulers, checkpoint["param_schedulers"], strict=False):
            scheduler.load_state_dict(copy.deepcopy(state))
        self.restored = schedule.restore(self)
        return self

    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optim_wrapper.optimizer.param_groups]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([poly(4)], [poly(8)]),
        ([WARMUP, poly(4, begin=3)], [WARMUP, poly(8, begin=3)]),
        ([steps(2)], [steps(6)]),
        ([poly(4)], [steps(3)]),
        ([poly(4)], [WARMUP, poly(8, begin=3)]),
    ],
)
def test_configured_schedule__holds_after_a_resume(before: list[dict], after: list[dict]) -> None:
    straight = Run(after).advance(4)
    resumed = Run(after).resume_from(Run(before).advance(4).checkpoint(), 4)
    assert resumed.restored
    for _ in range(4):
        assert resumed.rates() == pytest.approx(straight.rates(), abs=0)
        resumed.advance(1)
        straight.advance(1)


def test_configured_schedule__rates_by_hand() -> None:
    """PolyLR of power 1 over 8 iterations falls by 1/7 of the first rate each time."""
    linear = dict(poly(8), power=1.0)
    resumed = Run([linear]).resume_from(Run([dict(poly(4), power=1.0)]).advance(4).checkpoint(), 4)
    assert [resumed.rates(), *(resumed.advance(1).rates() for _ in range(3))] == [
        pytest.approx([rate / 7, rate / 70]) for rate in (3, 2, 1, 0)
    ]


def test_configured_schedule__of_epochs() -> None:
    straight = Run([steps(3, by_epoch=True)], epoch_length=2).advance(8)
    before = Run([steps(1, by_epoch=True)], epoch_length=2).advance(4)
    resumed = Run([steps(3, by_epoch=True)], epoch_length=2).resume_from(before.checkpoint(), 4)
    assert resumed.rates() == [1.0, 0.1]
    assert resumed.advance(4).rates() == straight.rates() == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("schedule", [[poly(8)], []])
def test_configured_schedule__another_rate_holds(schedule: list[dict]) -> None:
    resumed = Run(schedule, lr=0.5).resume_from(Run(schedule).advance(4).checkpoint(), 4)
    assert resumed.restored
    assert resumed.rates() == pytest.approx(Run(schedule, lr=0.5).advance(4).rates())


def test_configured_schedule__the_same_is_left_alone() -> None:
    before = Run([WARMUP, poly(8, begin=3)]).advance(4)
    resumed = Run([WARMUP, poly(8, begin=3)]).resume_from(before.checkpoint(), 4)
    assert not resumed.restored
    assert resumed.rates() == before.rates()


def test_train__resumed_with_more_iterations(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    seen = []
    for length in (2, 4):
        cfg = tiny_config(tmp_path / "data", max_iters=length)
        cfg.param_scheduler = [poly(length)]
        cfg.pop("val_dataloader"), cfg.pop("val_cfg"), cfg.pop("val_evaluator")
        runner = train(write_config(cfg, tmp_path / f"c{length}.py"), work_dir=str(tmp_path / "run"), resume=True)
        seen.append(runner.message_hub.get_scalar("train/lr").data[0].tolist())
    assert seen[1][-2:] == pytest.approx([0.01 * (1 / 3) ** 0.9, 0.0])


def test_check_trained_parameters__says_what_may_have_been_frozen() -> None:
    run, other = Run([]), Run([])
    check_trained_parameters(run, other.checkpoint())
    other.optim_wrapper.optimizer.param_groups[0]["params"].append(nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match=r"iter_4.pth: its optimizer trains 3 parameters.*config's 2 in 2.*load_from="):
        check_trained_parameters(run, other.checkpoint())


@pytest.mark.parametrize(("counts", "base"), [(1, 16), (8, 2), (3, 16 / 3)])
def test_count_accumulation__divides_the_base_batch(counts: int, base: float) -> None:
    cfg = Config(dict(auto_scale_lr=dict(enable=True, base_batch_size=16), w=dict(accumulative_counts=counts)))
    runner = fake_runner(auto_scale_lr=cfg.auto_scale_lr, optim_wrapper=cfg.w)
    count_accumulation(runner)
    assert runner.auto_scale_lr["base_batch_size"] == base
    assert cfg.auto_scale_lr.base_batch_size == 16
