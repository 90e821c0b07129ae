"""Write a model as one file that other runtimes execute, after checking that it gives the same numbers."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.export import main

if __name__ == "__main__":
    main(call=Call.of_tool("export"))
