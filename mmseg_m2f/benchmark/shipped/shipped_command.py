"""`shipped` of `tools/benchmark.py`: what it takes, and its files."""

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from mmseg_m2f.benchmark.machine import describe_machine
from mmseg_m2f.benchmark.shipped.catalogue import LIBRARIES, shipped_configs
from mmseg_m2f.benchmark.shipped.outcomes import Outcome, count, known_outcomes
from mmseg_m2f.benchmark.shipped.processes import Limits
from mmseg_m2f.benchmark.shipped.table import evidence, families, operators, reasons, summary
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import replace_file

DESCRIPTION = """Build the model of every config inside the installed mmseg and mmdet, take a training step and predict,
on a CPU, with random weights and generated images. Each trial runs in processes of its own. Run it again after an
interruption: what is done is kept. A step and a prediction are made with the smallest model of each kind; models are of
one kind if their parts have the same types."""


def add_shipped(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The sub-command."""
    parser = commands.add_parser(
        "shipped", help="count upstream's configs that build, train and predict here", description=DESCRIPTION
    )
    defaults = Limits()
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES, help="default: both")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="configs whose name holds one of these")
    parser.add_argument("--sample", action="store_true", help="the first config of each folder alone")
    parser.add_argument("--every-model", action="store_true", help="step and predict with every model: takes hours")
    parser.add_argument("--count-only", action="store_true", help="write the table of what is done, and try nothing")
    parser.add_argument(
        "--sides",
        nargs="+",
        type=int,
        default=list(defaults.sides),
        help="of the images, in pixels; a larger one where a model does not take the last; default %(default)s",
    )
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="of a stage; default %(default)s")
    parser.add_argument("--gigabytes", type=float, default=defaults.gigabytes, help="of memory; default %(default)s")
    parser.add_argument("--out", default="work_dirs/shipped", help="folder of outcomes, logs and table")
    parser.set_defaults(run=run_shipped)


def run_shipped(args: argparse.Namespace) -> None:
    """Do the count; writes shipped.md and outcomes.json."""
    configs = shipped_configs(args.libraries, one_per_family=args.sample)
    if args.only:
        configs = [config for config in configs if any(text in config.name for text in args.only)]
    if not configs:
        raise InvalidValueError(
            f"--only {' '.join(args.only)}: expected a part of a config's name, got none that fits."
        )
    limits = Limits(tuple(sorted(args.sides)), seconds=args.seconds, gigabytes=args.gigabytes)
    out = Path(args.out)
    if args.count_only:
        outcomes = known_outcomes(configs, out, limits)
    else:
        outcomes = count(configs, out, limits, every_model=args.every_model)
    text = page(outcomes, limits)
    replace_file(out / "shipped.md", text.encode())
    print(f"\n{summary(outcomes)}\nWrote {out}/shipped.md and outcomes.json.")


def page(outcomes: Mapping[str, Outcome], limits: Limits) -> str:
    """The whole table with machine, limits and command."""
    machine = describe_machine(1, "cpu")
    sides = ", then ".join(map(str, limits.sides))
    packages = ", ".join(f"{name} {version}" for name, version in dict(machine["packages"]).items())  # type: ignore[call-overload]
    return "\n".join(
        [
            "# Configs that mmseg and mmdet ship",
            "",
            f"One CPU core, torch {machine['torch']}, {packages}; random weights, generated images of {sides} pixels "
            f"until a model takes one; at most {limits.seconds:g} s and {limits.gigabytes:g} GB for each stage. "
            "Samplers draw at most 32 regions, text encoders read one sentence for each class, and mmcv's SyncBN "
            "becomes BN. Every model is built; a step and a prediction are made with the smallest model of each kind "
            "(parts of the same types).",
            "",
            f"Command: `python {shlex.join(sys.argv)}`",
            "",
            summary(outcomes),
            evidence(outcomes),
            "## Operators that this package serves",
            "",
            operators(outcomes),
            "## Why the others do not",
            "",
            reasons(outcomes),
            "## Folders in which some do not",
            "",
            families(outcomes),
        ]
    )
