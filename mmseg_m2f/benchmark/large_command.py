"""`large` of `tools/benchmark.py`: time and peak memory of predicting a large generated image window by window."""

import argparse
import time
from pathlib import Path

import torch
from mmengine.config import DictAction

from mmseg_m2f.benchmark.memory import peak_above
from mmseg_m2f.config.load import load_config
from mmseg_m2f.files import save_json
from mmseg_m2f.inference.large_image import predict_large
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.rasters import write_generated

DEFAULT_CONFIG = "mask2former_r18_shapes_demo"


def add_large(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`large`: a config on one image of any size."""
    parser = commands.add_parser("large", help="memory and time of one image, window by window, as `predict --large`")
    parser.add_argument("config", nargs="?", default=DEFAULT_CONFIG, help="default %(default)s; random weights")
    parser.add_argument("--size", type=int, default=20000, help="height and width, pixels; default %(default)s")
    parser.add_argument("--window", type=int, default=512, help="height and width, pixels; default %(default)s")
    parser.add_argument("--overlap", type=int, default=128, help="of neighbouring windows; default %(default)s")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="as of tools/predict.py"
    )
    parser.add_argument("--out", default="work_dirs/benchmark/large", help="folder; default %(default)s")
    parser.set_defaults(run=run_large)


def run_large(args: argparse.Namespace) -> None:
    """Generate the image, predict a small one to warm up, and measure; writes large.json."""
    report = measure_large(
        args.config,
        dict(args.cfg_options),
        size=args.size,
        window=args.window,
        overlap=args.overlap,
        out_dir=Path(args.out),
    )
    save_json(report, Path(args.out) / "large.json", indent=1)
    print(
        f"{args.size} × {args.size} pixels in windows of {args.window}: {report['peak_mb']:.0f} MB above the model, "
        f"{report['seconds']:.0f} s. Wrote {Path(args.out) / 'large.json'}."
    )


def measure_large(
    config: str, options: dict[str, object], *, size: int, window: int, overlap: int, out_dir: Path
) -> dict[str, float]:
    """Peak memory (megabytes above the loaded model) and seconds of one image of generated noise.

    Raises:
        ValueError: the system is not Linux, from whose `/proc` resident memory is read.
    """
    torch.manual_seed(0)
    options = {"pretrained": False, **options, "window_size": window, "window_overlap": overlap}
    predictor = Predictor(load_config(config, options), device="cpu")
    small, large = out_dir / "small.tif", out_dir / "large.tif"
    write_generated(small, (window, window))
    write_generated(large, (size, size))
    predict_large(predictor, small, out_dir / "results")
    started = time.perf_counter()
    peak = peak_above(lambda: predict_large(predictor, large, out_dir / "results"))
    return dict(peak_mb=peak / 2**20, seconds=time.perf_counter() - started, size=size, window=window, overlap=overlap)
