"""What a trained head costs: parameters, multiply-adds, time and memory of a training step, latency."""

import copy
import sys
from collections.abc import Callable
from statistics import median

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from mmseg_m2f.analysis.operation_counts import count_multiply_adds, without_gradients
from mmseg_m2f.benchmark.memory import peak_above
from mmseg_m2f.benchmark.timing import Stopwatch

_REPEATS = 5


def measure_costs(runner: Runner) -> dict[str, object]:
    """Costs of a runner's model, on one test image and on one training batch; trains on, so measure last.

    Every process of a distributed run has to take part.

    Returns:
        `parameters`; `multiply_adds` of predicting one test image as torch counts them (matrix products,
        convolutions, attention; not deformable attention's sampling); `image_size` of that image (height, width);
        `latency_s` of a prediction, from the loaded image to what the metric reads; `step_s` and `step_bytes` of a
        training step, the latter in this process, of its own share of the batch, above what weights and optimizer
        hold; None where the system does not tell.
    """
    model = runner.model
    device = "cuda" if next(model.parameters()).is_cuda else "cpu"
    image = pseudo_collate([runner.test_loop.dataloader.dataset[0]])
    batch = _training_batch(runner)
    model.eval()
    with without_gradients(model):
        multiply_adds = count_multiply_adds(lambda: model.test_step(copy.deepcopy(image)))
    with torch.no_grad():
        latency = _seconds(lambda: model.test_step(copy.deepcopy(image)), device)
    model.train()

    def step() -> None:
        model.train_step(copy.deepcopy(batch), optim_wrapper=runner.optim_wrapper)

    readable = device == "cuda" or sys.platform == "linux"
    return dict(
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds,
        image_size=list(image["inputs"][0].shape[-2:]),
        latency_s=latency,
        step_s=_seconds(step, device),
        step_bytes=peak_above(step, device) if readable else None,
        device=torch.cuda.get_device_name() if device == "cuda" else "CPU",
    )


def _training_batch(runner: Runner) -> object:
    """The first images of the training set; a loader whose workers persist gives nothing after its loop has ended."""
    loader = runner.train_dataloader
    return loader.collate_fn([loader.dataset[index] for index in range(runner.cfg.train_dataloader.batch_size)])


def _seconds(run: Callable[[], object], device: str) -> float:
    """Median over some turns, the first not counted."""
    run()
    watch = Stopwatch(device)
    watch.start()
    for turn in range(_REPEATS):
        run()
        watch.mark(f"turn {turn}")
    return median(watch.seconds().values())
