"""Time of a training step, by part, and of inference; implementations take turns within each round."""

import time
from collections.abc import Sequence

import torch
from jaxtyping import Int
from mmengine.structures import InstanceData
from torch import Tensor

from mmseg_m2f.benchmark.implementations import Implementation
from mmseg_m2f.benchmark.setting import Batch, Setting

#: Parts of a training step, in order.
PARTS = ("forward", "matching+loss", "backward", "optimizer")
Seconds = dict[str, float]


class Stopwatch:
    """Adds up the time between marks, under their names; on a GPU by events, so that nothing waits in between."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.marks: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """Time up to here counts for nothing."""
        self.mark("")

    def mark(self, name: str) -> None:
        """Time since the previous mark belongs to `name`."""
        if not self.on_gpu:
            self.marks.append((name, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append((name, event))

    def seconds(self) -> Seconds:
        """Sums by name; waits for the GPU."""
        if self.on_gpu:
            torch.cuda.synchronize()
        sums: Seconds = {}
        for (_, before), (name, after) in zip(self.marks, self.marks[1:], strict=False):
            if name:
                sums[name] = sums.get(name, 0.0) + _passed(before, after)
        return sums


def _passed(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, float):
        assert isinstance(after, float)
        return after - before
    assert not isinstance(after, float)
    return before.elapsed_time(after) / 1000


def train_step(implementation: Implementation, batch: Batch, setting: Setting, watch: Stopwatch | None = None) -> None:
    """Targets, forward, matching, losses, backward, clipping, optimizer; gradients are kept."""
    watch = watch or Stopwatch(setting.device)
    watch.start()
    with setting.autocast():
        outputs = implementation.forward(batch)
        watch.mark(PARTS[0])
        losses = implementation.losses(outputs, batch)
        total = torch.stack(list(losses.values())).sum()
        watch.mark(PARTS[1])
    del outputs, losses
    total.backward()
    watch.mark(PARTS[2])
    implementation.step()
    watch.mark(PARTS[3])


@torch.no_grad()
def run_inference(
    implementation: Implementation, batch: Batch, setting: Setting
) -> list[Int[Tensor, "H W"]] | list[InstanceData]:
    """Label maps or objects of a model in evaluation mode."""
    with setting.autocast():
        return implementation.predict(batch.images)


def time_training(implementation: Implementation, batch: Batch, setting: Setting, *, steps: int) -> Seconds:
    """Seconds of each part of one training step, and of the whole `step`."""
    implementation.model.train()
    watch = Stopwatch(setting.device)
    for _ in range(steps):
        train_step(implementation, batch, setting, watch)
        implementation.model.zero_grad(set_to_none=True)
    seconds = {name: total / steps for name, total in watch.seconds().items()}
    return {**seconds, "step": sum(seconds.values())}


def time_inference(implementation: Implementation, batch: Batch, setting: Setting, *, steps: int) -> Seconds:
    """Seconds from images to label maps or objects of their size, for one batch."""
    implementation.model.eval()
    watch = Stopwatch(setting.device)
    watch.start()
    for _ in range(steps):
        run_inference(implementation, batch, setting)
    watch.mark("inference")
    return {name: total / steps for name, total in watch.seconds().items()}


def time_round(
    implementations: Sequence[Implementation],
    batch: Batch,
    setting: Setting,
    *,
    training: bool,
    inference: bool,
    steps: int,
    first: int,
) -> dict[str, Seconds]:
    """One turn of each implementation, beginning with number `first` modulo their number."""
    times: dict[str, Seconds] = {}
    for turn in range(len(implementations)):
        implementation = implementations[(first + turn) % len(implementations)]
        seconds: Seconds = {}
        if training:
            seconds |= time_training(implementation, batch, setting, steps=steps)
        if inference:
            seconds |= time_inference(implementation, batch, setting, steps=steps)
        times[implementation.name] = seconds
    return times
