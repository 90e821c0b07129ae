"""Building the model of one config, a training step, and a prediction; each stage in a process of its own.

A stage that fails ends its process, as in a user's run: the exception is printed, the last line is the reason.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import Tensor

from mmseg_m2f.benchmark.shipped.made_batches import make_batch
from mmseg_m2f.config.initial_weights import set_pretrained
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import replace_file

STAGES = ("build", "step", "predict")
_LONGEST_REASON = 300
_PATIENCE = 10.0  # times the seconds of a processor that a stage may take on a busy machine


@dataclass(frozen=True)
class Limits:
    """What a trial may use.

    Args:
        side: of the generated images, in pixels.
        largest: the side tried where the model does not take `side`.
        seconds: of a processor, of each stage.
        gigabytes: of memory of each process.
    """

    side: int = 128
    largest: int = 512
    seconds: float = 90.0
    gigabytes: float = 8.0


def try_config(file: Path, log: Path, limits: Limits) -> dict[str, str]:
    """Stage -> "" if it works, else the reason; a stage behind a failed build is absent."""
    report = log.with_suffix(".reason")
    outcome = _in_process(lambda: _stages(file, report, limits), log, report, limits, stages=2)
    if outcome:
        return dict(build=outcome)
    found = report.read_text(encoding="utf-8").splitlines()
    report.unlink()
    return dict(zip(STAGES, ["", *found], strict=True))


def build_model(cfg: Config) -> BaseModel:
    """The model with random weights; nothing is downloaded on purpose.

    Raises:
        ValueError: the config has no model.
    """
    if not isinstance(cfg.get("model"), dict):
        raise InvalidValueError("expected a model, got a config without one: an ingredient of others.")
    scope = cfg.get("default_scope") or "mmdet"
    import_module(f"{scope}.utils").register_all_modules(init_default_scope=False)
    init_default_scope(scope)
    set_pretrained(cfg, False)
    drop_fixed_sizes(cfg.model.get("data_preprocessor") or {})
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg.model)


def drop_fixed_sizes(preprocessor: MutableMapping) -> None:
    """Keep a data preprocessor from padding or resizing batches to the size of the published training."""
    for key in ("size", "size_divisor"):
        if isinstance(preprocessor.get(key), (list, tuple)):
            preprocessor.pop(key)
            preprocessor["size_divisor"] = 32
    if preprocessor.get("batch_augments"):
        preprocessor["batch_augments"] = None


def sides_of(cfg: Config, limits: Limits) -> list[int]:
    """Sides of images to try: the small one, the config's own crop if it is square and not huge, the largest."""
    crop = cfg.get("crop_size")
    own = [crop[0]] if isinstance(crop, (list, tuple)) and crop[0] == crop[-1] <= 2 * limits.largest else []
    return list(dict.fromkeys([limits.side, *own, limits.largest]))


def train_step(model: BaseModel, cfg: Config, side: int) -> None:
    """One step of SGD on a generated batch.

    Raises:
        ValueError: the loss is not finite, or no gradient reaches the model.
    """
    model.train()
    batch = make_batch(cfg, side=side, training=True)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-5))
    losses = model.train_step(batch, optimizer)
    total = losses["loss"]
    if not torch.isfinite(total):
        raise InvalidValueError(f"expected a finite loss, got {float(total)}.")


def predict(model: BaseModel, cfg: Config, side: int) -> None:
    """One prediction on a generated image.

    Raises:
        ValueError: nothing came out.
    """
    model.eval()
    with torch.no_grad():
        results = model.test_step(make_batch(cfg, side=side, training=False))
    if isinstance(results, Tensor) or not results:
        raise InvalidValueError(f"expected a list of samples, got {type(results).__name__}.")


def _stages(file: Path, report: Path, limits: Limits) -> None:
    cfg = Config.fromfile(file)
    model = build_model(cfg)
    reasons = []
    for stage in (train_step, predict):
        found = report.with_suffix(f".{stage.__name__}")
        reason = ""
        sides = sides_of(cfg, limits)
        for side in sides:
            reason = _in_process(
                lambda stage=stage, side=side: stage(model, cfg, side),  # type: ignore[misc]
                found.with_suffix(".log"),
                found,
                limits,
            )
            if not reason or _is_final(reason):
                break
        reasons.append(reason)
    replace_file(report, ("\n".join(reasons) + "\n").encode())


def _is_final(reason: str) -> bool:
    """Whether a larger image would not help: out of time or memory, or an operator or package is missing."""
    return reason.startswith(("more than", "RuntimeError: mmcv._ext", "ModuleNotFound", "ImportError"))


def _in_process(work: Callable[[], None], log: Path, report: Path, limits: Limits, *, stages: int = 0) -> str:
    """Do `work` in a forked process; gives the reason of a failure, else the empty string."""
    log.parent.mkdir(parents=True, exist_ok=True)
    reason = report.with_name(report.name + ".failure")
    reason.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work, log, reason, limits))
    process.start()
    process.join(_PATIENCE * limits.seconds * (1 + 2 * stages))
    if process.is_alive():
        process.kill()
        process.join()
        return f"more than {_PATIENCE * limits.seconds:.0f} s by the clock"
    if process.exitcode == 0:
        return ""
    if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"more than {limits.seconds:.0f} s of a processor"
    if reason.exists():
        found = reason.read_text(encoding="utf-8")
        reason.unlink()
        return found
    return f"ended by signal {-(process.exitcode or 0)}: more than {limits.gigabytes:g} GB of memory, or a crash"


def _child(work: Callable[[], None], log: Path, reason: Path, limits: Limits) -> None:
    """Set limits, send what is printed to the log, and leave the last line of an exception in `reason`."""
    most = int(limits.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    used = int(time.process_time() + limits.seconds)  # a fork starts at 0, the system counts whole seconds
    resource.setrlimit(resource.RLIMIT_CPU, (used + 1, resource.RLIM_INFINITY))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.manual_seed(0)
    try:
        work()
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            line = " ".join("".join(traceback.format_exception_only(error)).split())
            replace_file(reason, line[:_LONGEST_REASON].encode())
        sys.stdout.flush()
        sys.stderr.flush()
