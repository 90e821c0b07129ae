"""One budget for configs of any origin: data, initial weights, crop, iterations, seed."""

import difflib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmseg_m2f.engine.options import apply_options, drop_initial_weights

_DATASETS = Path(__file__).parents[3] / "configs/_base_/datasets"
_DATA_KEYS = (
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "val_evaluator",
    "test_evaluator",
    "tta_pipeline",
)
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_LENGTHS = ("begin", "end", "T_max", "step_size", "total_steps")  # of a schedule, in its own unit
_LONGEST_WARM_UP = 0.1  # of the budget, where its share of the original run is not known


@dataclass(frozen=True)
class Budget:
    """What all runs have in common.

    Args:
        iterations: of training; schedules are compressed or stretched to them.
        crop: height and width of what is trained on, also the size of generated scenes; None leaves them.
        data: an ingredient of `configs/_base_/datasets`, or a path to one, that takes the place of the configs' data.
        from_scratch: no initial weights, so nothing is downloaded.
        validations: spread evenly over training; a checkpoint is kept at each.
        options: of the command line, set in each config after its data; see `apply_options`.
    """

    iterations: int
    crop: tuple[int, int] | None = None
    data: str | None = None
    from_scratch: bool = False
    validations: int = 8
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("iterations", "validations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop: expected height and width in pixels, got {self.crop}.")

    @property
    def interval(self) -> int:
        """Iterations between validations."""
        return -(-self.iterations // self.validations)


def apply_budget(cfg: Config, budget: Budget, *, seed: int) -> None:
    """Change a config so that it trains under the budget, validates, and reports.

    Raises:
        FileNotFoundError, ValueError: the budget's data or crop do not fit the config.
    """
    if budget.data is not None:
        _replace_data(cfg, budget.data)
    apply_options(cfg, budget.options)
    if budget.from_scratch:
        drop_initial_weights(cfg.model)
    if budget.crop is not None:
        _set_crop(cfg, budget.crop)
    _set_iterations(cfg, budget)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    hooks = list(cfg.get("custom_hooks") or [])
    if not any(hook["type"] == "mmseg_m2f.Report" for hook in hooks):
        hooks.append(dict(type="mmseg_m2f.Report"))
    cfg.custom_hooks = hooks


def _replace_data(cfg: Config, name: str) -> None:
    data = Config.fromfile(_find_data(name))
    for key in _DATA_KEYS:
        if key in data:
            cfg[key] = data[key]
    cfg.data_root = data.get("data_root")
    cfg.model.data_preprocessor = data.data_preprocessor
    for node in _nodes(cfg.model):
        if "num_things_classes" in node:
            raise ValueError(
                f"--data {name}: the model counts things and stuff apart (num_things_classes); expected one that has "
                "num_classes alone. Write a config for these data, and leave --data out."
            )
        if "num_classes" in node:
            node["num_classes"] = data.num_classes
        weights = node.get("class_weight")
        if isinstance(weights, list) and weights:
            node["class_weight"] = [weights[0]] * data.num_classes + [weights[-1]]  # the last one: no object


def _find_data(name: str) -> Path:
    path = Path(name) if name.endswith(".py") else _DATASETS / f"{name}.py"
    if path.is_file():
        return path
    known = [file.stem for file in sorted(_DATASETS.glob("*.py"))]
    near = difflib.get_close_matches(Path(name).stem, known, n=3, cutoff=0.4) or known
    raise FileNotFoundError(
        f"--data {name}: expected the name of a file in {_DATASETS}, or a path, got none at {path}. "
        f"Nearest: {', '.join(near)}."
    )


def _set_crop(cfg: Config, crop: tuple[int, int]) -> None:
    """Random crops of training, and generated scenes of any loop; batches are padded to the same size."""
    places = [(node, "crop_size") for node in _nodes(cfg.train_dataloader) if _is_a(node, "RandomCrop")]
    places += [(node, "image_size") for key in _LOADERS for node in _nodes(cfg.get(key)) if "image_size" in node]
    if not places:
        raise ValueError(
            f"--crop {crop[0]} {crop[1]}: expected a RandomCrop or generated scenes in train_dataloader, got neither. "
            "Leave the option out, or set the size of the images with --cfg-options."
        )
    preprocessor = cfg.model.get("data_preprocessor") or {}
    sized = [preprocessor, *(preprocessor.get("batch_augments") or [])]
    for node, key in [*places, *((node, "size") for node in sized if node.get("size"))]:
        node[key] = crop


def _set_iterations(cfg: Config, budget: Budget) -> None:
    before = cfg.train_cfg
    by_epoch = "max_epochs" in before
    length = before["max_epochs" if by_epoch else "max_iters"]
    schedules = cfg.get("param_scheduler") or []
    scaled = [
        _scaled(
            schedule, budget.iterations, epochs=length if by_epoch else None, iterations=None if by_epoch else length
        )
        for schedule in (schedules if isinstance(schedules, list) else [schedules])
    ]
    cfg.param_scheduler = [schedule for schedule in scaled if schedule is not None]
    cfg.train_cfg = dict(type="mmengine.IterBasedTrainLoop", max_iters=budget.iterations, val_interval=budget.interval)
    hooks = ConfigDict(cfg.get("default_hooks") or {})
    hooks.logger = dict(type="mmengine.LoggerHook", interval=max(budget.iterations // 10, 1), log_metric_by_epoch=False)
    hooks.checkpoint = dict(
        type="mmengine.CheckpointHook",
        by_epoch=False,
        interval=budget.interval,
        max_keep_ckpts=2,
        backend_args=dict(backend="mmseg_m2f.atomic"),
    )
    cfg.default_hooks = hooks
    cfg.log_processor = dict(by_epoch=False)


def _scaled(
    schedule: Mapping[str, object], length: int, *, epochs: int | None, iterations: int | None
) -> dict[str, object] | None:
    """The schedule over `length` iterations instead of the run's epochs or iterations; None where nothing is left."""
    new = dict(schedule, by_epoch=False)
    new.pop("convert_to_iter_based", None)
    total = epochs if schedule.get("by_epoch", True) else iterations
    if total is None:  # in the other unit: the warm-up of a run that counts epochs
        longest = max((int(schedule[key]) for key in _LENGTHS if schedule.get(key)), default=1)  # type: ignore[call-overload]
        ratio = min(_LONGEST_WARM_UP * length / longest, 1.0)
    else:
        ratio = length / total
    for key in _LENGTHS:
        if schedule.get(key) is not None:
            new[key] = round(float(schedule[key]) * ratio)  # type: ignore[arg-type]
    if "milestones" in schedule:
        new["milestones"] = [round(step * ratio) for step in schedule["milestones"]]  # type: ignore[attr-defined]
    empty = new.get("end") is not None and new["end"] <= new.get("begin", 0)  # type: ignore[operator]
    return None if empty else new


def _is_a(node: Mapping[str, object], name: str) -> bool:
    return str(node.get("type")).rpartition(".")[2] == name


def _nodes(node: object) -> Iterator[MutableMapping]:
    if isinstance(node, MutableMapping):
        yield node
    values = node.values() if isinstance(node, MutableMapping) else node if isinstance(node, (list, tuple)) else ()
    yield from chain.from_iterable(map(_nodes, values))
