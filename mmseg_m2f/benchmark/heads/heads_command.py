"""`heads` of `tools/benchmark.py`: what it takes, and its files."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from mmseg_m2f.benchmark.heads.budget import Budget
from mmseg_m2f.benchmark.heads.page import page
from mmseg_m2f.benchmark.heads.running import Failure, Run, default_processes, perform_all, prepare_runs
from mmseg_m2f.benchmark.heads.score_table import Row, as_json, in_words, markdown, notes, summarise
from mmseg_m2f.benchmark.machine import describe_machine
from mmseg_m2f.files import replace_file

EXAMPLES = """examples:
  {run} heads configs/*/*_shapes_demo.py --iterations 400 --seeds 0 1 2
  {run} heads A.py B.py --iterations 20000 --crop 512 512 --cfg-options data_root=/data/ade
  {run} heads A.py B.py --data shapes --from-scratch --iterations 800 --crop 128 128

Run it again after an interruption: finished runs are kept, the others go on where they were. A config may be one of
this package, of mmsegmentation or of mmdetection.
"""


def add_heads(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", *, run: str) -> None:
    """The sub-command; `run` is what runs the benchmark, for the examples."""
    parser = commands.add_parser(
        "heads",
        help="train and test configs under one budget; one table and one page",
        description="Train and test configs under one budget, each run in processes of its own.",
        epilog=EXAMPLES.replace("{run}", run),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs", nargs="+", metavar="CONFIG", help="what is compared: paths, or names of published ones"
    )
    parser.add_argument("--iterations", type=int, required=True, help="of training; schedules are scaled to them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="runs of each config; default 0")
    parser.add_argument(
        "--crop", type=int, nargs=2, metavar=("H", "W"), help="pixels trained on, and the size of generated scenes"
    )
    parser.add_argument(
        "--data", metavar="NAME", help="ingredient of configs/_base_/datasets instead of the configs' own"
    )
    parser.add_argument("--from-scratch", action="store_true", help="random initial weights; nothing is downloaded")
    parser.add_argument("--validations", type=int, default=8, help="during training; default %(default)s")
    parser.add_argument("--images", type=int, default=6, help="pictures on the page; default %(default)s")
    parser.add_argument("--processes", type=int, help="of each run; default one per GPU, or one")
    parser.add_argument("--out", default="work_dirs/heads", help="folder of runs, table and page; default %(default)s")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="settings of all configs; data_root=PATH reaches every dataset, backbone=NAME takes another ingredient",
    )
    parser.set_defaults(run=run_heads)


def run_heads(args: argparse.Namespace) -> None:
    """Do the runs; writes heads.md, heads.json and heads.html. Exit status 1 if some failed, 130 if interrupted."""
    budget = Budget(
        args.iterations,
        crop=None if args.crop is None else tuple(args.crop),
        data=args.data,
        from_scratch=args.from_scratch,
        validations=args.validations,
        options=args.cfg_options,
    )
    runs = prepare_runs(args.configs, args.seeds, budget, args.out)
    processes = args.processes or default_processes()
    failures: list[Failure] = []
    stopped = False
    try:
        failures = perform_all(runs, num_images=args.images, processes=processes)
    except KeyboardInterrupt:
        stopped = True
        print("stopped; the same command goes on from here", file=sys.stderr)
    write_summary(runs, failures, budget, out=Path(args.out))
    if stopped or failures:
        raise SystemExit(130 if stopped else 1)


def write_summary(runs: Sequence[Run], failures: Sequence[Failure], budget: Budget, *, out: Path) -> None:
    """Write heads.md, heads.json and heads.html of the runs that are finished, and print the table."""
    rows = summarise(runs)
    machine = describe_machine(1, "cpu")
    warnings = notes(rows)
    unfinished = [f"{run.name}, seed {run.seed}" for run in runs if not run.result.exists()]
    if unfinished:
        warnings.append(f"Not finished: {'; '.join(unfinished)}.")
    remarks = _remarks(rows, budget, machine)
    command = f"python {shlex.join(sys.argv)}"
    text = f"{markdown(rows, [*warnings, *remarks])}\nCommand:\n\n    {command}\n" if rows else "No run is finished.\n"
    content = dict(
        schema=1,
        command=sys.argv,
        machine=machine,
        budget=dict(iterations=budget.iterations, crop=budget.crop, data=budget.data, from_scratch=budget.from_scratch),
        rows=[as_json(row) for row in rows],
        failed=[dict(name=f.run.name, seed=f.run.seed, status=f.status, last_lines=f.last_lines) for f in failures],
        warnings=warnings,
    )
    replace_file(out / "heads.md", text.encode())
    replace_file(out / "heads.json", (json.dumps(content, indent=1) + "\n").encode())
    title = f"Heads after {budget.iterations} iterations"
    html = page(rows, failures, title=title, remarks=[*remarks, f"Command: {command}"], warnings=warnings)
    replace_file(out / "heads.html", html.encode())
    print(f"\n{text}\nWrote {out}/heads.md, heads.json and heads.html.")


def _remarks(rows: Sequence[Row], budget: Budget, machine: dict[str, object]) -> list[str]:
    """What the figures mean."""
    remarks = [f"{budget.iterations} iterations each; scores are fractions: the mean over seeds (least…most)."]
    if rows:
        setting = rows[0].setting
        seeds = sorted({seed for row in rows for seed in row.seeds})
        remarks.append(f"Tested on {in_words(setting['data'])}; seeds {', '.join(map(str, seeds))}.")
        height, width = setting["image_size"]
        remarks.append(
            f"Multiply–adds (matrix products, convolutions, attention) and latency: one test image, {height} × {width} "
            f"pixels. Training step and memory above weights and optimizer: a batch of {setting['batch']} on "
            f"{setting['device']}."
        )
    remarks.append(f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, {machine['date']}.")
    return remarks
