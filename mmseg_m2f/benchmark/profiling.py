"""What a step spends on the card and on the host, from torch's profiler: counts, and two tables to look into."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mmseg_m2f.benchmark.implementations import Implementation
from mmseg_m2f.benchmark.setting import Setting, make_batch
from mmseg_m2f.benchmark.timing import run_inference, train_step

#: Calls of the host that start work on the card.
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
_WARM_UPS = 3  # what is compiled or recorded is so then
_ROWS = 60


@dataclass(frozen=True)
class Profile:
    """One training step or inference.

    Args:
        kernels: run on the card, copies and fills included.
        launches: calls of the host that started them; a graph is one.
        device_seconds: the card was busy, the sum over all kernels.
    """

    kernels: int
    launches: int
    device_seconds: float


def profile_implementation(
    implementation: Implementation, setting: Setting
) -> tuple[dict[str, dict[str, float | int]], dict[str, str]]:
    """A `Profile` of `training` and one of `inference`, as dictionaries; and the tables of both as text, by name."""
    batch = make_batch(setting, seed=0)

    def train() -> None:
        train_step(implementation, batch, setting)
        implementation.model.zero_grad(set_to_none=True)

    figures: dict[str, dict[str, float]] = {}
    tables: dict[str, str] = {}
    for part, run in (("training", train), ("inference", lambda: run_inference(implementation, batch, setting))):
        implementation.model.train(part == "training")
        found, by_kernel, by_operator = profile_runs(run, setting.device)
        figures[part] = asdict(found)
        tables |= {f"{part}-kernels": by_kernel, f"{part}-operators": by_operator}
    implementation.model.train()
    return figures, tables


def profile_runs(run: Callable[[], object], device: str) -> tuple[Profile, str, str]:
    """One run after a few others; a table by kernel and one by operator, longest first."""
    for _ in range(_WARM_UPS):
        run()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as profiler:
        run()
        if device == "cuda":
            torch.cuda.synchronize()
    kernels: dict[str, list[float]] = defaultdict(list)
    operators: dict[str, list[float]] = defaultdict(list)
    launches = 0
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            if getattr(event, "is_user_annotation", False):  # spans several kernels
                continue
            kernels[event.name].append(event.time_range.elapsed_us())
        elif event.name.startswith(_LAUNCHES):
            launches += 1
        else:
            operators[event.name].append(event.self_cpu_time_total)
    found = Profile(
        kernels=sum(len(times) for times in kernels.values()),
        launches=launches,
        device_seconds=sum(sum(times) for times in kernels.values()) / 1e6,
    )
    return found, _table(kernels, "ms on the card"), _table(operators, "ms on the host")


def _table(times: dict[str, list[float]], title: str) -> str:
    rows = sorted(times.items(), key=lambda row: -sum(row[1]))[:_ROWS]
    lines = [f"{title:>16} {'calls':>8}  name"]
    lines += [f"{sum(us) / 1e3:16.3f} {len(us):8}  {name[:150]}" for name, us in rows]
    return "\n".join(lines) + "\n"
