"""Print a config as it is resolved, with options applied; or what differs between two; or the names of all."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.config.compare import differences
from mmseg_m2f.config.finding import find_config, published_configs
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import Options
from mmseg_m2f.errors import InvalidValueError, concise_errors

EXAMPLES = """examples:
  {run} mask2former_r50_ade20k-512_160k > base.py
  {run} CONFIG --cfg-options max_iters=20000 backbone=swin_t
  {run} CONFIG --cfg-options max_iters=20000 --diff CONFIG
  {run} mask2former_r50_ade20k-512_160k --diff mask2former_swin_t_ade20k-512_160k
  {run} --list
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and print."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="what to print")
    for action in parser._actions:
        if action.dest == "config":
            action.nargs = "?"  # --list needs none
    parser.add_argument("--diff", metavar="OTHER", help="print what differs from another config, without options")
    parser.add_argument("--list", action="store_true", help="print the names of the published configs")
    args = parser.parse_args(arguments)
    with concise_errors():
        if args.list:
            lines = [f"{name}  {_first_comment(path)}" for name, path in published_configs().items()]
        elif args.config is None:
            raise InvalidValueError("config: expected a path or a name, got none. Give one, or --list.")
        elif args.diff:
            found = differences(_resolve(args.config, args.cfg_options), _resolve(args.diff))
            lines = [f"{key}: {left} -> {right}" for key, left, right in found] or ["nothing differs"]
        else:
            lines = [_resolve(args.config, args.cfg_options).pretty_text.rstrip("\n")]
    print("\n".join(lines))


def _resolve(config: str, options: Options | None = None) -> Config:
    """The config without the work folder that follows from its name."""
    cfg = load_config(config, options)
    if cfg.work_dir == str(Path("work_dirs") / find_config(config).stem):
        cfg.pop("work_dir")
    return cfg


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
