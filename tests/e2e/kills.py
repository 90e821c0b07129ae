"""Kill trainings, resume them, and compare with one that nobody killed.

usage: python tests/e2e/kills.py COUNT [FOLDER]

Half of the kills come at a random moment, half while a file is written, renamed, synced or deleted. Each killed run
has `max_keep_ckpts=1` and a best checkpoint. It is a fault where a checkpoint that was complete is lost, where an
incomplete one shows up under its name, where the run goes on from another one than the newest, and where it ends with
other weights, validations or files than the run that nobody killed.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from mmseg_m2f.checkpoints.checking import check_checkpoint
from mmseg_m2f.engine import launch
from tests.e2e.forked_runs import random_config, start, tensors, wait
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

ITERATIONS = 8


class Moments:
    """Counts the moments at which files change, notes finished checkpoints, and kills the process at one of them."""

    def __init__(self, folder: Path, *, kill_at: int = 0) -> None:
        self.folder = folder
        self.kill_at = kill_at
        self.count = 0

    def install(self) -> None:
        """Watch what `files.replace_file` and the checkpoint hook do."""
        write, rename, sync, remove = Path.write_bytes, os.replace, os.fsync, os.remove

        def watched_write(path: Path, content: bytes) -> int:
            if self.is_due():
                write(path, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(path, content)

        def watched_rename(source: str, target: str, **keywords: object) -> None:
            self.maybe_kill()
            rename(source, target, **keywords)
            if str(target).endswith(".pth"):
                self.note(f"written {Path(target).name}")
            self.maybe_kill()

        def watched_sync(descriptor: int) -> None:
            self.maybe_kill()
            sync(descriptor)

        def watched_remove(path: str, **keywords: object) -> None:
            self.maybe_kill()
            remove(path, **keywords)
            self.maybe_kill()

        Path.write_bytes, os.replace, os.fsync, os.remove = watched_write, watched_rename, watched_sync, watched_remove

    def note(self, line: str) -> None:
        with (self.folder / "journal").open("a") as journal:
            journal.write(line + "\n")

    def is_due(self) -> bool:
        self.count += 1
        (self.folder / "moments").write_text(str(self.count))
        return self.count == self.kill_at

    def maybe_kill(self) -> None:
        if self.is_due():
            os.kill(os.getpid(), signal.SIGKILL)


def train_watched(config: str, folder: Path, *, kill_at: int = 0, resume: bool = False) -> None:
    """What a child does."""
    moments = Moments(folder, kill_at=kill_at)
    moments.install()
    find = launch.find_checkpoint

    def noted(place: str) -> str | None:
        found = find(place)
        moments.note(f"resumed {Path(found).name if found else None}")
        return found

    launch.find_checkpoint = noted
    launch.train(config, work_dir=str(folder), resume=resume)


def newest(names: list[str]) -> str | None:
    """The file with the highest iteration."""
    return max((n for n in names if n.startswith("iter_")), key=lambda n: int(n[5:-4]), default=None)


def validations(path: Path) -> list[float]:
    """All figures that a run's last checkpoint remembers."""
    return list(check_checkpoint(path)["message_hub"]["log_scalars"]["val/mIoU"].data[0])


def faults_after_kill(folder: Path) -> list[str]:
    """What is wrong with the files of a killed run."""
    journal = folder / "journal"
    written = [line.split()[1] for line in journal.read_text().splitlines()] if journal.exists() else []
    there, faults = sorted(path.name for path in folder.glob("*.pth")), []
    for name in there:
        try:
            check_checkpoint(folder / name)
        except ValueError as error:
            faults.append(f"incomplete: {error}")
    if newest(written) not in (None, *there):
        faults.append(f"lost: {newest(written)} of {written}, there are {there}")
    if any(n.startswith("best") for n in written) and not any(n.startswith("best") for n in there):
        faults.append(f"no best checkpoint of {written} left, there are {there}")
    return faults


def faults_after_resume(folder: Path, straight: Path, *, before: str | None) -> list[str]:
    """What differs from the run that nobody killed."""
    faults = []
    resumed = [line.split()[1] for line in (folder / "journal").read_text().splitlines() if line.startswith("resumed")]
    if resumed != [str(before)]:
        faults.append(f"resumed from {resumed}, the newest was {before}")
    names = [sorted(path.name for path in run.glob("*.pth")) for run in (folder, straight)]
    if names[0] != names[1]:
        faults.append(f"files {names[0]}, expected {names[1]}")
    for name in names[1]:
        got, expected = tensors(folder / name), tensors(straight / name)
        different = [key for key in expected if key not in got or not torch.equal(got[key], expected[key])]
        if different:
            faults.append(f"{name}: {len(different)} of {len(expected)} tensors differ")
    last = f"iter_{ITERATIONS}.pth"
    if validations(folder / last) != validations(straight / last):
        faults.append(f"validations {validations(folder / last)}, expected {validations(straight / last)}")
    if leftovers := [path.name for path in folder.glob(".*.tmp")]:
        faults.append(f"unfinished files stay: {leftovers}")
    return faults


def run_kills(count: int, folder: Path, *, seed: int = 0) -> list[str]:
    """Kill `count` trainings and give what went wrong."""
    generator = random.Random(seed)
    write_dataset(folder / "data", count=3)
    cfg = random_config(folder / "data", max_iters=ITERATIONS, interval=2)
    full = tiny_config(folder / "data", max_iters=ITERATIONS)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg[key] = full[key]
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best="mIoU", rule="greater")
    config = write_config(cfg, folder / "killed.py")

    straight = folder / "straight"
    straight.mkdir()
    begin = time.monotonic()
    assert wait(start(lambda: train_watched(config, straight), log=folder / "log")) == 0, (folder / "log").read_text()
    duration, num_moments = time.monotonic() - begin, int((straight / "moments").read_text())
    print(f"a whole run: {duration:.1f} s, {num_moments} moments of its files", flush=True)

    faults: list[str] = []
    for trial in range(count):
        run = folder / f"run{trial}"
        run.mkdir()
        at = 1 + generator.randrange(num_moments) if trial % 2 else 0
        child = start(lambda run=run, at=at: train_watched(config, run, kill_at=at), log=run / "log")
        if not at:
            time.sleep(generator.uniform(0.0, duration))
            os.kill(child, signal.SIGKILL)
        status = wait(child)
        found = faults_after_kill(run)
        before = newest([path.name for path in run.glob("*.pth")])
        if (status_2 := wait(start(lambda run=run: train_watched(config, run, resume=True), log=run / "log"))) != 0:
            found.append(f"the resumed run ended with {status_2}: {(run / 'log').read_text()[-800:]}")
        else:
            found += faults_after_resume(run, straight, before=before)
        where = f"file moment {at}" if at else "a random moment"
        print(f"{trial + 1}: killed at {where} ({status}), resumed from {before}: {found or 'equal'}", flush=True)
        faults += [f"run {trial}: {fault}" for fault in found]
    return faults


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        target.mkdir(parents=True, exist_ok=True)
        wrong = run_kills(int(sys.argv[1]), target)
    print(f"{int(sys.argv[1])} kills, {len(wrong)} faults", *wrong, sep="\n")
    raise SystemExit(1 if wrong else 0)
