"""What the command line tools share: arguments, and errors that end them with the message alone."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import DictAction

from mmseg_m2f.errors import UserError


def make_parser(description: str | None, *, examples: str, config_help: str) -> argparse.ArgumentParser:
    """A parser with `config`, `--cfg-options`, and the examples below its help."""
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=config_help)
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings: options such as data_root, backbone, max_iters, crop_size and num_classes reach all "
        "that depends on them (docs/configs.md); dotted keys set one place",
    )
    return parser


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add `--launcher` and the local rank that old launchers pass."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument(
        "--local-rank",
        "--local_rank",
        type=lambda rank: os.environ.setdefault("LOCAL_RANK", rank),
        help="set by older launchers",
    )


@contextmanager
def concise_errors() -> Iterator[None]:
    """End the program with the message alone (exit status 2) where this package raised an error on purpose.

    Any other error keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
