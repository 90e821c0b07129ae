"""What a trained head costs: parameters, multiply-adds, time and memory of a training step, latency."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

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
    with _frozen(model):
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


def count_multiply_adds(run: Callable[[], object]) -> int:
    """Multiply-adds of matrix products, convolutions and attention, the same on a CPU as on a GPU."""
    # torch's counter knows neither the CPU's attention nor the fused one of `nn.MultiheadAttention`.
    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=kernels) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _training_batch(runner: Runner) -> object:
    """The first images of the training set; a loader whose workers persist gives nothing after its loop has ended."""
    loader = runner.train_dataloader
    return loader.collate_fn([loader.dataset[index] for index in range(runner.cfg.train_dataloader.batch_size)])


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires gradients: torch's counter fails on views of those that do, made without gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    yield
    for parameter in trained:
        parameter.requires_grad_(True)


def _seconds(run: Callable[[], object], device: str) -> float:
    """Median over some turns, the first not counted."""
    run()
    watch = Stopwatch(device)
    watch.start()
    for turn in range(_REPEATS):
        run()
        watch.mark(f"turn {turn}")
    return median(watch.seconds().values())
