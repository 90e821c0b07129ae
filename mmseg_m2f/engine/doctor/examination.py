"""Data and config of a run, examined as `tools/doctor.py` shows it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from numpy.typing import NDArray

from mmseg_m2f.config.channels import channels_in_use
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.data_paths import check_data_paths
from mmseg_m2f.config.finding import find_config
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.options import Options
from mmseg_m2f.config.schedules import check_schedule
from mmseg_m2f.datasets.compact_segments import CompactSegments
from mmseg_m2f.datasets.unlisted_images import unlisted_images
from mmseg_m2f.engine.class_agreement import leaf_datasets
from mmseg_m2f.engine.doctor.facts import SampleFacts, is_box_off, read_facts, spread, total_histogram
from mmseg_m2f.engine.doctor.findings import (
    Finding,
    findings_of_config,
    findings_of_data,
    leakage,
    worst_first,
)
from mmseg_m2f.engine.doctor.findings_page import render_page
from mmseg_m2f.engine.doctor.memory_forecast import forecast_memory
from mmseg_m2f.errors import UserError, message_of
from mmseg_m2f.files import replace_file
from mmseg_m2f.json_files import read_json
from mmseg_m2f.models.segmentors.channel_values import check_shown
from mmseg_m2f.predictions import read_truth
from mmseg_m2f.predictions.palettes import class_colours
from mmseg_m2f.visualization.bands import show_bands
from mmseg_m2f.visualization.overlays import overlay_result

_PICTURES = 10
_COCO = {
    "images?": [{"id": (int, str), "file_name": str}],
    "annotations?": [{"image_id": (int, str), "bbox?": ([float], None), "segmentation?": ([[float]], dict, None)}],
}


@dataclass
class Examination:
    """What was found, worst first, and what the page shows besides."""

    cfg: Config
    findings: list[Finding]
    facts: dict[str, list[SampleFacts]]
    datasets: dict[str, object]

    def text(self) -> str:
        """For the terminal."""
        lines = [line for finding in self.findings for line in finding.lines()]
        read = ", ".join(f"{len(facts)} samples of {loop}" for loop, facts in self.facts.items())
        return "\n".join([f"Looked at {read or 'the config alone'}.", *(lines or ["Nothing to change."])])

    def save_page(self, path: str | os.PathLike[str], *, title: str) -> None:
        """Write the HTML page, with ten samples as stored and after the training pipeline."""
        train = self.datasets.get("train")
        classes = (getattr(train, "metainfo", None) or {}).get("classes") or ()
        pictures = (
            {} if train is None else {"Samples of the training pipeline": list(_pictures(train, classes, self.cfg))}
        )
        histograms = {
            loop: (total_histogram(facts, mapped=False), total_histogram(facts, mapped=True))
            for loop, facts in self.facts.items()
        }
        page = render_page(title, self.findings, histograms=histograms, classes=classes, pictures=pictures)
        replace_file(path, page.encode())

    def save_fix(self, path: str | os.PathLike[str], *, config: str) -> dict[str, object]:
        """Write a leaf on top of the config that mends what a config can mend, and give the changes.

        Args:
            config: The file or published name of the config.
        """
        changes = {key: value for finding in self.findings for key, value in finding.change.items()}
        nested: dict = {}
        for key, value in changes.items():
            node = nested
            *parents, last = key.split(".")
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = value
        body = "\n".join(f"{name} = {value!r}" for name, value in nested.items())
        base = str(find_config(config).resolve())
        replace_file(path, f"_base_ = [{base!r}]\n{body}\n".encode())
        return changes


def examine(
    config: str, options: Options | None = None, *, samples: int | None = None, workers: int | None = None
) -> Examination:
    """Read config and data and find what would be noticed only after an hour.

    Args:
        samples: At most so many of each set, spread evenly; all if None.
        workers: Threads that read; one per core if None.
    """
    cfg = load_config(config, options)
    findings, facts, datasets = list(_config_faults(cfg)), {}, {}
    for loop in ("train", "val"):
        loader = cfg.get(f"{loop}_dataloader")
        if not loader:
            continue
        try:
            with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
                dataset = DATASETS.build(loader.dataset)
            length = sum(len(leaf) for leaf in leaf_datasets(dataset))  # type: ignore[arg-type, misc]
        except (UserError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            text = message_of(error) if isinstance(error, UserError) else str(error)
            findings.append(Finding("error", f"{loop}_dataloader.dataset", text, "Correct it first."))
            continue
        datasets[loop] = dataset
        facts[loop] = read_facts(dataset, spread(length, samples), workers=workers or os.cpu_count() or 1, title=loop)
        classes = (getattr(dataset, "metainfo", None) or {}).get("classes") or ()
        findings += findings_of_data(facts[loop], loop=loop, classes=classes, cfg=cfg)
        findings += _left_out(dataset, loop)
        findings += _boxes(dataset, loop)
        findings += _class_count(cfg, classes, loop)
    if len(facts) == 2:
        findings += leakage(facts["train"], facts["val"])
    if cfg.get("train_dataloader"):
        findings += findings_of_config(cfg)
    findings += _memory(cfg, datasets.get("train"))
    return Examination(cfg, worst_first(findings), facts, datasets)


def _config_faults(cfg: Config) -> Iterator[Finding]:
    for check in (check_config, check_data_paths, check_schedule):
        try:
            check(cfg)
        except UserError as error:
            message = message_of(error)
            key, _, text = message.partition(": ")
            named = bool(text) and " " not in key
            yield Finding("error", key if named else "config", text if named else message, "")


def _left_out(dataset: object, loop: str) -> list[Finding]:
    files = tuple(name for leaf in leaf_datasets(dataset) for name in unlisted_images(leaf))
    if not files:
        return []
    text = f"{len(files)} images are left out, because their names do not end in img_suffix."
    remedy = "Rename them, all with one suffix in the same letters."
    return [Finding("warning", f"{loop}_dataloader.dataset.img_suffix", text, remedy, files)]


def _boxes(dataset: object, loop: str) -> list[Finding]:
    """Boxes of COCO files that lie elsewhere than their polygons; the dataset has replaced them already."""
    files: list[str] = []
    for leaf in leaf_datasets(dataset):
        path = Path(str(getattr(leaf, "ann_file", None) or ""))
        if path.suffix == ".json" and path.is_file():
            content = read_json(path, what="a COCO file", structure=_COCO, remedy="Copy or write it again.")
            names = {image["id"]: image["file_name"] for image in content.get("images", ())}
            wrong = [each for each in content.get("annotations", ()) if is_box_off(each)]
            files += [f"{names.get(each['image_id'])}, annotation {each.get('id')}" for each in wrong]
    if not files:
        return []
    text = f"boxes of {len(files)} objects lie elsewhere than their masks; loading takes the masks'."
    key = f"{loop}_dataloader.dataset.ann_file"
    return [Finding("warning", key, text, "Correct `bbox` there.", tuple(files))]


def _class_count(cfg: Config, classes: Sequence[str], loop: str) -> list[Finding]:
    head = cfg.model.get("decode_head")
    count = head.get("num_classes") if isinstance(head, dict) else None
    if not classes or not count or count == len(classes):
        return []
    key = "model.decode_head.num_classes"
    text = f"is {count}, but {loop}_dataloader.dataset has {len(classes)} classes."
    return [Finding("error", key, text, f"Set it to {len(classes)}.", change={key: len(classes)})]


def _memory(cfg: Config, dataset: object | None) -> list[Finding]:
    """The memory that the tensors of a training step take; weights alone where no sample can be trained on."""
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
            model = MODELS.build(cfg.model)
    except (UserError, KeyError, TypeError, ValueError) as error:
        return [Finding("error", "model", str(error), "The model cannot be built.")]
    sample = None if dataset is None else _first_sample(dataset)
    reason = "there is no training sample"
    if sample is not None:
        try:
            forecast = forecast_memory(model, sample)
        except (UserError, RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
            reason = f"a step with the first sample fails ({str(error).splitlines()[0][:120]})"
        else:
            remedy = "The process takes more: libraries, workspaces, the allocator's reserve. --amp needs less."
            return [Finding("note", "model", forecast.text(cfg.train_dataloader.get("batch_size", 1)), remedy)]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    needed = (4 * total + 12 * trained) / 2**20
    text = f"{total / 1e6:.1f} million weights need {needed:,.0f} MB with gradients and AdamW's states,"
    return [Finding("note", "model", text, f"activations come on top: {reason}.")]


def _first_sample(dataset: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
    """The first sample that can be read, of a few; None if none can."""
    for index in spread(len(dataset), _PICTURES):
        try:
            return dataset[index]
        except (UserError, OSError, ValueError):
            continue
    return None


def _pictures(dataset: object, classes: Sequence[str], cfg: Config) -> Iterator[tuple[str, list[NDArray[np.uint8]]]]:
    """Ten samples as training sees them: name, and the image with its labels beside it."""
    for leaf in leaf_datasets(dataset):
        pipeline: Any = getattr(leaf, "pipeline", None)
        if pipeline is not None:  # compact segments have no masks to draw
            pipeline.transforms = [each for each in pipeline.transforms if not isinstance(each, CompactSegments)]
    _, palette = class_colours(dataset)
    channels = channels_in_use(cfg)
    given = (cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}).get("shown")
    shown = None if channels is None else check_shown(given, channels)
    for index in spread(len(dataset), _PICTURES):  # type: ignore[arg-type]
        try:
            sample = dataset[index]  # type: ignore[index]
        except (UserError, OSError, ValueError):
            continue
        image = show_bands(sample["inputs"].numpy(), shown)
        name = Path(str(sample["data_samples"].metainfo.get("img_path") or index)).name
        truth = read_truth(sample["data_samples"], len(classes))
        kinds = [] if truth is None else list(truth.kinds())
        drawn = [overlay_result(image, truth, kind, classes, palette) for kind in kinds if truth is not None]
        yield ", ".join([name, *(f"{kind} labels" for kind in kinds)]), [image, *drawn]
