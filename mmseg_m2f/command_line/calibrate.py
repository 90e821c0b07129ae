"""Fit temperatures on held-out images, so that the confidences of a checkpoint are probabilities."""

from collections.abc import Sequence
from pathlib import Path

from mmseg_m2f.analysis.fit_confidence import fit_confidence
from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/best_mIoU_iter_80000.pth
  {run} CONFIG CHECKPOINT --images 500 --out work_dirs/RUN/calibration
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and fit."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file, or an exported one (.onnx, .xml, .pt2)")
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="whose images are held out; default %(default)s"
    )
    parser.add_argument("--images", type=int, default=200, help="at most so many; default %(default)s")
    parser.add_argument("--pixels", type=int, default=1000, help="of each image, at random; default %(default)s")
    parser.add_argument("--device", help="as torch names it: cpu, cuda, cuda:1; default: the GPU if there is one")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/calibration"), help="default %(default)s")
    args = parser.parse_args(arguments)
    with concise_errors():
        fit = fit_confidence(
            args.config,
            args.checkpoint,
            args.cfg_options,
            split=args.split,
            num_images=args.images,
            pixels_per_image=args.pixels,
            device=args.device,
        )
        fit.save(args.out, config=args.config)
        print(fit.text())
        print(f"{fit.num_images} images of the {fit.split} set: every other one was fitted, the others are measured.")
        print(f"Use {args.out}/calibrated.py, or --cfg-options {fit.options()}")
