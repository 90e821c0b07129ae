"""Building the model of one config, a training step, and a prediction; each stage in a process of its own.

A stage that fails ends its process, as in a user's run: the exception is printed, the last line is the reason.
"""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import Tensor
from torch import distributed as dist
from torch.nn import init
from torch.overrides import TorchFunctionMode

from mmseg_m2f.benchmark.shipped.made_batches import make_batch, values_of
from mmseg_m2f.benchmark.shipped.processes import Limits, StageResult, run_limited, stored_result
from mmseg_m2f.config.initial_weights import set_pretrained
from mmseg_m2f.errors import InvalidValueError

STAGES = ("build", "step", "predict")
_FILLING = (Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_, init.kaiming_uniform_)


def try_building(file: Path, log: Path, limits: Limits) -> tuple[StageResult, int]:
    """Build the model without filling its weights, which takes most of the time; gives also the number of weights."""

    def build() -> dict[str, object]:
        cfg = Config.fromfile(file)
        with _WithoutRandomNumbers():
            model = build_model(cfg)
        return dict(weights=sum(parameter.numel() for parameter in model.parameters()))

    result, returned = run_limited(build, log, limits)
    return result, returned.get("weights", 0)


def try_config(file: Path, log: Path, limits: Limits) -> dict[str, StageResult]:
    """Stage -> its result; a stage behind a failed build is absent."""
    built, found = run_limited(lambda: _stages(file, log, limits), log, limits, stages=5)
    if built.reason:
        return dict(build=built)
    return dict(build=built, **{stage: stored_result(found[stage]) for stage in STAGES[1:]})


def build_model(cfg: Config) -> BaseModel:
    """The model with random weights; nothing is downloaded on purpose.

    Raises:
        ValueError: the config has no model.
    """
    if not isinstance(cfg.get("model"), dict):
        raise InvalidValueError("expected a model, got a config without one: an ingredient of others.")
    scope = cfg.get("default_scope") or "mmdet"
    import_module(f"{scope}.utils").register_all_modules(init_default_scope=False)
    init_default_scope(scope)
    set_pretrained(cfg, False)
    drop_fixed_sizes(cfg.model.get("data_preprocessor") or {})
    with DefaultScope.overwrite_default_scope(scope):
        if "MMSyncBN" not in set(values_of(cfg.model, "type")):
            return MODELS.build(cfg.model)
        with _process_group_of_one():  # mmcv's SyncBN asks for its size
            return revert_sync_batchnorm(MODELS.build(cfg.model))


def drop_fixed_sizes(preprocessor: MutableMapping) -> None:
    """Keep a data preprocessor from padding or resizing batches to the size of the published training."""
    for key in ("size", "size_divisor"):
        if isinstance(preprocessor.get(key), (list, tuple)):
            preprocessor.pop(key)
            preprocessor["size_divisor"] = 32
    if preprocessor.get("batch_augments"):
        preprocessor["batch_augments"] = None


def shorten_work(node: object) -> None:
    """Leave out what takes most of a step and shows nothing new.

    Samplers draw at most 32 regions an image, proposals are at most 100, and text encoders read one sentence for each
    class.
    """
    if isinstance(node, MutableMapping):
        for key, most in dict(num=32, nms_pre=100, max_per_img=100).items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
        if "templates" in node:
            node["templates"] = ["a photo of a {}."]
        for value in node.values():
            shorten_work(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            shorten_work(item)


def sides_of(cfg: Config, limits: Limits) -> list[int]:
    """Sides of images to try, ascending: those of the limits, and the config's own if square and no larger."""
    own = cfg.get("crop_size", cfg.get("input_size", 0))  # the second is SSD's
    height, width = (own[0], own[-1]) if isinstance(own, (list, tuple)) else (own, own)
    return sorted({*limits.sides, *([height] if 0 < height == width <= limits.sides[-1] else [])})


def train_step(model: BaseModel, cfg: Config, side: int) -> None:
    """One step of SGD on a generated batch.

    Raises:
        ValueError: the loss is not finite, or no gradient reaches the model.
    """
    model.train()
    for name in ("epoch", "iter"):  # which the Runner tells the models that ask, as TOOD does
        MessageHub.get_current_instance().update_info(name, 0)
    batch = make_batch(cfg, side=side, training=True)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-5))
    losses = model.train_step(batch, optimizer)
    total = losses["loss"]
    if not torch.isfinite(total):
        raise InvalidValueError(f"expected a finite loss, got {float(total)}.")


def predict(model: BaseModel, cfg: Config, side: int) -> None:
    """One prediction on a generated image.

    Raises:
        ValueError: nothing came out.
    """
    model.eval()
    with torch.no_grad():
        results = model.test_step(make_batch(cfg, side=side, training=False))
    if isinstance(results, Tensor) or not results:
        raise InvalidValueError(f"expected a list of samples, got {type(results).__name__}.")


@contextmanager
def _process_group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class _WithoutRandomNumbers(TorchFunctionMode):
    """Tensors keep what their memory holds instead of being filled with random numbers.

    A mode does not see what a function of `torch.nn.init` calls that was itself passed to a mode.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func in _FILLING:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _stages(file: Path, log: Path, limits: Limits) -> dict[str, object]:
    """Build, and do the other stages in processes that begin with the model; gives their results."""
    cfg = Config.fromfile(file)
    shorten_work(cfg.get("model"))
    model = build_model(cfg)
    with suppress(AttributeError):  # SAN's head draws no weights; it is tried with what its memory holds
        model.init_weights()  # without, weight-standardised convolutions explode
    results: dict[str, object] = {}
    for name, stage in zip(STAGES[1:], (train_step, predict), strict=True):
        result = StageResult()
        for side in sides_of(cfg, limits):
            result, _ = run_limited(
                lambda stage=stage, side=side: stage(model, cfg, side),  # type: ignore[misc]
                log.with_name(f"{log.name}.{name}"),
                limits,
            )
            if not result.reason or _is_final(result.reason):
                break
        results[name] = vars(result)
    return results


def _is_final(reason: str) -> bool:
    """Whether a larger image would not help: out of time or memory, or an operator or package is missing."""
    return reason.startswith(("more than", "RuntimeError: mmcv._ext", "ModuleNotFound", "ImportError"))
