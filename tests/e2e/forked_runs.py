"""Trainings in child processes that share the loaded libraries, so that starting and killing one takes little time."""

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import mmseg.datasets
import mmseg.models
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from yapf.yapflib import yapf_api

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine.launch import train
from tests.tiny_segmentation import tiny_config, write_dataset

PRELOADED = (mmseg.datasets, mmseg.models)  # imported here, once for all children


@HOOKS.register_module(force=True)
class KillAfter(Hook):
    """Ends the process at once, as `kill -9` does, when an iteration and all its hooks are done."""

    priority = "LOWEST"

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if runner.iter + 1 == self.iterations:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module(force=True)
class SpoilImages(Hook):
    """Puts a NaN into the images of an iteration, on the second process."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        if runner.iter + 1 == self.iterations and runner.rank == 1:
            images = [image.float() for image in data_batch["inputs"]]
            images[0][0, 3, 5] = float("nan")
            data_batch["inputs"] = images


def random_config(data: Path, *, max_iters: int = 20, interval: int = 10) -> Config:
    """The tiny segmentor with augmentations of all generators, and dropout."""
    cfg = tiny_config(data, max_iters=max_iters)
    cfg.model.decode_head.dropout_ratio = 0.3
    load_image, load_label, pack = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(
        cfg.train_dataloader.dataset,
        pipeline=[
            load_image,
            load_label,
            dict(type="mmengine.RandomResize", scale=(48, 32), ratio_range=(0.8, 1.5), keep_ratio=True),
            dict(type="mmseg.RandomCrop", crop_size=(32, 48), cat_max_ratio=0.9),
            dict(type="mmengine.RandomFlip", prob=0.5),
            dict(type="mmseg.PhotoMetricDistortion"),
            pack,
        ],
    )
    cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator = None, None, None
    cfg.default_hooks.checkpoint.interval = interval
    cfg.custom_hooks = []
    cfg.preflight, cfg.report = False, False
    return cfg


def validating_config(folder: Path) -> Config:
    """A `random_config` of 8 iterations, with checkpoints and validations, on five images written below a folder."""
    write_dataset(folder / "data", count=5)
    cfg = random_config(folder / "data", max_iters=8, interval=4)
    full = tiny_config(folder / "data", max_iters=8)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg[key] = full[key]
    return cfg


def start(function: Callable[[], object], *, log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run a function in a child process and give its id; what it prints goes to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    gc.freeze()  # mmengine collects garbage for each data set: not that of the parent
    yapf_api.FormatCode = lambda text, **_: (text, False)  # two seconds a run; layout is not what these runs are about
    status = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ.update(environment or {})
        torch.set_num_threads(1)
        function()
        status = 0
    except BaseException:  # noqa: BLE001  (the child must not go on as a second test process)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """The exit status of a child; negative: the signal that ended it. Its own children are ended too."""
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def train_in_children(config: str, work_dir: Path, options: Mapping, *, processes: int = 1, **arguments: object) -> int:
    """Train, with a process for each rank, and give the exit status of the first one."""
    launcher = "none" if processes == 1 else "pytorch"
    return run_in_children(
        lambda: train(config, dict(options), work_dir=str(work_dir), launcher=launcher, **arguments),
        work_dir,
        processes=processes,
    )


def run_in_children(function: Callable[[], object], folder: Path, *, processes: int) -> int:
    """Run a function in a process for each rank, and give the exit status of the first one; logs are `rankN.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        environment = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        environment = {} if processes == 1 else {name: str(value) for name, value in environment.items()}
        children.append(start(function, log=folder / f"rank{rank}.log", environment=environment))
    statuses = [wait(child) for child in children]
    return statuses[0]


def log(folder: Path) -> str:
    """The ends of what two processes have printed."""
    return "".join((folder / f"rank{rank}.log").read_text()[-3000:] for rank in range(2))


def losses(path: Path) -> torch.Tensor:
    """The losses of all iterations until a checkpoint."""
    return torch.tensor(check_checkpoint(path)["message_hub"]["log_scalars"]["train/loss"].data[0])


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """All weights, optimizer and moving-average states of a checkpoint, by their paths in the file."""
    content = check_checkpoint(path)
    found: dict[str, torch.Tensor] = {}

    def walk(node: object, name: str) -> None:
        if isinstance(node, torch.Tensor):
            found[name] = node
        elif isinstance(node, Mapping):
            for key, value in node.items():
                walk(value, f"{name}.{key}")

    for key in ("state_dict", "optimizer", "ema_state_dict"):
        walk(content.get(key) or {}, key)
    return found
