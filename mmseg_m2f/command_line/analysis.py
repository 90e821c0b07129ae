"""Look into a config, data, runs and trained models: costs, samples, confusion, curves, errors, queries."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mmseg_m2f.analysis.confusion import ConfusionCounter
from mmseg_m2f.analysis.judged_samples import TASKS, Task, task_of, visit_test_set
from mmseg_m2f.analysis.object_errors import ObjectErrors
from mmseg_m2f.analysis.panoptic_errors import PanopticErrors
from mmseg_m2f.analysis.part_costs import measure_network
from mmseg_m2f.analysis.query_page import layer_figures, query_page, summary
from mmseg_m2f.analysis.query_visits import analyse_queries
from mmseg_m2f.analysis.run_curves import compare_runs
from mmseg_m2f.analysis.sample_sheet import sample_sheet
from mmseg_m2f.analysis.semantic_errors import SemanticErrors
from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.files import replace_file, save_png

EXAMPLES = """examples:
  {run} flops CONFIG --size 512 512
  {run} browse CONFIG --loop val --out samples.png
  {run} confusion CONFIG CHECKPOINT --out confusion
  {run} curves work_dirs/FIRST work_dirs/SECOND --metric mIoU
  {run} errors CONFIG CHECKPOINT --out errors.csv
  {run} queries CONFIG CHECKPOINT --out queries.html

`{run} SUBCOMMAND --help` explains one; docs/analysis.md shows what each gives.
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and run one analysis."""
    parser = call.parser(__doc__, EXAMPLES)
    commands = parser.add_subparsers(dest="analysis", required=True, metavar="SUBCOMMAND")
    for add in (_add_flops, _add_browse, _add_confusion, _add_curves, _add_errors, _add_queries):
        add(commands)
    args = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = args.run
    with concise_errors():
        run(args)


def _add(commands: "argparse._SubParsersAction", name: str, run: Callable, does: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=does, description=does[0].upper() + does[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_trained(parser: argparse.ArgumentParser) -> None:
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file, or an exported one (.onnx, .xml, .pt2)")
    parser.add_argument("--work-dir", help="folder of the log; default work_dirs/<config name>")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, help="what to compare; default: that of the config's first metric")


def _add_flops(commands: "argparse._SubParsersAction") -> None:
    does = "parameters, multiply-adds, memory and time of each part of a network, for one image"
    parser = _add(commands, "flops", _flops, does)
    add_config(parser, config_help="whose model")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the image; default: the config's crop_size"
    )
    parser.add_argument("--device", help="as torch names it: cpu, cuda, cuda:1; default: the GPU if there is one")


def _flops(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    print(measure_network(cfg, size=None if args.size is None else tuple(args.size), device=args.device).text())


def _add_browse(commands: "argparse._SubParsersAction") -> None:
    does = "samples with their labels as they leave the pipeline, on one sheet"
    parser = _add(commands, "browse", _browse, does)
    add_config(parser, config_help="whose data")
    parser.add_argument("--loop", choices=["train", "val", "test"], default="train", help="default %(default)s")
    parser.add_argument("--samples", type=int, default=12, help="how many, spread evenly; default %(default)s")
    parser.add_argument("--numbers", type=int, nargs="+", help="these samples instead, counted from 0")
    parser.add_argument("--out", default="samples.png", metavar="FILE.png", help="default %(default)s")


def _browse(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    save_png(sample_sheet(cfg, loop=args.loop, samples=args.numbers or args.samples), args.out)
    print(f"Look at {args.out}")


def _add_confusion(commands: "argparse._SubParsersAction") -> None:
    does = "which class a model takes for which, as picture and CSV file: pixels, segments or objects"
    parser = _add(commands, "confusion", _confusion, does)
    _add_trained(parser)
    _add_task(parser)
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="count objects from this score on; default %(default)s"
    )
    parser.add_argument("--out", default="confusion", metavar="STEM", help="STEM.png and STEM.csv; default %(default)s")


def _confusion(args: argparse.Namespace) -> None:
    task = task_of(args.config, args.cfg_options, task=args.task)
    counter = ConfusionCounter(task, score_threshold=args.score_threshold)
    data = visit_test_set(
        args.config, args.checkpoint, args.cfg_options, task=task, visit=counter, work_dir=args.work_dir
    )
    matrix = counter.matrix(data.classes)
    stem = Path(args.out)
    save_png(matrix.picture(), stem.with_name(stem.name + ".png"))
    replace_file(stem.with_name(stem.name + ".csv"), matrix.csv().encode())
    for line in matrix.worst():
        print(line)
    print(f"Look at {stem}.png and {stem}.csv")


def _add_curves(commands: "argparse._SubParsersAction") -> None:
    does = "loss and validation metric of several runs in one picture"
    parser = _add(commands, "curves", _curves, does)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work folder of a run")
    parser.add_argument("--metric", help="name of the metric, such as mIoU; default: the first of PQ, AP, mIoU")
    parser.add_argument("--out", default="curves.png", metavar="FILE.png", help="default %(default)s")


def _curves(args: argparse.Namespace) -> None:
    save_png(compare_runs(args.runs, metric=args.metric), args.out)
    print(f"Look at {args.out}")


def _add_errors(commands: "argparse._SubParsersAction") -> None:
    does = "what costs mIoU, PQ or AP: how many errors of each kind, and the metric if they were mended"
    parser = _add(commands, "errors", _errors, does)
    _add_trained(parser)
    _add_task(parser)
    parser.add_argument("--out", metavar="FILE.csv", help="also write the table as CSV file")


def _errors(args: argparse.Namespace) -> None:
    task = task_of(args.config, args.cfg_options, task=args.task)
    kinds: dict[Task, Callable[[], SemanticErrors | PanopticErrors | ObjectErrors]] = dict(
        semantic=SemanticErrors, panoptic=PanopticErrors, instance=ObjectErrors
    )
    errors = kinds[task]()
    visit_test_set(args.config, args.checkpoint, args.cfg_options, task=task, visit=errors, work_dir=args.work_dir)
    print(errors.table().text())
    if args.out is not None:
        replace_file(args.out, errors.table().csv().encode())
        print(f"Look at {args.out}")


def _add_queries(commands: "argparse._SubParsersAction") -> None:
    does = "what each query does: classes, areas, places, matches; metrics and changed matches by decoder layer"
    parser = _add(commands, "queries", _queries, does)
    _add_trained(parser)
    parser.add_argument("--out", default="queries.html", metavar="FILE.html", help="default %(default)s")


def _queries(args: argparse.Namespace) -> None:
    found = analyse_queries(args.config, args.checkpoint, args.cfg_options, work_dir=args.work_dir)
    replace_file(args.out, query_page(found, title=f"Queries: {args.config}").encode())
    print(summary(found))
    for number, layer in enumerate(found.layers):
        print(
            f"layer {number}: "
            + "  ".join(f"{name} {layer[name]:.4f}" for name in layer_figures(found) if name in layer)
        )
    print(f"Look at {args.out}")
