"""Write a trained model as one folder: safetensors weights, config, classes, figures, card, hashes."""

from collections.abc import Sequence
from pathlib import Path

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.engine.trained_model import check_weights, find_trained, load_trained
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.export.publishing import publish
from mmseg_m2f.json_files import read_json

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/best_mIoU_iter_80000.pth OUT/
  {run} CONFIG CHECKPOINT OUT/ --metrics results/metrics.json --licence apache-2.0

Predictor("OUT/"), load_from="OUT/" in a config and the command export read the folder on any machine; it can be
uploaded to the Hugging Face Hub as it is.
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and publish."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file")
    parser.add_argument("folder", metavar="OUT", help="the folder to write")
    parser.add_argument("--metrics", metavar="JSON", help="metrics.json that the command test writes, for the card")
    parser.add_argument("--licence", default="unknown", help="of the weights, as the Hub names it; default %(default)s")
    args = parser.parse_args(arguments)
    with concise_errors():
        cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
        check_weights(weights)
        metrics = {} if args.metrics is None else _read_metrics(Path(args.metrics))
        names = publish(load_trained(cfg, weights), cfg, args.folder, metrics=metrics, licence=args.licence)
    print(f"Wrote {', '.join(names)} to {args.folder}.")


def _read_metrics(path: Path) -> dict[str, float]:
    what = "a JSON file of names and numbers, as tools/test.py --out writes it"
    return read_json(path, what=what, structure={str: float}, remedy="Correct --metrics, or leave it out.")
