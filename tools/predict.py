"""Segment images or a video, or find objects: pictures or a video with a legend, and the results as PNG and JSON."""

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.command_line.predict import main

if __name__ == "__main__":
    main(call=Call.of_tool("predict"))
