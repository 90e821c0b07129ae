"""Measure: this package beside other implementations of Mask2Former, and heads beside each other."""

import argparse
import sys

from mmseg_m2f.benchmark.command_line import add_scaling, add_step
from mmseg_m2f.benchmark.gate import UnequalError
from mmseg_m2f.benchmark.heads.command_line import add_heads
from mmseg_m2f.command_line import concise_errors

EXAMPLES = """examples:
  python tools/benchmark.py step
  python tools/benchmark.py step ours mmseg --size 512 1024 --objects 10 40 --what train memory
  python tools/benchmark.py step ours CONFIG --device cuda --dtype bfloat16 --batch 2 16
  python tools/benchmark.py scaling ours mmseg --over queries objects
  python tools/benchmark.py heads configs/*/*_shapes_demo.py --iterations 400 --seeds 0 1 2
"""


def main() -> None:
    """Parse the arguments and measure; exit status 1 where implementations differ or runs fail, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_step(commands)
    add_scaling(commands)
    add_heads(commands)
    args = parser.parse_args()
    try:
        with concise_errors():
            args.run(args)
    except UnequalError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
