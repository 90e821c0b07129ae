"""Write a data set of another format as label maps or objects that we read."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.convert_dataset import main

if __name__ == "__main__":
    main(call=Call.of_tool("convert_dataset"))
