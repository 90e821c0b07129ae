"""Fit temperatures on held-out images, so that the confidences of a checkpoint are probabilities."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.calibrate import main

if __name__ == "__main__":
    main(call=Call.of_tool("calibrate"))
