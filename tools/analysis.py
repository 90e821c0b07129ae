"""Look into a config, data, runs and trained models: costs, samples, confusion, curves, errors, queries."""

from mmseg_m2f.command_line.analysis import main
from mmseg_m2f.command_line.arguments import Call

if __name__ == "__main__":
    main(call=Call.of_tool("analysis"))
