"""A whole benchmark: gate, counts, times, memory, and a report file that is valid after every round."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mmseg_m2f.benchmark.counting import Counts, count
from mmseg_m2f.benchmark.gate import check_equality
from mmseg_m2f.benchmark.implementations import Implementation, build_all, check_names
from mmseg_m2f.benchmark.machine import check_load, describe_machine
from mmseg_m2f.benchmark.memory import measure_peaks
from mmseg_m2f.benchmark.profiling import profile_implementation
from mmseg_m2f.benchmark.setting import Setting, make_batch
from mmseg_m2f.benchmark.summary import summarise
from mmseg_m2f.benchmark.timing import run_inference, time_round, train_step
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import replace_file

What = Literal["train", "inference", "memory", "ops"]
StepReport = dict[str, Any]
_COUNTED = ("ops", "host_reads")
_IMAGES, _LEAST_STEPS = 40, 5  # per round on a GPU
_FIRST_STEPS = 3  # on a GPU: graphs are recorded in the second


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Args:
        names: implementations; the others are compared with the first, which must be ours.
        settings: one after the other, all implementations side by side in each.
        rounds: turns of each implementation; the first is not counted.
        threads: of the CPU, for each measurement.
        even_if_loaded: measure on a busy machine too.
        profile: write tables of what takes long, by kernel and by operator.
    """

    names: Sequence[str]
    settings: Sequence[Setting]
    what: Sequence[What] = ("train", "inference", "memory", "ops")
    rounds: int = 7
    threads: int = 1
    even_if_loaded: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise InvalidValueError(f"rounds: expected at least 2, since the first is not counted, got {self.rounds}.")


def measure(plan: Plan, path: str | Path, say: Callable[[str], None] = print) -> StepReport:
    """Measure a plan and give the report, which is also in the JSON file `path`, up to date after every round.

    Ctrl-C ends it; `complete` is then False, and what was measured stays in the report.

    Raises:
        ValueError, FileNotFoundError: the machine is busy, or the implementations cannot be compared.
        UnequalError: they do not compute the same thing; nothing is measured.
    """
    check_names(plan.names)
    check_load(plan.threads, even_if_loaded=plan.even_if_loaded)
    torch.set_num_threads(plan.threads)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as one trains there; nothing on a CPU
    report: StepReport = dict(
        schema=1,
        complete=False,
        command=sys.argv,
        machine=describe_machine(plan.threads, plan.settings[0].device),
        implementations=list(plan.names),
        what=list(plan.what),
        gate=[],
        results=[],
    )

    def save() -> None:
        report["machine"]["load_after"] = os.getloadavg()[0]
        replace_file(path, (json.dumps(report, indent=1) + "\n").encode())

    gated: set[tuple[int, int, int]] = set()
    try:
        for setting in plan.settings:
            model = (setting.queries, setting.classes, setting.points)
            if model not in gated and len(plan.names) > 1:
                say(f"comparing {', '.join(plan.names)} …")
                found = check_equality(plan.names, setting)
                report["gate"].append(dict(setting=asdict(setting), comparisons=[asdict(each) for each in found]))
                gated.add(model)
            _measure_setting(plan, setting, report, Path(path).parent, save, say)
        report["complete"] = True
    except KeyboardInterrupt:
        say("stopped; what was measured so far is kept")
    save()
    return report


def _measure_setting(
    plan: Plan,
    setting: Setting,
    report: StepReport,
    folder: Path,
    save: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    say(setting.title)
    result: dict[str, Any] = dict(
        setting=asdict(setting), rounds=[], loads=[], memory={}, ops={}, profile={}, summary={}
    )
    report["results"].append(result)
    timed = [name for name in ("train", "inference") if name in plan.what]
    implementations = build_all(plan.names, setting) if timed or "ops" in plan.what else []
    if "ops" in plan.what:
        for implementation in implementations:
            counts = result["ops"][implementation.name] = count_ops(implementation, setting)
            say(f"  a step of {implementation.name}: " + ", ".join(f"{counts['training'][k]} {k}" for k in _COUNTED))
            if plan.profile or setting.device == "cuda":
                profiled, tables = profile_implementation(implementation, setting)
                result["profile"][implementation.name] = profiled
                for name, text in tables.items() if plan.profile else ():
                    replace_file(folder / profile_file(implementation.name, setting, name), text.encode())
            save()
    # One step leaves a GPU idle between events; a CPU never is.
    steps = max(_LEAST_STEPS, _IMAGES // setting.batch) if setting.device == "cuda" else 1
    for index in range(plan.rounds if timed else 0):
        times = time_round(
            implementations,
            make_batch(setting, seed=index),
            setting,
            training="train" in timed,
            inference="inference" in timed,
            steps=steps,
            first=index,
        )
        say(f"  round {index}{'' if index else ' (not counted)'}: {_in_short(times)}")
        if index:
            result["rounds"].append(times)
            result["loads"].append(os.getloadavg()[0])
            result["summary"] = summarise(result["rounds"], plan.names)
            save()
    del implementations
    if "memory" in plan.what:
        for name in plan.names:
            result["memory"][name] = measure_peaks(name, setting, first=plan.names[0], threads=plan.threads)
            peaks = ", ".join(f"{part} {size / 1e6:.0f} MB" for part, size in result["memory"][name].items())
            say(f"  memory of {name}: {peaks}")
            save()


def count_ops(implementation: Implementation, setting: Setting) -> dict[str, dict[str, Any]]:
    """Operators and host reads of one training step (`training`) and of one inference (`inference`)."""
    batch = make_batch(setting, seed=0)
    implementation.model.train()
    for _ in range(_FIRST_STEPS if setting.device == "cuda" else 1):  # creates the optimizer's state, records graphs
        train_step(implementation, batch, setting)
    implementation.model.zero_grad(set_to_none=True)
    steps = [state["step"] for state in implementation.optimizer.state.values() if "step" in state]
    with count(setting.device, on_host=[step for step in steps if step.device.type == "cpu"]) as training:
        train_step(implementation, batch, setting)
    implementation.model.zero_grad(set_to_none=True)
    implementation.model.eval()
    for _ in range(_FIRST_STEPS if setting.device == "cuda" else 1):  # what is compiled is compiled now
        run_inference(implementation, batch, setting)
    with count(setting.device) as inference:
        run_inference(implementation, batch, setting)
    return dict(training=_as_json(training), inference=_as_json(inference))


def profile_file(name: str, setting: Setting, table: str) -> str:
    """The file of a table of the profiler."""
    return f"profile-{Path(name).stem}-{setting.size}-batch{setting.batch}-{table}.txt"


def _as_json(counts: Counts) -> dict[str, Any]:
    return dict(
        ops=counts.ops,
        host_reads=sum(counts.host_reads.values()),
        host_reads_by_kind=dict(counts.host_reads.most_common()),
        cuda_syncs=counts.cuda_syncs,
    )


def _in_short(times: Mapping[str, Mapping[str, float]]) -> str:
    shown = ("step", "inference")
    return "; ".join(
        f"{name} " + ", ".join(f"{part} {seconds[part]:.3g} s" for part in shown if part in seconds)
        for name, seconds in times.items()
    )
