"""Accuracy against time of one checkpoint with fewer decoder layers, fewer queries and other scales of windows."""

import argparse
import itertools
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from PIL import Image
from torch import nn
from tqdm import tqdm

from mmseg_m2f.benchmark.machine import check_load, describe_machine
from mmseg_m2f.engine.hooks.report import MAIN_METRICS
from mmseg_m2f.engine.split_loader import split_loader
from mmseg_m2f.engine.trained_model import find_trained, load_trained
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.precision_loss import metrics_of_test_set
from mmseg_m2f.files import replace_file, save_png


class DialSetting(NamedTuple):
    """What `test_cfg` gets; None leaves all layers, all queries, the scale of the config."""

    layers: int | None = None
    queries: int | None = None
    scale: float | None = None

    def options(self) -> dict[str, int | float]:
        """The keys that are set."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def __str__(self) -> str:
        of_one = {"layers": "layer", "queries": "query"}
        parts = [
            f"{value:g} {of_one.get(name, name) if value == 1 else name}" for name, value in self.options().items()
        ]
        return ", ".join(parts) or "as trained"


class DialPoint(NamedTuple):
    """A setting with what it gives: the metric, and milliseconds per image (median over rounds)."""

    setting: DialSetting
    score: float
    milliseconds: float


def add_dial(commands: Any) -> None:  # noqa: ANN401  (argparse keeps the type to itself)
    """Add the command `dial`."""
    parser = commands.add_parser(
        "dial", help="accuracy and time of a checkpoint with fewer layers and queries", description=__doc__
    )
    parser.add_argument("config", help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file")
    parser.add_argument("--layers", nargs="+", type=int, metavar="N", help="decoder layers; default: every number")
    parser.add_argument("--queries", nargs="+", type=int, metavar="N", help="default: all, half and a quarter of them")
    parser.add_argument("--scales", nargs="+", type=float, metavar="S", help="of images before windows are cut")
    parser.add_argument("--images", type=int, default=128, help="of the test set, for the metric; default %(default)s")
    parser.add_argument("--timed", type=int, default=8, help="batches that are timed; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="over which the median is taken; default %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="default %(default)s")
    parser.add_argument("--even-if-loaded", action="store_true", help="measure beside other programs")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/dial"), help="default %(default)s")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    check_load(args.threads, even_if_loaded=args.even_if_loaded)
    torch.set_num_threads(args.threads)
    cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
    model = load_trained(cfg, weights).model.to(args.device)
    settings = make_settings(model, layers=args.layers, queries=args.queries, scales=args.scales)
    metric, scores = _scores(model, cfg, settings, num_images=args.images)
    milliseconds = _milliseconds(model, cfg, settings, num_batches=args.timed, rounds=args.rounds)
    points = [DialPoint(*each) for each in zip(settings, scores, milliseconds, strict=True)]
    best = best_points(points)
    machine = describe_machine(args.threads, args.device)
    print(f"| setting | {metric} | ms per image | |\n|---|---|---|---|")
    for point in points:
        mark = "best" if point in best else ""
        print(f"| {point.setting} | {point.score:.4f} | {point.milliseconds:.1f} | {mark} |")
    report = dict(
        machine=machine,
        metric=metric,
        images=args.images,
        points=[
            dict(point.setting._asdict(), score=point.score, milliseconds=point.milliseconds, best=point in best)
            for point in points
        ],
    )
    replace_file(args.out / "dial.json", (json.dumps(report, indent=2) + "\n").encode())
    save_png(plot_points(points, best, metric=metric), args.out / "dial.png")
    print(f"Best: no other setting is both faster and as good. Wrote {args.out}/dial.json and dial.png.")


def make_settings(
    model: nn.Module,
    *,
    layers: Sequence[int] | None,
    queries: Sequence[int] | None,
    scales: Sequence[float] | None,
) -> list[DialSetting]:
    """All combinations, the model as trained first.

    Raises:
        ValueError: the model has no such layers or queries, or looks through no windows, which `scales` would change.
    """
    shell = cast(Any, model)
    head = getattr(model, "decode_head", None)
    if not hasattr(head, "shorten"):
        raise InvalidValueError(
            f"benchmark dial: expected a model with a MaskHead, got {type(model).__name__} with "
            f"{type(head).__name__}. Choose a mask classifier."
        )
    most = head.dial_range()  # type: ignore[union-attr]
    if layers is None:
        layers = range(1, most.get("layers", 0) + 1)
    if queries is None:
        all_queries = most.get("queries", 0)
        queries = sorted({count for count in (all_queries // 4, all_queries // 2, all_queries) if count})
    if scales and shell.test_cfg.mode != "slide":
        raise InvalidValueError(
            "benchmark dial: --scales resize images before windows are cut, but the model looks at whole images. Add "
            "--cfg-options window_size=SIZE."
        )
    found = [DialSetting()]
    for combination in itertools.product(layers or (None,), queries or (None,), scales or (None,)):
        setting = DialSetting(*combination)
        all_of_it = setting.layers in (None, most.get("layers")) and setting.queries in (None, most.get("queries"))
        if not (all_of_it and setting.scale is None):
            found.append(setting)
    for setting in found:  # refuses at once what cannot be
        _apply(model, setting, shell.test_cfg)
    _apply(model, DialSetting(), shell.test_cfg)
    return found


def best_points(points: Sequence[DialPoint]) -> list[DialPoint]:
    """Those than which no other is both faster and at least as good, or as fast and better; fastest first."""
    best: list[DialPoint] = []
    for point in sorted(points, key=lambda each: (each.milliseconds, -each.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def plot_points(points: Sequence[DialPoint], best: Sequence[DialPoint], *, metric: str) -> Image.Image:
    """The metric over the time, with the best settings named."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter([p.milliseconds for p in points], [p.score for p in points], color="0.6", label="other settings")
    axes.plot([p.milliseconds for p in best], [p.score for p in best], "o-", color="C0", label="best settings")
    for point in best:
        place = (point.milliseconds, point.score)
        axes.annotate(str(point.setting), place, xytext=(5, -10), textcoords="offset points", fontsize="small")
    axes.set(xlabel="milliseconds per image", ylabel=metric)
    axes.margins(x=0.2, y=0.1)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _apply(model: nn.Module, setting: DialSetting, usual: dict) -> None:
    shell = cast(Any, model)
    shell.test_cfg = {**usual, "layers": None, "queries": None, **setting.options()}


def _scores(
    model: nn.Module, cfg: Config, settings: Sequence[DialSetting], *, num_images: int
) -> tuple[str, list[float]]:
    """The main metric of the test set, and its value with each setting."""
    usual, scores, metric = cast(Any, model).test_cfg, [], ""
    for setting in tqdm(settings, desc="metric", unit="setting"):
        _apply(model, setting, usual)
        logging.disable(logging.INFO)  # each evaluator's table
        try:
            found, _ = metrics_of_test_set(model, cfg, num_images=num_images)
        finally:
            logging.disable(logging.NOTSET)
        known = [name for main in MAIN_METRICS for name in found if name.rpartition("/")[2] == main]
        if not known:
            raise InvalidValueError(
                f"benchmark dial: expected one of {list(MAIN_METRICS)} from test_evaluator, got {sorted(found)}."
            )
        metric = known[0]
        scores.append(found[metric])
    _apply(model, DialSetting(), usual)
    return metric, scores


@torch.no_grad()
def _milliseconds(
    model: nn.Module, cfg: Config, settings: Sequence[DialSetting], *, num_batches: int, rounds: int
) -> list[float]:
    """Milliseconds per image with each setting: settings take turns, each round starts with another one."""
    shell, usual = cast(Any, model), cast(Any, model).test_cfg
    batches = list(itertools.islice(split_loader(cfg, "test"), num_batches))
    num_images = sum(len(batch["inputs"]) for batch in batches)
    taken: list[list[float]] = [[] for _ in settings]
    for turn in tqdm(range(-1, rounds), desc="time", unit="round"):  # the first round warms up
        for number in range(len(settings)):
            index = (number + turn) % len(settings)
            _apply(model, settings[index], usual)
            begin = time.perf_counter()
            for batch in batches:
                shell.test_step(batch)
            if next(model.parameters()).is_cuda:
                torch.cuda.synchronize()
            if turn >= 0:
                taken[index].append((time.perf_counter() - begin) * 1e3 / num_images)
    _apply(model, DialSetting(), usual)
    return [float(np.median(each)) for each in taken]
