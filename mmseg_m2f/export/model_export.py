"""From a config and a checkpoint to a file that other runtimes execute, checked before it gets its name."""

import copy
import importlib.metadata
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmseg_m2f.engine.trained_model import TrainedModel
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export import writers
from mmseg_m2f.export.calibration import ImageSource
from mmseg_m2f.export.export_gate import (
    LABEL_TOLERANCE,
    TOLERANCE,
    Comparison,
    check_operators,
    compare,
    is_empty_check,
    judge,
    smooth_images,
)
from mmseg_m2f.export.export_options import ExportOptions, channels_of, check_options, shape_of
from mmseg_m2f.export.fixed_results import Results, check_no_views
from mmseg_m2f.export.latency import latencies
from mmseg_m2f.export.precision_loss import CHANGED_LABELS, METRIC_LOSS, measure_loss, refuse_loss
from mmseg_m2f.export.programs import Shape, TracedProgram, trace
from mmseg_m2f.export.reduced_precision import to_float16, to_int8
from mmseg_m2f.export.result_differences import check_results
from mmseg_m2f.export.standalone_script import SCRIPT
from mmseg_m2f.export.wrappers import (
    Logits,
    depends_on_padding,
    names_of,
    reads_valid,
    size_multiple,
)
from mmseg_m2f.files import folder_of_unfinished, save_json
from mmseg_m2f.models.normalisation import Normalisation
from mmseg_m2f.runtime import ExportedModel, ExportRecord


def export_model(
    trained: TrainedModel,
    cfg: Config,
    out: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    images: ImageSource | None = None,
) -> dict[str, Any]:
    """Write a file, its report as JSON beside it, and give the report.

    Nothing is written where the file does not pass its checks.

    Args:
        trained: The model; see `load_trained`.
        cfg: Its config.
        out: `.onnx`, `.pt2` or `.xml` (OpenVINO, with a `.bin` beside it).
        images: Real images for the checks and for the ranges of int8.

    Raises:
        ValueError: The options do not fit the model or the format, a package is missing, or a check failed.
    """
    options = options or ExportOptions()
    out = Path(out)
    check_options(out, trained.model, options, has_images=images is not None)
    script = _check_script(out) if options.with_script else None
    if options.output == "full":
        check_no_views(trained.dataset.get("pipeline") or ())
    shape = shape_of(trained.model, options)
    record = make_record(trained, cfg, options, shape)
    model = copy.deepcopy(trained.model).eval().requires_grad_(False)
    wrapper: nn.Module = Logits(model, stages=True)
    if options.output == "full":
        if options.max_per_image is not None:
            model.test_cfg = ConfigDict(model.test_cfg, max_per_image=options.max_per_image)
        wrapper = Results(model, Normalisation.of(record))
    cases = _cases(shape, record, images)
    expected = [_run(wrapper, inputs) for _, inputs in cases]
    if isinstance(wrapper, Results):
        check_results(model, wrapper, [inputs["images"][0] for _, inputs in cases])
    traced = trace(
        wrapper,
        shape,
        dtype=torch.uint8 if options.output == "full" else torch.float32,
        with_valid=record.reads_valid,
        lowering=options.lowering,
    )
    comparisons = [
        compare(f"program, {name}", wanted, traced(inputs))
        for (name, inputs), wanted in zip(cases, expected, strict=True)
    ]
    judge(comparisons)
    with folder_of_unfinished(out.parent) as folder, tempfile.TemporaryDirectory() as steps:
        unfinished = folder / out.name
        comparisons += _write(traced, unfinished, Path(steps), record, options, cases, expected, wrapper, shape)
        if options.precision == "float32":
            report = _report(record, comparisons, options)
        else:
            reduced = _reduce(unfinished, options, cases, expected, images)
            loss = measure_loss(unfinished, trained, cfg, reduced, num_images=options.num_test_images)
            if not options.accept_loss:
                refuse_loss(unfinished, loss, options.precision)
            report = _report(record, reduced, options)
            report |= dict(loss=loss.as_report(), comparisons_in_float32=[asdict(each) for each in comparisons])
        file = ExportedModel(unfinished, threads=torch.get_num_threads())
        report["latency_ms"] = latencies(wrapper, file, cases[0][1], compiled=options.measure_compiled)
        del file
        save_json(report, unfinished.with_name(out.name + ".json"), indent=2)
        if script is not None:
            (folder / script.name).write_text(SCRIPT.replace("@MODEL@", out.name), encoding="utf-8")
    return report


def reads_padding(model: nn.Module) -> bool:
    """Whether a file of logits of this model has the input `valid`."""
    return reads_valid(model, multiple=size_multiple(model), channels=channels_of(model))


def make_record(trained: TrainedModel, cfg: Config, options: ExportOptions, shape: Shape) -> ExportRecord:
    """What the file says about itself."""
    normalisation = Normalisation.of_model(trained.model, channels=channels_of(trained.model))
    model_cfg, multiple = cast(Any, trained.model).test_cfg or {}, size_multiple(trained.model)
    if hasattr(trained.model, "is_thing"):
        tasks = tuple(task for task in ("semantic", "panoptic", "instance") if model_cfg[task])
    else:
        tasks = ("semantic",)
    logits = options.output == "logits"
    tolerances = dict(logits=TOLERANCE, labels=LABEL_TOLERANCE)
    if options.precision != "float32":
        tolerances = {} if options.accept_loss else dict(metrics=METRIC_LOSS, labels=CHANGED_LABELS[options.precision])
    packages = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "mmseg-m2f")
    return ExportRecord(
        output=options.output,
        tasks=tasks,
        config=repr(plain_values(cfg.to_dict())),
        classes=tuple(trained.classes),
        palette=tuple(tuple(int(value) for value in colour) for colour in trained.palette),  # type: ignore[misc]
        category_ids=tuple(trained.category_ids),
        **normalisation._asdict(),
        multiple=shape.multiple,
        size=shape.size,
        batch=shape.batch,
        input_channels=shape.channels,
        reads_valid=logits and reads_padding(trained.model),
        ignores_padding=logits and not depends_on_padding(trained.model, multiple=multiple, channels=shape.channels),
        max_per_image=options.max_per_image or model_cfg.get("max_per_image", 100),
        precision=options.precision,
        opset=options.opset,
        tolerances=tolerances,
        versions={name: version for name in packages if (version := _version(name))},
        licence=options.licence,
    )


def _write(
    traced: TracedProgram,
    path: Path,
    steps: Path,
    record: ExportRecord,
    options: ExportOptions,
    cases: Sequence[tuple[str, dict[str, Tensor]]],
    expected: Sequence[Mapping[str, Tensor]],
    wrapper: nn.Module,
    shape: Shape,
) -> list[Comparison]:
    """Write the file, and compare it with the model in each of its steps, whose files lie in the folder `steps`."""
    if path.suffix == ".pt2":
        if isinstance(wrapper, Logits):  # without the stages
            traced = trace(Logits(wrapper.model), shape, with_valid=record.reads_valid, lowering=options.lowering)
        writers.write_program(traced, path, record)
        return _compare_file(path, cases, expected)
    staged = steps / "staged.onnx"
    plain = path if path.suffix == ".onnx" else steps / "plain.onnx"
    writers.write_onnx(traced, staged, opset=options.opset)
    writers.require("onnxruntime")
    outputs = names_of(traced.outputs) if isinstance(wrapper, Logits) else traced.outputs
    on_the_way = []
    if len(outputs) < len(traced.outputs):
        writers.finish_onnx(staged, plain, record, outputs=traced.outputs)
        on_the_way = _compare_file(plain, cases, expected, kind="with stages")
    writers.finish_onnx(staged, plain, record, outputs=outputs)
    check_operators(plain, opset=options.opset)
    comparisons = on_the_way + _compare_file(plain, cases, expected, on_the_way=on_the_way)
    if path.suffix == ".xml":
        writers.write_openvino(plain, path, record)
        comparisons += _compare_file(path, cases, expected, kind="OpenVINO")
    judge(comparisons)
    return comparisons


def _reduce(
    path: Path,
    options: ExportOptions,
    cases: Sequence[tuple[str, dict[str, Tensor]]],
    expected: Sequence[Mapping[str, Tensor]],
    images: ImageSource | None,
) -> list[Comparison]:
    """Replace the file by one of lower precision, and compare it."""
    if options.precision == "float16":
        to_float16(path)
    else:
        assert images is not None
        to_int8(path, images.batches())
    check_operators(path, opset=options.opset)
    return _compare_file(path, cases, expected, kind=options.precision)


def _compare_file(
    path: Path,
    cases: Sequence[tuple[str, dict[str, Tensor]]],
    expected: Sequence[Mapping[str, Tensor]],
    *,
    kind: str = "file",
    on_the_way: Sequence[Comparison] = (),
) -> list[Comparison]:
    """Each case, run by the file and compared; `on_the_way` are those of the same graph with its stages."""
    file = ExportedModel(path, threads=torch.get_num_threads())
    comparisons = []
    for (name, inputs), wanted in zip(cases, expected, strict=True):
        arrays = {key: value.numpy() for key, value in inputs.items()}
        found = {key: torch.from_numpy(value) for key, value in file(**arrays).items()}
        comparisons.append(compare(f"{kind}, {name}", wanted, found))
    if on_the_way:
        comparisons = [own.with_bits_of(staged) for own, staged in zip(comparisons, on_the_way, strict=True)]
    if kind in ("file", "with stages", "OpenVINO"):
        judge(comparisons)
    return comparisons


def _cases(shape: Shape, record: ExportRecord, images: ImageSource | None) -> list[tuple[str, dict[str, Tensor]]]:
    """Inputs of the checks: random images of several sizes, half of them padded where the model asks; real images."""
    cases = []
    for seed, (batch, height, width) in enumerate(shape.cases()):
        pixels = smooth_images(batch, height, width, channels=shape.channels, seed=seed)
        if record.output == "full":
            pixels = (128 + 60 * pixels).clamp(0, 255).to(torch.uint8)
        inputs = dict(images=pixels)
        if record.reads_valid:
            valid = torch.ones(batch, height, width, dtype=torch.bool)
            if seed % 2:
                valid[:, :, -width // 3 :] = False
            inputs["valid"] = valid
        cases.append((f"{batch} x {height} x {width}", inputs))
    real = images.batches() if images is not None else iter(())
    fitting = (arrays for arrays in real if shape.size in (None, arrays["images"].shape[2:]))
    for number, arrays in enumerate(islice(fitting, len(shape.cases()))):
        cases.append((f"real image {number + 1}", {key: torch.from_numpy(value) for key, value in arrays.items()}))
    return cases


def _check_script(out: Path) -> Path:
    """Where the script beside a file goes.

    Raises:
        ValueError: There is a file that no export wrote.
    """
    script = out.with_suffix(".py")
    beginning = SCRIPT.partition("@MODEL@")[0]
    if script.exists() and not script.read_text(encoding="utf-8", errors="replace").startswith(beginning):
        raise InvalidValueError(
            f"--with-script: expected {script} to be free, because the script gets this name, got a file that no "
            "export wrote. Choose another --out."
        )
    return script


@torch.no_grad()
def _run(wrapper: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return wrapper(*inputs.values())


def _report(record: ExportRecord, comparisons: Sequence[Comparison], options: ExportOptions) -> dict[str, Any]:
    empty = is_empty_check(comparisons)
    if empty:
        warnings.warn(
            "The comparison of labels was empty: the model gives a single class for all images of the check. Give "
            "--calibration with images in which it sees several.",
            stacklevel=2,
        )
    errors: dict[str, float] = {}
    for comparison in comparisons:
        for name, error in comparison.errors.items():
            errors[name] = max(errors.get(name, 0.0), error)
    return dict(
        output=record.output,
        precision=record.precision,
        opset=record.opset,
        lowering=options.lowering,
        size=record.size or "any",
        batch=record.batch or "any",
        tolerances=dict(record.tolerances),
        max_errors=errors,
        attention_bits_differing=sum(each.bits[1] for each in comparisons if not each.of_stages),
        label_disagreement=max(each.label_disagreement for each in comparisons),
        label_check_empty=empty,
        comparisons=[asdict(each) for each in comparisons],
        versions=dict(record.versions),
    )


def plain_values(value: object) -> object:
    """A config as literals: dicts, lists, tuples, numbers, strings."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(plain_values(each) for each in value)
            if type(value) in (list, tuple)
            else list(map(plain_values, value))
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__name__", str(value))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
