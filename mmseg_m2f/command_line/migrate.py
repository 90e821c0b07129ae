"""Write our config for a Mask2Former or MaskFormer config of mmsegmentation or mmdetection."""

from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.migration import migrate_config

EXAMPLES = """examples:
  {run} mmseg/configs/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py my_config.py
  {run} mine.py migrated.py --force
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and migrate."""
    parser = call.parser(__doc__, EXAMPLES)
    parser.add_argument("source", metavar="SRC", help="a config of mmseg or mmdet, or your own that is based on one")
    parser.add_argument("target", metavar="DST", help="the file to write; it needs no other and may lie anywhere")
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    args = parser.parse_args(arguments)
    with concise_errors():
        report = migrate_config(args.source, args.target, overwrite=args.force)
    print(f"{args.source}: {report.method}, {report.num_classes} classes")
    print(f"{args.target}: checked, and its model built: {report.num_parameters:,} parameters")
    print(f"carried over: {', '.join(report.carried)}")
    for title, entries in (("changed", report.changed), ("left out", report.left_out)):
        print(f"{title}:")
        for entry in entries or ["nothing"]:
            print(f"  {entry}")
