"""`step` and `scaling` of `tools/benchmark.py`: what they take, and their files."""

import argparse
import json
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import get_args

from mmengine.config import DictAction

from mmseg_m2f.benchmark.implementations import COMPILED, DEFAULT_NAMES, GRAPHED, NAMES
from mmseg_m2f.benchmark.measuring import Plan, StepReport, What, measure
from mmseg_m2f.benchmark.pace import measure_training
from mmseg_m2f.benchmark.setting import Setting
from mmseg_m2f.benchmark.summary import draw_curves, draw_settings, table
from mmseg_m2f.files import replace_file, save_png

SCALES = dict(
    queries=(50, 100, 200, 300), objects=(5, 10, 20, 40, 80), size=(256, 512, 768, 1024), classes=(20, 80, 150, 600)
)


def add_step(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`step`: all combinations of sizes, batches and objects."""
    parser = commands.add_parser("step", help="a training step and inference, in one or several settings")
    parser.add_argument("--size", type=int, nargs="+", default=[512], help="height and width, pixels; default 512")
    parser.add_argument("--batch", type=int, nargs="+", default=[2], help="images at once; default 2")
    parser.add_argument("--objects", type=int, nargs="+", default=[10, 40], help="segments per image; default 10 40")
    parser.add_argument("--profile", action="store_true", help="also write tables by kernel and by operator")
    add_common(parser, rounds=7, what=list(get_args(What)))
    parser.set_defaults(run=run_step)


def add_scaling(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`scaling`: one count varied at a time."""
    parser = commands.add_parser("scaling", help="curves over queries, objects, image size and classes")
    parser.add_argument("--over", nargs="+", choices=list(SCALES), default=list(SCALES), help="default: all")
    parser.add_argument("--size", type=int, default=512, help="height and width, pixels; default %(default)s")
    parser.add_argument("--batch", type=int, default=2, help="images at once; default %(default)s")
    parser.add_argument("--objects", type=int, default=10, help="segments per image; default %(default)s")
    add_common(parser, rounds=4, what=["train", "inference"])
    parser.set_defaults(run=run_scaling)


def add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`train`: a config's own training, with its data."""
    parser = commands.add_parser("train", help="iterations per second of a config, and how long it waits for data")
    parser.add_argument("config")
    parser.add_argument("--iterations", type=int, default=100, help="that are timed; default %(default)s")
    parser.add_argument("--warm-up", type=int, default=20, help="iterations before them; default %(default)s")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="as of tools/train.py"
    )
    parser.add_argument("--out", default="work_dirs/benchmark", help="folder of the report; default %(default)s")
    parser.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> None:
    """Train for a few iterations; writes train.json."""
    pace = measure_training(
        args.config,
        args.cfg_options,
        iterations=args.iterations,
        warm_up=args.warm_up,
        amp=args.amp,
        work_dir=Path(args.out) / "train",
    )
    replace_file(Path(args.out) / "train.json", (json.dumps(asdict(pace), indent=1) + "\n").encode())
    print(
        f"{pace.iterations_per_second:.2f} iterations per second of {pace.batch} images ({pace.device}); "
        f"{pace.waiting:.0%} of the time waiting for data. Wrote {Path(args.out) / 'train.json'}."
    )


def add_common(parser: argparse.ArgumentParser, *, rounds: int, what: list[str]) -> None:
    """What all kinds of measurement take."""
    parser.add_argument(
        "implementations",
        nargs="*",
        default=list(DEFAULT_NAMES),
        help=f"{', '.join(NAMES)}, or configs of ours; the others are compared with the first. ours{COMPILED} or "
        f"CONFIG{COMPILED} goes through torch.compile, ours{GRAPHED} through CUDA graphs. Default: "
        f"{', '.join(DEFAULT_NAMES)}",
    )
    parser.add_argument("--queries", type=int, default=100, help="default %(default)s")
    parser.add_argument("--classes", type=int, default=150, help="default %(default)s")
    parser.add_argument("--points", type=int, default=12544, help="sampled per mask; default %(default)s")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the activations")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; default %(default)s")
    parser.add_argument("--rounds", type=int, default=rounds, help="the first is not counted; default %(default)s")
    parser.add_argument(
        "--what", nargs="+", choices=get_args(What), default=what, help=f"what to measure; default {' '.join(what)}"
    )
    parser.add_argument("--out", default="work_dirs/benchmark", help="folder of report and chart; default %(default)s")
    parser.add_argument("--even-if-loaded", action="store_true", help="measure on a busy machine, and say so")


def run_step(args: argparse.Namespace) -> None:
    """Measure all combinations; writes step.json and step.png."""
    base = base_setting(args)
    settings = [
        replace(base, size=size, batch=batch, objects=objects)
        for size, batch, objects in product(args.size, args.batch, args.objects)
    ]
    report = measure(plan(args, settings), Path(args.out) / "step.json")
    save_png(draw_settings(report), Path(args.out) / "step.png")
    finish(report, Path(args.out) / "step")


def run_scaling(args: argparse.Namespace) -> None:
    """Measure along each scale; writes scaling.json and scaling.png."""
    base = replace(base_setting(args), size=args.size, batch=args.batch, objects=args.objects)
    varied = [
        replace(base, **{scale: value})  # type: ignore[arg-type]
        for scale in args.over
        for value in SCALES[scale]
        if scale != "classes" or value >= base.objects
    ]
    report = measure(plan(args, list(dict.fromkeys([base, *varied]))), Path(args.out) / "scaling.json")
    save_png(draw_curves(report, base), Path(args.out) / "scaling.png")
    finish(report, Path(args.out) / "scaling")


def base_setting(args: argparse.Namespace) -> Setting:
    """What the settings of a run have in common."""
    return Setting(
        objects=1,
        queries=args.queries,
        classes=args.classes,
        points=args.points,
        device=args.device,
        dtype=args.dtype,
    )


def plan(args: argparse.Namespace, settings: list[Setting]) -> Plan:
    """The plan of a run."""
    return Plan(
        args.implementations,
        settings,
        what=args.what,
        rounds=args.rounds,
        threads=args.threads,
        even_if_loaded=args.even_if_loaded,
        profile=getattr(args, "profile", False),
    )


def finish(report: StepReport, path: Path) -> None:
    """Print the table and where the rest is; exit status 130 if the run was stopped."""
    print(f"\n{table(report)}\n\nWrote {path}.json and {path}.png.")
    if not report["complete"]:
        raise SystemExit(130)
