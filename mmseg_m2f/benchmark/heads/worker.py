"""One run in a process of its own: trains or resumes, tests, draws, measures, and writes `result.json`.

    python -m mmseg_m2f.benchmark.heads.worker HEAD/seed-0.py

The config has its budget already; checkpoints, metrics and pictures appear in the folder HEAD/seed-0.
"""

import argparse
import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_world_size, is_main_process
from mmengine.runner import Runner
from PIL import Image

from mmseg_m2f.benchmark.heads.costs import measure_costs
from mmseg_m2f.benchmark.heads.running import writing
from mmseg_m2f.benchmark.heads.scores import check_scores, scores_of
from mmseg_m2f.engine.hooks.report import read_history
from mmseg_m2f.engine.launch import Launcher, evaluate, find_checkpoint, train
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.files import replace_file, save_png
from mmseg_m2f.predictions import KINDS
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.visualization import overlay_result, scale_entry
from mmseg_m2f.visualization.bands import shown_channels
from mmseg_m2f.visualization.entries import sheet_entry

_WIDTH = 256


def perform(config: str | Path, *, num_images: int = 6, launcher: Launcher = "none") -> None:
    """Do one run, or what is left of it.

    Raises:
        ValueError: another process is at it, or the test gives no score that heads are compared by.
    """
    path = Path(config)
    # Of several processes the first one writes.
    with writing(path.with_suffix("")) if os.environ.get("RANK", "0") == "0" else nullcontext():
        _perform(path, num_images=num_images, launcher=launcher)


def _perform(path: Path, *, num_images: int, launcher: Launcher) -> None:
    folder = path.with_suffix("")
    cfg = Config.fromfile(path)
    scope = cfg.get("default_scope") or "mmengine"
    runner = train(path, work_dir=str(folder), resume=True, launcher=launcher)
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    metrics = evaluate(path, checkpoint, work_dir=str(folder / "test"), launcher=launcher)
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float, np.number))}
    metrics = {name: value for name, value in numbers.items() if np.isfinite(value)}
    scores = scores_of(metrics, cfg.test_evaluator, scope=scope)
    check_scores(scores, metrics, source=str(path))
    pictures = _draw_pictures(runner, folder / "pictures", num_images) if is_main_process() else []
    dataset = runner.test_loop.dataloader.dataset
    costs = measure_costs(runner)
    report = folder / "metrics.json"
    result = dict(
        schema=2,
        batch=cfg.train_dataloader.batch_size,
        processes=get_world_size(),
        data=dict(type=type(dataset).__name__, images=len(dataset), classes=len(class_colours(dataset)[0])),
        metrics=metrics,
        scores=scores,
        history=[
            dict(iteration=entry["iteration"], scores=scores_of(entry, cfg.get("val_evaluator"), scope=scope))
            for entry in (read_history(report, remedy="Delete the folder of this run.") if report.exists() else [])
        ],
        costs=costs,
        pictures=pictures,
    )
    if is_main_process():
        replace_file(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())


@torch.no_grad()
def _draw_pictures(runner: Runner, folder: Path, num_images: int) -> list[dict[str, Any]]:
    """Test images spread evenly over the set, with truth and prediction of each kind; gives the names of the files."""
    dataset = runner.test_loop.dataloader.dataset
    classes, palette = class_colours(dataset)
    model = runner.model.eval()
    drawn = []
    for index in sorted(set(np.linspace(0, len(dataset) - 1, num_images).astype(int).tolist())):
        batch = pseudo_collate([dataset[index]])
        entry = sheet_entry(batch, 0, model.test_step(batch)[0], num_classes=len(classes), shown=shown_channels(model))
        if entry is None or entry.prediction is None:
            continue
        entry = scale_entry(entry, _WIDTH)
        files: dict[str, Mapping[str, str]] = {}
        save_png(Image.fromarray(entry.image), folder / f"{index}.png")
        for kind in KINDS:
            shown = dict(truth=entry.truth, prediction=entry.prediction)
            files[kind] = {
                which: f"pictures/{index}_{kind}_{which}.png"
                for which, result in shown.items()
                if result is not None and kind in result.kinds()
            }
            for which, file in files[kind].items():
                tinted = overlay_result(
                    entry.image,
                    shown[which],  # type: ignore[arg-type]
                    kind,
                    classes,
                    palette,
                    opacity=0.7,
                    score_threshold=0.5,
                    show_scores=which == "prediction",
                )
                save_png(Image.fromarray(tinted), folder.parent / file)
        kinds = {kind: found for kind, found in files.items() if "prediction" in found}
        drawn.append(dict(index=index, name=entry.name, input=f"pictures/{index}.png", kinds=kinds))
    return drawn


def main() -> None:
    """Parse the command line and do the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="with its budget")
    parser.add_argument("--images", type=int, default=6, help="pictures; default %(default)s")
    parser.add_argument("--launcher", choices=get_args(Launcher), default="none")
    args = parser.parse_args()
    with concise_errors():
        perform(args.config, num_images=args.images, launcher=args.launcher)


if __name__ == "__main__":
    main()
