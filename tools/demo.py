"""Serve a small web page to try a model on pictures; needs the extra `demo`."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.demo import main

if __name__ == "__main__":
    main(call=Call.of_tool("demo"))
