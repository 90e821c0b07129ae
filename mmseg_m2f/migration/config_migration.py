"""From a config file of mmseg or mmdet to one of ours: same model, data, schedule and runtime."""

import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.files import replace_file
from mmseg_m2f.migration.data_loaders import migrate_evaluator, migrate_hooks, migrate_loader, without_mask_padding
from mmseg_m2f.migration.models import Model, migrate_model
from mmseg_m2f.migration.optimizer import migrate_optim_wrapper
from mmseg_m2f.migration.reading import MigrationReport, Value
from mmseg_m2f.migration.scopes import Scopes
from mmseg_m2f.migration.writing import Reference, Section, config_text
from mmseg_m2f.registry import MODELS

_SCHEDULE = ("optim_wrapper", "param_scheduler", "train_cfg", "val_cfg", "test_cfg", "auto_scale_lr")
_RUNTIME = (
    *("default_hooks", "custom_hooks", "log_processor", "log_level", "visualizer"),
    *("load_from", "resume", "randomness", "env_cfg", "work_dir", "experiment_name", "sync_bn"),
    *("find_unused_parameters", "model_wrapper_cfg", "activation_checkpointing", "efficient_conv_bn_eval", "compile"),
)
_NO_VARIABLES = ("default_scope", "custom_imports")
_LOOPS = ("train", "val", "test")
#: Imports that mmseg needs for the heads of mmdet, which ours replace.
_NEEDLESS_IMPORTS = ("mmdet.models",)


def migrate_config(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> MigrationReport:
    """Write our config for one of mmseg's or mmdet's Mask2Former or MaskFormer, or derived from one.

    What is written stands alone, without `_base_`. Before it is, its types and arguments are checked, its model is
    built once, and each parameter has got the learning rate and decay it has upstream.

    Args:
        overwrite: replace a target that exists.

    Raises:
        FileNotFoundError: no such source.
        ValueError: another method, a key without counterpart, or a target that exists.
        KeyError, TypeError: a `type` that is not registered, or an argument that it does not take.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    cfg = _load(source)
    report = MigrationReport()
    text = _migrated_text(cfg, source.name, report)
    replace_file(target, text.encode())
    return report


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if not source.is_file():
        raise MissingFileError(f"Config {source}: no such file. Expected a config of mmseg or mmdet.")
    if target.suffix != ".py":
        raise InvalidValueError(
            f"Target {target}: expected a name that ends in .py, which configs have here. Rename it."
        )
    if target.exists() and (target.samefile(source) or not overwrite):
        advice = "another name" if target.samefile(source) else "another name, or replace it with --force"
        raise InvalidValueError(f"Target {target} exists. Give {advice}.")


def _load(source: Path) -> Config:
    try:
        return Config.fromfile(source)
    except (FileNotFoundError, ImportError, SyntaxError) as error:
        raise InvalidValueError(
            f"Config {source} cannot be read: {error}. Expected a config whose _base_ files and custom_imports are "
            "where it names them."
        ) from error


def _migrated_text(cfg: Config, name: str, report: MigrationReport) -> str:
    scope = cfg.get("default_scope") or "mmengine"
    plain = cfg.to_dict()
    model = migrate_model(plain, scope=scope, report=report)
    scopes = Scopes(scope)
    data = _data(plain, model, scopes, report)
    if "mmseg_m2f.SegmentsToObjects" in repr(data):
        model = model._replace(data_preprocessor=without_mask_padding(model.data_preprocessor, report))
    schedule, runtime = (_take(plain, keys, scopes) for keys in (_SCHEDULE, _RUNTIME))
    if "default_hooks" in runtime:
        runtime["default_hooks"] = migrate_hooks(runtime["default_hooks"], report)
    header = [f"{report.method} with {model.num_classes} classes, written by tools/migrate_config.py from", f"{name}."]

    def text() -> str:
        sections = [
            Section("Model.", _model_variables(model)),
            Section("Data.", data),
            Section("Schedule.", schedule),
            Section("Runtime.", {**_imports(plain), **runtime}),
        ]
        return config_text(header, sections)

    built = _build(text())
    if "optim_wrapper" in schedule:
        schedule["optim_wrapper"] = migrate_optim_wrapper(
            schedule["optim_wrapper"], built, head=model.head, report=report
        )
    report.num_classes = model.num_classes
    report.num_parameters = sum(parameter.numel() for parameter in built.parameters())
    _note_the_rest(plain, {**_model_variables(model), **data, **schedule, **runtime}, report)
    check_config(Config.fromstring(text(), ".py"))
    return text()


def _build(text: str) -> nn.Module:
    cfg = Config.fromstring(text, ".py")
    check_config(cfg)
    drop_initial_weights(cfg.model)
    return MODELS.build(cfg.model)


def _model_variables(model: Model) -> dict[str, Value]:
    variables: dict[str, Value] = dict(num_classes=model.num_classes)
    thing_classes = {}
    if model.num_things is not None:
        variables["thing_classes"] = Reference(f"list(range({model.num_things}))")
        thing_classes = dict(thing_classes=Reference("thing_classes"))
    variables["data_preprocessor"] = model.data_preprocessor
    config = dict(model.config)
    head = config.pop("decode_head")
    kind, parts = config.pop("type"), dict(head)
    variables["model"] = {
        "type": kind,
        "data_preprocessor": Reference("data_preprocessor"),
        **{key: config.pop(key) for key in ("backbone", "neck") if key in config},
        "decode_head": {"type": parts.pop("type"), "num_classes": Reference("num_classes"), **parts},
        **thing_classes,
        **config,
    }
    return variables


def _data(cfg: Mapping, model: Model, scopes: Scopes, report: MigrationReport) -> dict[str, Value]:
    """Variables of data: root, pipelines, loaders and evaluators; what is said twice is said once."""
    root = cfg.get("data_root")
    variables: dict[str, Value] = dict(data_root=root) if isinstance(root, str) else {}
    loaders = {}
    for loop in _LOOPS:
        if (loader := cfg.get(f"{loop}_dataloader")) is not None:
            path = f"{loop}_dataloader"
            loaders[loop] = migrate_loader(scopes.apply(loader), path, report)
    for loop, loader in loaders.items():
        dataset = loader["dataset"]
        name = "train_pipeline" if loop == "train" else "test_pipeline"
        if isinstance(dataset, Mapping) and "pipeline" in dataset:
            pipeline = variables.setdefault(name, dataset["pipeline"])
            if pipeline == dataset["pipeline"]:
                dataset = {**dataset, "pipeline": Reference(name)}
        if isinstance(dataset, Mapping) and root is not None and dataset.get("data_root") == root:
            dataset = {key: Reference("data_root") if key == "data_root" else dataset[key] for key in dataset}
        variables[f"{loop}_dataloader"] = {key: dataset if key == "dataset" else loader[key] for key in loader}
    things = None if model.num_things is None else Reference("thing_classes")
    for loop in ("val", "test"):
        if (evaluator := cfg.get(f"{loop}_evaluator")) is not None:
            variables[f"{loop}_evaluator"] = migrate_evaluator(
                scopes.apply(evaluator), thing_classes=things, report=report
            )
    for part in ("dataloader", "evaluator"):
        if f"val_{part}" in variables and variables[f"val_{part}"] == variables.get(f"test_{part}"):
            variables[f"test_{part}"] = Reference(f"val_{part}")
    variables.update(_augmented_tests(cfg, scopes, report))
    return variables


def _augmented_tests(cfg: Mapping, scopes: Scopes, report: MigrationReport) -> dict[str, Value]:
    """mmseg's test-time augmentation, averaged by ours."""
    if "tta_model" not in cfg or "tta_pipeline" not in cfg:
        return {}
    model = scopes.name(cfg["tta_model"]["type"])
    if model != "mmseg.SegTTAModel":
        report.left_out += [
            f"{key}: {model} merges boxes and has no counterpart" for key in ("tta_model", "tta_pipeline")
        ]
        return {}
    report.changed.append("tta_model: mmseg.SegTTAModel → mmseg_m2f.SemanticTTA, which averages class scores")
    pipeline = scopes.apply(cfg["tta_pipeline"])
    return dict(tta_model=dict(type="mmseg_m2f.SemanticTTA"), tta_pipeline=pipeline)


def _take(cfg: Mapping, keys: tuple[str, ...], scopes: Scopes) -> dict[str, Value]:
    return {key: scopes.apply(cfg[key]) for key in keys if key in cfg}


def _imports(cfg: Mapping) -> dict[str, Value]:
    imports = (cfg.get("custom_imports") or {}).get("imports") or []
    listed = [imports] if isinstance(imports, str) else list(imports)
    kept = [name for name in listed if name not in _NEEDLESS_IMPORTS]
    return dict(custom_imports=dict(imports=["mmseg_m2f", *kept]))


def _note_the_rest(cfg: Mapping, written: Mapping, report: MigrationReport) -> None:
    """Sort the source's top-level keys into carried and left out."""
    handled = {entry.partition(":")[0] for entry in report.left_out}
    report.carried = [key for key in written if key in cfg]
    helpers = [key for key in cfg if key not in written and key not in handled and key not in _NO_VARIABLES]
    if "default_scope" in cfg:
        report.left_out.append("default_scope: every type has its scope")
    if helpers:
        report.left_out.append(f"{', '.join(helpers)}: variables that only the source's own parts used")
