"""Look at all data and the config before training: what is wrong, worst first, and what to change."""

import os
from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.doctor.channel_statistics import channel_statistics
from mmseg_m2f.engine.doctor.examination import examine
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} CONFIG
  {run} CONFIG --samples 500 --out doctor.html
  {run} CONFIG --statistics
  {run} CONFIG --fix fixed.py
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and examine; exit status 1 where there is an error."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="what to examine")
    parser.add_argument("--samples", type=int, help="look at so many samples of each set; default: all")
    parser.add_argument("--workers", type=int, help="threads that read; default: one per core")
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="print mean and standard deviation of the training images instead, as a line for the config",
    )
    parser.add_argument("--out", metavar="FILE.html", help="write a page with pictures")
    parser.add_argument("--fix", metavar="LEAF.py", help="write a config that mends what a config can mend")
    args = parser.parse_args(arguments)
    with concise_errors():
        if args.statistics:
            cfg = load_config(args.config, args.cfg_options)
            found_values = channel_statistics(cfg, samples=args.samples, workers=args.workers or os.cpu_count() or 1)
            print(found_values.text(cfg))
            return
        found = examine(args.config, args.cfg_options, samples=args.samples, workers=args.workers)
        print(found.text())
        if args.out is not None:
            found.save_page(args.out, title=f"Doctor: {args.config}")
            print(f"Look at {args.out}")
        if args.fix is not None:
            changes = found.save_fix(args.fix, config=args.config)
            print(f"{args.fix}: {', '.join(f'{key}={value}' for key, value in changes.items()) or 'nothing to change'}")
    raise SystemExit(1 if any(finding.severity == "error" for finding in found.findings) else 0)
