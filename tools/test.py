"""Evaluate a checkpoint on the test set of its config."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.test import main

if __name__ == "__main__":
    main(call=Call.of_tool("test"))
