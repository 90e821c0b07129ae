import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mmseg_m2f.engine.hooks import DeferredRuntimeInfo, deferred_log
from tests.host_reads import count


class Falling(BaseModel):
    """Two losses of one learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = "tensor") -> dict[str, Tensor]:
        return {"loss_mask": (self.level**2).sum(), "loss_dice": self.level.abs().sum()}


def run(folder: Path, hook: str, *, iterations: int = 7) -> Runner:
    data = [dict(inputs=torch.zeros(1), data_samples=[]) for _ in range(iterations)]
    runner = Runner(
        Falling(),
        str(folder),
        train_dataloader=dict(
            dataset=data, batch_size=1, num_workers=0, sampler=dict(type="mmengine.InfiniteSampler", shuffle=False)
        ),
        train_cfg=dict(type="mmengine.IterBasedTrainLoop", max_iters=iterations, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type="mmengine.SGD", lr=0.1), clip_grad=dict(max_norm=0.01)),
        default_hooks=dict(
            runtime_info=dict(type=hook),
            logger=dict(type="mmengine.LoggerHook", interval=3, log_metric_by_epoch=False),
            checkpoint=dict(type="mmengine.CheckpointHook", by_epoch=False, interval=5),
        ),
        log_processor=dict(by_epoch=False, window_size=3),
        experiment_name=f"deferred_{hook}_{folder.name}",
    )
    runner.train()
    return runner


def histories(hub: MessageHub | dict) -> dict[str, list[float]]:
    scalars = hub.log_scalars if isinstance(hub, MessageHub) else hub["log_scalars"]
    names = ("loss", "loss_mask", "loss_dice", "grad_norm", "lr")
    return {name: scalars[f"train/{name}"].data[0].tolist() for name in names}


def assert_same(ours: MessageHub | dict, usual: MessageHub | dict, *, length: int) -> None:
    ours, usual = histories(ours), histories(usual)
    for name, values in usual.items():
        assert len(values) == length
        assert ours[name] == pytest.approx(values), name


def test_deferred_runtime_info__logs_what_the_usual_hook_logs(tmp_path):
    ours, usual = (
        run(tmp_path / name, hook)
        for name, hook in (("ours", "mmseg_m2f.DeferredRuntimeInfo"), ("usual", "mmengine.RuntimeInfoHook"))
    )
    assert_same(ours.message_hub, usual.message_hub, length=7)
    stored = [
        torch.load(tmp_path / name / "iter_5.pth", weights_only=False)["message_hub"] for name in ("ours", "usual")
    ]
    assert_same(*stored, length=5)
    lines = [
        [
            json.loads(line)["loss"]
            for path in (tmp_path / name).rglob("scalars.json")
            for line in path.read_text().splitlines()
        ]
        for name in ("ours", "usual")
    ]
    assert lines[0] == pytest.approx(lines[1])
    assert len(lines[0]) == 2


def test_deferred_runtime_info__reads_once_per_interval(tmp_path, monkeypatch):
    reads = []
    original = DeferredRuntimeInfo.after_train_iter

    def counted(self: DeferredRuntimeInfo, *args: object, **kwargs: object) -> None:
        with count() as counts:
            original(self, *args, **kwargs)
        reads.append(sum(counts.host_reads.values()))

    monkeypatch.setattr(DeferredRuntimeInfo, "after_train_iter", counted)
    run(tmp_path, "mmseg_m2f.DeferredRuntimeInfo")
    assert reads == [0, 0, 1, 0, 0, 1, 1]  # the last iteration ends the run of seven


def test_deferred_runtime_info__logs_the_mean_over_ranks(monkeypatch):
    """The other rank has left out its second step."""
    monkeypatch.setattr(deferred_log, "get_world_size", lambda: 2)
    monkeypatch.setattr(deferred_log, "all_gather_object", lambda own: [own, [dict(loss=5.0)]])
    hook, runner, logged = DeferredRuntimeInfo(), mock.MagicMock(spec=Runner, message_hub=mock.MagicMock()), []
    runner.message_hub.update_scalar = lambda name, value: logged.append((name, value))
    hook._kept = [(("loss", "grad_norm"), torch.tensor([1.0, 0.5])), (("loss",), torch.tensor([2.0]))]
    hook.before_gather_checkpoint(runner)
    assert logged == [("train/loss", 3.0), ("train/grad_norm", 0.5), ("train/loss", 2.0)]
