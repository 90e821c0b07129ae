"""`mmseg_m2f COMMAND`: the commands by their names."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmseg_m2f import __version__

#: Each command and what it does.
COMMANDS = {
    "train": "train what a config describes",
    "test": "evaluate a checkpoint",
    "predict": "segment images or find objects",
    "demo": "serve a small web page to try a model",
    "doctor": "look at all data and the config before training",
    "analysis": "look into a config, data, runs and trained models: costs, confusion, errors, queries",
    "calibrate": "fit temperatures, so that confidences are probabilities",
    "config": "print a config as it is resolved, or what differs between two",
    "benchmark": "measure beside other implementations, or heads beside each other",
    "export": "write a model as ONNX, OpenVINO or torch.export file",
    "publish": "write a model as one folder for other machines and the Hugging Face Hub",
    "convert": "write weights under the names that another library reads",
    "convert-dataset": "write a data set of another format as one that we read",
    "migrate": "write our config for one of mmsegmentation or mmdetection",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    arguments = sys.argv[1:] if arguments is None else arguments
    listed = "\n".join(f"  {name:<16} {does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mmseg_m2f",
        description="Mask classification for OpenMMLab.",
        usage="mmseg_m2f COMMAND ...",
        epilog=f"commands:\n{listed}\n\n`mmseg_m2f COMMAND --help` explains one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    name = parser.parse_args(arguments[:1]).command
    # Imported here: a command loads OpenMMLab, the list of commands does not.
    from mmseg_m2f.command_line.arguments import Call

    module = importlib.import_module(f"mmseg_m2f.command_line.{name.replace('-', '_')}")
    module.main(arguments[1:], call=Call.of_command(name))
