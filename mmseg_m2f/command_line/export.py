"""Write a model as one file that other runtimes execute, after checking that it gives the same numbers."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.engine.trained_model import check_weights, find_trained, load_trained
from mmseg_m2f.errors import InvalidValueError, concise_errors
from mmseg_m2f.export.calibration import ImageSource
from mmseg_m2f.export.export_options import ExportOptions
from mmseg_m2f.export.model_export import export_model, reads_padding
from mmseg_m2f.files import is_remote

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/iter_80000.pth --out model.onnx
  {run} CONFIG CHECKPOINT --out model.onnx --size 512 512 --target tensorrt --fp16
  {run} CONFIG CHECKPOINT --out model.onnx --output full --with-script
  {run} CONFIG CHECKPOINT --out model.onnx --int8 --calibration photos/
  {run} CONFIG CHECKPOINT --out model.xml

formats: .onnx (onnxruntime, TensorRT), .xml (OpenVINO), .pt2 (torch.export)
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and export."""
    parser = call.parser(__doc__, EXAMPLES)
    _add_arguments(parser)
    args = parser.parse_args(arguments)
    with concise_errors():
        report = _export(args)
    print(f"Wrote {args.out} and {args.out}.json.")
    worst = max(report["max_errors"].values(), default=0.0)
    empty = " (one class only: this check was empty)" if report["label_check_empty"] else ""
    print(f"largest difference {worst:.1e}, labels that differ {report['label_disagreement']:.4%}{empty}")
    loss = report.get("loss")
    if loss is not None:
        after = loss["after"]
        print("\n".join(f"{name}: {x:.4f} -> {after[name]:.4f}" for name, x in loss["before"].items() if name in after))
        print(f"labels that change: {loss['changed_labels']:.4%}")
    print("milliseconds: " + ", ".join(f"{name} {value:.0f}" for name, value in report["latency_ms"].items()))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", nargs="?", help="a .pth file; none for a published folder in the place of CONFIG")
    parser.add_argument("--out", required=True, help="the file; its suffix chooses the format")
    parser.add_argument(
        "--output",
        choices=["logits", "full"],
        default="logits",
        help="logits for this package's pipeline and metrics, or full results from uint8 images; default %(default)s",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="one image of this size")
    sizes.add_argument("--dynamic", action="store_true", help="any number of images of any size; the default")
    parser.add_argument(
        "--target", choices=["any", "tensorrt"], default="any", help="tensorrt: choose --lowering gather by default"
    )
    parser.add_argument(
        "--lowering",
        choices=["gridsample", "gather"],
        help="bilinear reading as GridSample or by gathers; default gridsample, for tensorrt gather",
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="float16 products and weights, float32 sums and places")
    precision.add_argument("--int8", action="store_true", help="int8 convolutions; needs --calibration")
    parser.add_argument("--calibration", metavar="FOLDER", help="real images for --int8 and for the checks")
    parser.add_argument(
        "--evaluate",
        type=int,
        default=100,
        metavar="N",
        help="images of the config's test set that --fp16 and --int8 are measured on; default %(default)s, 0 for none",
    )
    parser.add_argument("--accept-loss", action="store_true", help="write a file of lower precision that loses much")
    parser.add_argument("--opset", type=int, default=18, help="of ONNX; default %(default)s")
    parser.add_argument("--max-per-image", type=int, help="objects of a full file; default: the config's")
    parser.add_argument("--with-script", action="store_true", help="a script beside a full file: onnxruntime and numpy")
    parser.add_argument("--licence", default="not stated", help="of the weights, written into the file")
    parser.add_argument("--no-compiled", action="store_true", help="do not measure torch.compile beside the file")


def _export(args: argparse.Namespace) -> Mapping[str, Any]:
    """Write the file; gives its report."""
    if is_remote(args.out):
        raise InvalidValueError(f"--out {args.out}: expected a local file, got a URL. Copy the file afterwards.")
    cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
    check_weights(weights)
    trained = load_trained(cfg, weights)
    options = ExportOptions(
        output=args.output,
        size=None if args.size is None else (args.size[0], args.size[1]),
        lowering=args.lowering or ("gather" if args.target == "tensorrt" else "gridsample"),
        opset=args.opset,
        precision="float16" if args.fp16 else "int8" if args.int8 else "float32",
        max_per_image=args.max_per_image,
        accept_loss=args.accept_loss,
        num_test_images=args.evaluate,
        with_script=args.with_script,
        licence=args.licence,
        measure_compiled=not args.no_compiled,
    )
    images = None
    if args.calibration is not None:
        images = ImageSource(
            trained,
            cfg,
            args.calibration,
            output=options.output,
            size=options.size,
            with_valid=options.output == "logits" and reads_padding(trained.model),
        )
    return export_model(trained, cfg, args.out, options, images=images)
