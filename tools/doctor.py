"""Look at all data and the config before training: what is wrong, worst first, and what to change."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.doctor import main

if __name__ == "__main__":
    main(call=Call.of_tool("doctor"))
