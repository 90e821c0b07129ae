"""Write a trained model as one folder: safetensors weights, config, classes, figures, card, hashes."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.publish import main

if __name__ == "__main__":
    main(call=Call.of_tool("publish"))
