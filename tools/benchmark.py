"""Measure: this package beside other implementations of Mask2Former, and heads beside each other."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.benchmark import main

if __name__ == "__main__":
    main(call=Call.of_tool("benchmark"))
