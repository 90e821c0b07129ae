"""Which runs there are, and doing them one after the other, each in processes of its own."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mmseg_m2f.benchmark.heads.budget import Budget, apply_budget
from mmseg_m2f.benchmark.heads.scores import SCORES, check_evaluator
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.operators import check_operators
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import locked, replace_file

_PACKAGE_ROOT = Path(__file__).parents[3]
_ITERATION = re.compile(r"Iter\((train|val|test)\)\s*\[\s*(\d+)/\s*(\d+)\]")
_TOLD = re.compile(rf"\s(?:\S+/)?(eta|loss|{'|'.join(SCORES)}): ((?:\d+ days?, )?\S+)")
_SHOWN_LINES = 15
_PATIENCE = 60.0  # seconds for a run to end when asked to; torch's launcher gives its processes 30


@dataclass(frozen=True)
class Run:
    """One config with one seed.

    Args:
        name: of the head, unique among the configs.
        source: the config it was made of.
        folder: where everything of the run is.
    """

    name: str
    source: str
    seed: int
    folder: Path

    @property
    def config(self) -> Path:
        """The config with its budget; beside the folder, in which mmengine writes what it makes of it."""
        return self.folder.with_suffix(".py")

    @property
    def result(self) -> Path:
        """The file that a finished run has."""
        return self.folder / "result.json"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    run: Run
    status: int
    last_lines: tuple[str, ...]


def prepare_runs(configs: Sequence[str], seeds: Sequence[int], budget: Budget, out: str | Path) -> list[Run]:
    """One run for each config and seed, its config checked and in place; all seeds of a config behind each other.

    Raises:
        ValueError: a config given twice, or a folder in which a run with another budget was begun.
        FileNotFoundError, KeyError, TypeError: a config does not exist, or cannot be trained here.
    """
    paths = [find_config(config) for config in configs]
    if len(set(map(os.path.abspath, paths))) < len(configs) or len(set(seeds)) < len(seeds):
        raise InvalidValueError(
            f"configs and seeds: expected each once, got {', '.join(configs)}; seeds {list(seeds)}."
        )
    stems = Counter(path.stem for path in paths)
    runs = []
    for path in paths:
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
        for seed in seeds:
            run = Run(name, str(path), seed, Path(out) / name / f"seed-{seed}")
            _write_config(run, budget)
            runs.append(run)
    return runs


def perform_all(
    runs: Sequence[Run], *, num_images: int, processes: int, say: Callable[[str], None] = print
) -> list[Failure]:
    """Do what is not done yet, and give the runs that failed; the others go on.

    Args:
        processes: of each run, one per GPU; more than one are started by torch's launcher.

    Raises:
        ValueError: another process is at one of the runs.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the processes of the run have ended by then.
    """
    for run in runs:
        with writing(run.folder):
            pass
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _perform_all(runs, num_images=num_images, processes=processes, say=say)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep other processes from doing the run of a folder; the system lets go when the process ends in any way.

    Raises:
        ValueError: another process is at it.
    """
    with locked(folder / "lock", remedy="give another --out"):
        yield


def default_processes() -> int:
    """One per GPU, or one."""
    return max(torch.cuda.device_count(), 1)


def _perform_all(runs: Sequence[Run], *, num_images: int, processes: int, say: Callable[[str], None]) -> list[Failure]:
    failures = []
    for number, run in enumerate(runs, 1):
        title = f"[{number}/{len(runs)}] {run.name}, seed {run.seed}"
        if run.result.exists():
            say(f"{title}: finished before")
            continue
        say(f"{title}: {run.log}")
        status = _perform(_command(run, num_images=num_images, processes=processes), run.log, say)
        if status == 0 and run.result.exists():
            continue
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
        failures.append(Failure(run, status, tuple(lines[-_SHOWN_LINES:])))
        say(f"{title}: FAILED with exit status {status}; the last lines of {run.log}:")
        for line in failures[-1].last_lines:
            say(f"    {line}")
    return failures


def _write_config(run: Run, budget: Budget) -> None:
    cfg = load_config(run.source, work_dir=str(run.folder))
    try:
        apply_budget(cfg, budget, seed=run.seed)
        check_config(cfg)
        check_operators(cfg)
        check_data_paths(cfg)
        check_evaluator(cfg.get("test_evaluator"), scope=cfg.get("default_scope") or "mmengine")
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"{run.source}: {error.args[0]}") from error
    text = cfg.pretty_text
    if run.config.exists() and run.config.read_text(encoding="utf-8") != text:
        raise InvalidValueError(
            f"{run.folder}: expected nothing, or a run under the same budget to go on with, got one whose config "
            "differs. Give another --out, or delete the folder."
        )
    replace_file(run.config, text.encode())


def _command(run: Run, *, num_images: int, processes: int) -> list[str]:
    worker = ["-m", "mmseg_m2f.benchmark.heads.worker", str(run.config), "--images", str(num_images)]
    if processes == 1:
        return [sys.executable, *worker]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *launcher, *worker, "--launcher", "pytorch"]


def _perform(command: Sequence[str], log: Path, say: Callable[[str], None]) -> int:
    """Run a command, its output appended to the log, and tell how far it is."""
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONUNBUFFERED="1")
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                if progress := _progress(line):
                    say(f"  {progress}")
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Make sure that a process has ended, and with it those that it started."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _progress(line: str) -> str | None:
    """What a line of mmengine's log says about how far a run is; None for lines that say nothing new."""
    found = _ITERATION.search(line)
    told = [f"{name} {value}" for name, value in _TOLD.findall(line)]
    if found is None or (found[1] != "train" and not any(text.split()[0] in SCORES for text in told)):
        return None
    return ", ".join([f"{found[1]} {found[2]} of {found[3]}" if found[1] == "train" else found[1], *told])
