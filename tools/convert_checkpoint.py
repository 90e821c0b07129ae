"""Write the weights of a Mask2Former, its relatives or a DETR under the names that another library reads."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.convert import main

if __name__ == "__main__":
    main(call=Call.of_tool("convert_checkpoint"))
