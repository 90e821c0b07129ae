"""Write our config for a Mask2Former or MaskFormer config of mmsegmentation or mmdetection."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.migrate import main

if __name__ == "__main__":
    main(call=Call.of_tool("migrate_config"))
