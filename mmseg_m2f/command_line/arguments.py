"""What the commands share: arguments, and how they were called."""

import argparse
import os
from typing import NamedTuple

from mmengine.config import DictAction


class Call(NamedTuple):
    """How a command was called, for its help: as `tools/NAME.py` of a checkout, or as `mmseg_m2f COMMAND`.

    Attributes:
        program: What the line of usage begins with.
        run: What runs the command, `python tools/train.py`.
        script: What launchers of several processes run, `tools/train.py`.
    """

    program: str
    run: str
    script: str

    @classmethod
    def of_tool(cls, name: str) -> "Call":
        """`python tools/NAME.py`."""
        return cls(f"{name}.py", f"python tools/{name}.py", f"tools/{name}.py")

    @classmethod
    def of_command(cls, name: str) -> "Call":
        """`mmseg_m2f NAME`."""
        return cls(f"mmseg_m2f {name}", f"mmseg_m2f {name}", f"-m mmseg_m2f {name}")

    def parser(self, description: str | None, examples: str) -> argparse.ArgumentParser:
        """A parser with the examples below its help, in which {run} and {script} stand for the call."""
        return argparse.ArgumentParser(
            prog=self.program,
            description=description,
            epilog=examples.replace("{run}", self.run).replace("{script}", self.script),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )


def add_config(parser: argparse.ArgumentParser, *, config_help: str) -> None:
    """Add `config` and `--cfg-options`."""
    parser.add_argument("config", help=f"{config_help}: a path, or the name of a published one")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings: options such as data_root, backbone, max_iters, crop_size and num_classes reach all "
        "that depends on them (docs/configs.md); dotted keys set one place",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add `--launcher` and the local rank that old launchers pass."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument(
        "--local-rank",
        "--local_rank",
        type=lambda rank: os.environ.setdefault("LOCAL_RANK", rank),
        help="set by older launchers",
    )
