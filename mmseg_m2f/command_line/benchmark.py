"""Measure: this package beside other implementations of Mask2Former, and heads beside each other."""

import sys
from collections.abc import Sequence

from mmseg_m2f.benchmark.dial import add_dial
from mmseg_m2f.benchmark.exported_metrics import add_exported_metrics
from mmseg_m2f.benchmark.exported_sizes import add_exported_sizes
from mmseg_m2f.benchmark.exports import add_exported, add_exports
from mmseg_m2f.benchmark.gate import UnequalError
from mmseg_m2f.benchmark.heads.heads_command import add_heads
from mmseg_m2f.benchmark.large_command import add_large
from mmseg_m2f.benchmark.shipped.shipped_command import add_shipped
from mmseg_m2f.benchmark.step_commands import add_scaling, add_step, add_train
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} step
  {run} step ours mmseg --size 512 1024 --objects 10 40 --what train memory
  {run} step ours CONFIG --device cuda --dtype bfloat16 --batch 2 16
  {run} step ours ours+graphs mmseg --device cuda --dtype bfloat16 --batch 2 16 --profile
  {run} step mask-dino_r50_coco-instance-1024_50e mmdet-dino --queries 300 --classes 80
  {run} train CONFIG --amp --cfg-options model.cuda_graphs=True
  {run} dial CONFIG CHECKPOINT --layers 3 6 9 --queries 50 100
  {run} large --size 20000
  {run} scaling ours mmseg --over queries objects
  {run} exported model.onnx CHECKPOINT --size 512 512
  {run} exported-metrics CONFIG CHECKPOINT
  {run} exported-sizes mask2former_r50_ade20k-512_160k --sides 512 1024 --cfg-options pretrained=False
  {run} exports --page docs/deploy.md
  {run} heads configs/*/*_shapes_demo.py --iterations 400 --seeds 0 1 2
  {run} shipped --sample
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the arguments and measure; exit status 1 where implementations differ or runs fail, 130 after Ctrl-C."""
    parser = call.parser(__doc__, EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_step(commands)
    add_scaling(commands)
    add_train(commands)
    add_exports(commands)
    add_exported(commands)
    add_exported_metrics(commands)
    add_exported_sizes(commands)
    add_dial(commands)
    add_large(commands)
    add_heads(commands, run=call.run)
    add_shipped(commands)
    args = parser.parse_args(arguments)
    try:
        with concise_errors():
            args.run(args)
    except UnequalError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
