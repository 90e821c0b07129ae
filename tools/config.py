"""Print a config as it is resolved, with options applied; or what differs between two; or the names of all."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.config import main

if __name__ == "__main__":
    main(call=Call.of_tool("config"))
