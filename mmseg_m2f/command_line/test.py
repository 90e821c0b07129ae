"""Evaluate a checkpoint on the test set of its config."""

from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call, add_config, add_launcher
from mmseg_m2f.engine.launch import evaluate
from mmseg_m2f.engine.ranks import warnings_of_first_rank
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/best_mIoU_iter_80000.pth
  {run} CONFIG CHECKPOINT --tta --out results --show-dir results/pictures
  torchrun --nproc_per_node 8 {script} CONFIG CHECKPOINT --launcher pytorch
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and test."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file, or an exported one (.onnx, .xml, .pt2)")
    parser.add_argument("--work-dir", help="folder of the log; default work_dirs/<config name>")
    parser.add_argument("--out", help="folder for metrics.json and predictions: labels/, panoptic/, instances.json")
    parser.add_argument("--show-dir", help="folder for one picture per image: input, truth, prediction")
    parser.add_argument("--tta", action="store_true", help="average over views, and report without as well")
    add_launcher(parser)
    args = parser.parse_args(arguments)
    with concise_errors(), warnings_of_first_rank(args.launcher):
        evaluate(
            args.config,
            args.checkpoint,
            args.cfg_options,
            work_dir=args.work_dir,
            out=args.out,
            show_dir=args.show_dir,
            tta=args.tta,
            launcher=args.launcher,
        )
