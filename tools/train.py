"""Train what a config describes."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.train import main

if __name__ == "__main__":
    main(call=Call.of_tool("train"))
