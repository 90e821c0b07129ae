"""Run the commands where a disk is full, read-only or limited, and check what they say.

usage: sudo python tests/e2e/disk_faults.py [FOLDER]

Mounts small file systems (tmpfs), so it has to be started by root. Each command has to end with exit status 2, without
a traceback, with the path of the file and a remedy, and must not leave an incomplete result under its name.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from mmseg_m2f.command_line import convert_dataset, predict, publish, test, train
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.inference import Predictor
from tests.datasets.formats import foreign_data
from tests.e2e.forked_runs import start, wait
from tests.tiny_segmentation import tiny_config, write_config, write_dataset

REMEDIES = {
    "full": "the disk is full",
    "read-only": "the disk is read-only",
    "limited": "ulimit -f unlimited",
}
#: Bytes of the full disk, of which some results leave no room for others, and of the largest file.
ROOM = {
    "train": (400_000, 100_000),
    "test": (8_192, 16_384),
    "predict": (4_096, 16_384),
    "convert-dataset": (4_096, 1_024),
    "publish": (100_000, 25_000),
}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def commands(root: Path) -> dict[str, Callable[[Path], list[str]]]:
    """The arguments of each command; the folder is where it writes."""
    write_dataset(root / "data", size=(128, 192))
    cfg = tiny_config(root / "data")
    weights = str(root / "weights.pth")
    torch.save(dict(state_dict=Predictor(cfg).model.state_dict()), weights)
    config, images = write_config(cfg, root / "tiny.py"), str(root / "data/images")
    foreign_data.write_yolo(root / "yolo")
    elsewhere = str(root / "logs")
    return {
        "train": lambda out: [config, "--work-dir", str(out / "run")],
        "test": lambda out: [
            *(config, weights, "--work-dir", elsewhere),
            *("--out", str(out / "results"), "--show-dir", str(out / "pictures")),
        ],
        "predict": lambda out: [config, weights, images, "--out-dir", str(out / "seen")],
        "convert-dataset": lambda out: [str(root / "yolo"), str(out / "ours"), "--from", "yolo", "--to", "objects"],
        "publish": lambda out: [config, weights, str(out / "published")],
    }


def said(name: str, arguments: list[str], log: Path, *, largest: int | None = None) -> tuple[int, str]:
    """Exit status and output of a command in a process of its own."""
    modules = dict(zip(ROOM, (train, test, predict, convert_dataset, publish), strict=True))

    def call() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        try:
            modules[name].main(arguments, call=Call.of_command(name))
        except SystemExit as ended:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code or 0))

    os.mkfifo(log)  # a file would fall under the limit
    reader = subprocess.Popen(["cat", str(log)], stdout=subprocess.PIPE, text=True)
    status = wait(start(call, log=log))
    text, _ = reader.communicate()
    return status, text


def fault(status: int, text: str, *, kind: str, out: Path) -> str:
    """What is wrong with the end of a command; "" where nothing is."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if "Traceback" in text:
        return f"a traceback: {last}"
    if status != 2:
        return f"exit status {status}: {last}"
    if REMEDIES[kind] not in text or str(out) not in text:
        return f"neither file nor remedy: {last}"
    return ""


def main(root: Path) -> int:
    """Run all commands with all faults; gives the number of those that are wrong."""
    wrong = 0
    calls = commands(root)
    for kind in REMEDIES:
        for name, arguments in calls.items():
            out = root / f"{kind}-{name}"
            log = root / f"{kind}-{name}.log"
            options = {"full": f"size={ROOM[name][0]}", "read-only": "ro,size=1m", "limited": "size=64m"}[kind]
            with mounted(out, options):
                largest = ROOM[name][1] if kind == "limited" else None
                status, text = said(name, arguments(out), log, largest=largest)
                broken = fault(status, text, kind=kind, out=out)
            wrong += bool(broken)
            message = next((line for line in text.splitlines() if line.startswith("Error:")), "")
            print(f"{kind}, {name}: {broken or 'ok'}\n    {message.replace(str(root), 'ROOT')[:200]}", flush=True)
    print(f"{len(calls) * len(REMEDIES)} commands, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) > 1:
        raise SystemExit(bool(main(Path(sys.argv[1]))))
    with tempfile.TemporaryDirectory() as folder:
        raise SystemExit(bool(main(Path(folder))))
