"""Segment images or a video, or find objects: pictures or a video with a legend, and the results as PNG and JSON."""

import sys
from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.engine.trained_model import find_trained
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.inference.folder import predict_folder
from mmseg_m2f.inference.large_image import predict_large
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.video import is_video, predict_video

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/iter_80000.pth street.jpg
  {run} CONFIG CHECKPOINT photos/ --out-dir predictions --device cuda:1 --opacity 0.5
  {run} CONFIG CHECKPOINT photos/ --score-threshold 0.3
  {run} CONFIG CHECKPOINT drive.mp4
  {run} CONFIG CHECKPOINT orthophoto.tif --large --cfg-options window_size=512 window_overlap=128
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and predict; exit status 1 where an image or the end of a video was skipped."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file, or an exported one (.onnx, .xml, .pt2)")
    parser.add_argument(
        "images",
        metavar="IMAGE|FOLDER|VIDEO",
        help="an image, a video, or a folder searched for images with its subfolders",
    )
    parser.add_argument(
        "--out-dir",
        default="predictions",
        help="pictures go there; below it labels/, panoptic/ with panoptic.json, instances.json; default %(default)s",
    )
    parser.add_argument("--device", help="as torch names it: cpu, cuda, cuda:1; default: the GPU if there is one")
    parser.add_argument("--opacity", type=float, default=0.6, help="of the class colours, 0...1; default %(default)s")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="draw objects from this score on, 0...1; default %(default)s"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="read, predict and write one image of any size window by window (window_size): maps as TIFF, objects as "
        "JSON, no pictures; needs the extra `large`",
    )
    args = parser.parse_args(arguments)
    with concise_errors():
        cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
        predictor = Predictor(cfg, weights, device=args.device)
        if args.large:
            print("Wrote " + ", ".join(map(str, predict_large(predictor, args.images, args.out_dir))) + ".")
            return
        predict = predict_video if is_video(args.images) else predict_folder
        skipped = predict(
            predictor, args.images, args.out_dir, opacity=args.opacity, score_threshold=args.score_threshold
        )
    print(f"Wrote predictions to {args.out_dir}.")
    for message in skipped:
        print(f"skipped: {message}", file=sys.stderr)
    raise SystemExit(1 if skipped else 0)
